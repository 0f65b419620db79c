//! HAProxy and nginx in front of the instances, by the files in `conf`: each once for every version of the PROXY protocol that it
//! sends, for plain HTTP and for TLS.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::home::Home;

/// Where the instances are. The first two are those of the files.
pub(super) const INSTANCES: [&str; 3] = ["192.0.2.11", "192.0.2.12", "192.0.2.13"];
/// The instances' ports for plain HTTP and for TLS.
pub(super) const PORTS: [u16; 2] = [8080, 8443];

/// One way to the instances. Each has an address of its own, which is the source of all clients that choose none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub name: &'static str,
    pub address: SocketAddrV4,
    pub has_tls: bool,
    /// The word on HAProxy's `server` lines; nginx has none.
    haproxy: Option<&'static str>,
}

const fn lane(number: u8, name: &'static str, has_tls: bool, haproxy: Option<&'static str>) -> Lane {
    let address = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, number), 8080);
    Lane { name, address, has_tls, haproxy }
}

/// nginx sends version 1 only.
pub(super) const LANES: [Lane; 6] = [
    lane(1, "HAProxy v1", false, Some("send-proxy")),
    lane(2, "HAProxy v2", false, Some("send-proxy-v2")),
    lane(3, "HAProxy v1 TLS", true, Some("send-proxy")),
    lane(4, "HAProxy v2 TLS", true, Some("send-proxy-v2")),
    lane(5, "nginx v1", false, None),
    lane(6, "nginx v1 TLS", true, None),
];

impl Lane {
    /// These sections of a file for this lane, with the third instance, and `end` on each `server` line.
    fn sections(&self, number: usize, sections: &str, end: &str) -> String {
        let mut lines = Vec::new();
        for line in sections.lines() {
            if !line.contains("192.0.2.") {
                lines.push(line.replace("127.0.0.1:8080", &self.address.to_string()));
                continue;
            }
            let port = PORTS[usize::from(self.has_tls)];
            let line = line.replace(":8080", &format!(":{port}")) + end;
            if line.contains(INSTANCES[1]) {
                lines.push(line.replace(INSTANCES[1], INSTANCES[2]).replace("second", "third"));
            }
            lines.push(line);
        }
        let text = lines.join("\n") + "\n";
        text.replace("frontend clients", &format!("frontend clients-{number}"))
            .replace("backend instances", &format!("backend instances-{number}"))
            .replace("upstream instances", &format!("upstream instances-{number}"))
            .replace("proxy_pass instances;", &format!("proxy_pass instances-{number};\n    proxy_protocol on;"))
    }
}

/// `conf/haproxy.cfg` for its lanes.
fn haproxy() -> String {
    let conf = include_str!("../../../conf/haproxy.cfg");
    let (defaults, sections) = conf.split_once("frontend clients").expect("the file's form");
    let sections = format!("frontend clients{sections}");
    let lanes = LANES.iter().enumerate().filter_map(|(number, lane)| Some((number, lane, lane.haproxy?)));
    let lanes = lanes.map(|(number, lane, word)| lane.sections(number, &sections, &format!(" {word}")));
    let text = defaults.to_owned() + &lanes.collect::<String>();
    assert_eq!(text.matches(" send-proxy").count(), 4 * INSTANCES.len(), "{text}");
    text
}

/// `conf/nginx-stream.conf` for its lanes.
fn nginx() -> String {
    let conf = include_str!("../../../conf/nginx-stream.conf");
    let (head, rest) = conf.split_once("stream {\n").expect("the file's form");
    let sections = rest.trim_end().strip_suffix('}').expect("the file's form");
    let lanes = LANES.iter().enumerate().filter(|(_, lane)| lane.haproxy.is_none());
    let lanes: String = lanes.map(|(number, lane)| lane.sections(number, sections, "")).collect();
    assert_eq!(
        (lanes.matches("proxy_protocol on;").count(), lanes.matches("server 192.0.2.").count()),
        (2, 6),
        "{lanes}"
    );
    format!("{head}stream {{\n{lanes}}}\n")
}

/// Starts both.
pub(super) fn start(home: &Home) -> [Daemon; 2] {
    let haproxy = home.file("haproxy.cfg", &haproxy());
    let nginx = home.file("nginx.conf", &nginx());
    let mut by_nginx = home.client(DAEMON_LIMIT, &format!("nginx -e stderr -c {}", nginx.display()));
    by_nginx.arg("-g").arg(format!("daemon off; pid {}/pid;", home.path().display()));
    let by_haproxy = home.client(DAEMON_LIMIT, &format!("haproxy -db -f {}", haproxy.display()));
    let listens = |is_haproxy| {
        let lanes = LANES.iter().filter(move |lane| lane.haproxy.is_some() == is_haproxy);
        move || lanes.clone().all(|lane| TcpStream::connect(lane.address).is_ok())
    };
    [Daemon::start("haproxy", by_haproxy, home, listens(true)), Daemon::start("nginx", by_nginx, home, listens(false))]
}
