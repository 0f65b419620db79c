//! A DNS server of the tests' own, and addresses from which nothing comes back.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use testkit::PATIENCE;

/// What the server does with questions for one name.
#[derive(Clone, Debug)]
pub(crate) enum Zone {
    /// Answers with these addresses, in this order.
    Has(Vec<IpAddr>),
    /// Loses so many packets, then answers with this address.
    Loses(usize, IpAddr),
    /// SERVFAIL.
    Fails,
    /// No answer.
    Hangs,
}

/// A DNS server of the test's own, which this namespace's `getaddrinfo` asks and no other.
pub(crate) struct Dns {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
    _files: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    /// What each name has, and how often it was asked for; both families count.
    zones: Mutex<HashMap<String, (Zone, usize)>>,
    asked: Condvar,
    stopped: AtomicBool,
}

/// What is mounted over these files of the system, in this mount namespace.
const FILES: [(&str, &str); 2] =
    [("/etc/resolv.conf", "nameserver 127.0.0.1\n"), ("/etc/nsswitch.conf", "hosts: files dns\n")];

impl Dns {
    /// Panics outside of a namespace: the system's own resolver must not be changed.
    pub(crate) fn start() -> Self {
        let interfaces = std::fs::read_to_string("/proc/self/net/dev").expect("proc(5)");
        let names: Vec<_> =
            interfaces.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
        assert_eq!(names, ["lo"], "a network namespace with no interface but lo is needed: run scripts/test");
        let socket = UdpSocket::bind(("127.0.0.1", 53)).expect("the port of DNS");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
        let files = tempfile::tempdir().expect("a temporary directory");
        for (number, (target, content)) in FILES.into_iter().enumerate() {
            let source = files.path().join(number.to_string());
            std::fs::write(&source, content).expect("a file is written");
            run("mount", &["--bind", &source.to_string_lossy(), target]);
        }
        let shared = Arc::new(Shared::default());
        let server = Arc::clone(&shared);
        let thread = std::thread::spawn(move || server.serve(&socket));
        Self { shared, thread: Some(thread), _files: files }
    }

    /// From now on a name has this.
    pub(crate) fn set(&self, name: &str, zone: Zone) {
        self.shared.lock().insert(name.to_owned(), (zone, 0));
    }

    /// Waits until a name was asked for since it was set.
    pub(crate) fn wait_until_asked(&self, name: &str) {
        let zones = self.shared.lock();
        let is_new = |zones: &mut HashMap<String, (Zone, usize)>| zones.get(name).is_none_or(|(_, asked)| *asked == 0);
        let waited = self.shared.asked.wait_timeout_while(zones, PATIENCE, is_new);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "nobody asks for {name}");
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        for (target, _) in FILES {
            let _ = Command::new("umount").arg(target).status();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Zone, usize)>> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, socket: &UdpSocket) {
        let mut packet = [0; 512];
        while !self.stopped.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut packet)
                && let Some(answer) = self.answer(&packet[..length])
            {
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    /// RFC 1035 section 4: the question repeated, and what there is for it.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        const HEADER: usize = 12;
        let mut labels = Vec::new();
        let mut at = HEADER;
        while let length @ 1.. = usize::from(*query.get(at)?) {
            labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
            at += 1 + length;
        }
        let question = query.get(HEADER..at + 5)?;
        let kind = *query.get(at + 2)?;
        let (code, addresses) = {
            let mut zones = self.lock();
            let zone = zones.get_mut(&labels.join("."));
            self.asked.notify_all();
            match zone {
                None => (3, Vec::new()),
                Some((zone, asked)) => {
                    *asked += 1;
                    match zone {
                        Zone::Hangs => return None,
                        Zone::Loses(packets, _) if *asked <= *packets => return None,
                        Zone::Loses(_, address) => (0, vec![*address]),
                        Zone::Fails => (2, Vec::new()),
                        Zone::Has(addresses) => (0, addresses.clone()),
                    }
                }
            }
        };
        let mut records = Vec::new();
        let mut count = 0;
        for address in addresses {
            let data = match (address, kind) {
                (IpAddr::V4(address), 1) => address.octets().to_vec(),
                (IpAddr::V6(address), 28) => address.octets().to_vec(),
                _ => continue,
            };
            count += 1;
            // A pointer to the question's name, type, class IN, a TTL of no time.
            records.extend([0xc0, HEADER as u8, 0, kind, 0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
            records.extend(data);
        }
        let mut answer = query.get(..2)?.to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend_from_slice(question);
        answer.extend(records);
        Some(answer)
    }
}

/// Addresses from which nothing ever comes back, `192.0.2.1` to `.3` and `2001:db8::1` to `::3`: they are behind one end
/// of a cable whose other end drops what is not its own.
pub(crate) struct Hole;

impl Hole {
    pub(crate) fn dig() -> Self {
        run("ip", &["link", "add", "hole0", "type", "veth", "peer", "name", "hole1"]);
        for end in ["hole0", "hole1"] {
            run("ip", &["link", "set", end, "up"]);
        }
        run("ip", &["addr", "add", "192.0.2.254/24", "dev", "hole0"]);
        run("ip", &["addr", "add", "2001:db8::fe/64", "dev", "hole0", "nodad"]);
        for last in 1..=3 {
            for address in [format!("192.0.2.{last}"), format!("2001:db8::{last}")] {
                run("ip", &["neigh", "add", &address, "lladdr", "02:00:00:00:00:01", "dev", "hole0"]);
            }
        }
        Self
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", "hole0"]).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|cause| panic!("{program}: {cause}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
