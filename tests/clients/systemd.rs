//! The units of `conf` under systemd, with each drop-in that docs/install.md has, as it stands there.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use acr_emulator::{Client, Emulator, Image, Options};
use testkit::certificates::Authority;
use testkit::{CLIENT, PATIENCE, SECRET, TENANT};

use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::home::Home;
use crate::namespace;
use crate::program::{client, fail, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Of the application in Entra ID.
const CERTIFICATE: &str = include_str!("../../emulator/tests/it/keys/registered.crt");
const KEY: &str = include_str!("../../emulator/tests/it/keys/registered.key");
/// Where Arc's agent keeps its keys, on a real machine too.
const ARC_KEYS: &str = "/var/opt/azcmagent/tokens";
const PATH: &str = "/v2/library/busybox/manifests/latest";
/// Boots systemd in a tree, as the first process of namespaces with a cgroup of their own. The network is the test's. By `container`
/// it leaves devices alone, and also the propagation of mounts, without which credentials do not reach a unit.
const BOOT: &str = r#"
mkdir "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
cgroup=$(mktemp -d "$1/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/acr-cache-proxy-XXXXXX")
echo $$ >"$cgroup/cgroup.procs"
unshare --mount --pid --fork --cgroup --uts --ipc --propagation private --kill-child bash -euc '
read -r pid rest </proc/self/stat; echo $pid >"$0/pid"
cd "$0/root"
mount -t proc proc proc; mount -o ro -t sysfs sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/pts dev/shm
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts; ln -s pts/ptmx dev/ptmx
mkdir run/before; pivot_root . run/before; umount -l /run/before; mount --make-rshared /
container=other exec /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=0' "$1" &
systemd=$!
trap 'kill -KILL $systemd' TERM
wait $systemd || true
echo $$ >"$1/cgroup/cgroup.procs"
until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.05; done
"#;

/// A drop-in and what needs it.
struct Case {
    /// How its row, or the line before its block, begins in docs/install.md. None needs none.
    documented: Option<&'static str>,
    settings: &'static str,
    variables: &'static str,
    /// What `curl` gets, and by what, as a user without a right.
    ask: &'static str,
    signed_in_by: &'static str,
}

pub(crate) const SECRETS: &str = "AZURE_CLIENT_SECRET=correct~horse.battery-staple\n";
const CASES: [Case; 7] = [
    Case {
        documented: None,
        settings: "",
        variables: SECRETS,
        ask: "http://127.0.0.1:8080",
        signed_in_by: "client secret",
    },
    Case {
        documented: Some("For a certificate, or a secret in a file"),
        settings: "",
        variables: "",
        ask: "http://127.0.0.1:8080",
        signed_in_by: "client certificate",
    },
    Case {
        documented: Some("| Azure Arc"),
        settings: "identity: {kind: azure_arc}\n",
        variables: "",
        ask: "http://127.0.0.1:8080",
        signed_in_by: "Azure Arc",
    },
    Case {
        documented: Some("| TLS of `listen`"),
        settings: "listen: [{address: '127.0.0.1:8443', tls: {certificate: /etc/ssl/mirror/tls.crt, key: /etc/ssl/mirror/tls.key}}]\n",
        variables: SECRETS,
        ask: "--cacert /etc/ssl/mirror/ca.pem https://127.0.0.1:8443",
        signed_in_by: "client secret",
    },
    Case {
        documented: Some("| A client secret and the key"),
        settings: "identity: {kind: client_secret, client_secret_file: $CREDENTIALS_DIRECTORY/client-secret}\n\
                   listen: [{address: '127.0.0.1:8443', tls: {certificate: /etc/ssl/mirror/tls.crt, \
                   key: $CREDENTIALS_DIRECTORY/tls.key}}]\n",
        variables: "",
        ask: "--cacert /etc/ssl/mirror/ca.pem https://127.0.0.1:8443",
        signed_in_by: "client secret",
    },
    Case {
        documented: Some("| A Unix socket"),
        settings: "listen: [{unix: /run/acr-cache-proxy/proxy.sock, mode: '0666'}]\n",
        variables: SECRETS,
        ask: "--unix-socket /run/acr-cache-proxy/proxy.sock http://localhost",
        signed_in_by: "client secret",
    },
    Case {
        documented: Some("| A port below 1024"),
        settings: "listen: 127.0.0.1:80\n",
        variables: SECRETS,
        ask: "http://127.0.0.1",
        signed_in_by: "client secret",
    },
];

/// The lines of a drop-in, as docs/install.md has them: between backticks at the end of a row, or in the block below a line.
fn documented(begin: &str) -> String {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/install.md")).expect("read");
    let at = page.find(&format!("\n{begin}")).unwrap_or_else(|| panic!("docs/install.md: no {begin}")) + 1;
    let (line, below) = page[at..].split_once('\n').expect("not the last line");
    if !line.starts_with('|') {
        let block = below.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next());
        return block.expect("a block").to_owned();
    }
    let cell = line.trim_end_matches([' ', '|']).rsplit(" | ").next().expect("a cell");
    let lines: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
    format!("[Service]\n{}\n", lines.join("\n"))
}

/// systemd on a copy of this machine's files that nothing outlives.
pub(crate) struct Systemd {
    pub(crate) root: PathBuf,
    /// Its number here.
    pid: String,
    _daemon: Daemon,
}

impl Systemd {
    pub(crate) fn boot(home: &Home) -> Self {
        let top = home.path().join("systemd");
        let mount = |words: &str, target: &Path| run(Command::new("mount").args(words.split(' ')).arg(target));
        fs::create_dir(&top).expect("made");
        mount("-t tmpfs -o mode=755 tmpfs", &top);
        for name in ["upper", "work", "root"] {
            fs::create_dir(top.join(name)).expect("made");
        }
        let (shown, root) = (top.display(), top.join("root"));
        mount(&format!("-t overlay -o lowerdir=/,upperdir={shown}/upper,workdir={shown}/work overlay"), &root);
        // None of this machine's own units and file systems.
        mount("-t tmpfs -o mode=755 tmpfs", &root.join("etc/systemd/system"));
        mount("-t tmpfs -o mode=1777 tmpfs", &root.join("tmp"));
        // Where the emulator puts Arc's keys.
        mount("-t tmpfs -o mode=755 tmpfs", Path::new("/var/opt"));
        mount("--bind /var/opt", &root.join("var/opt"));
        fs::write(root.join("etc/fstab"), "").expect("written");
        let mut groups = fs::read_to_string(root.join("etc/group")).expect("read");
        for (number, name) in [(64001, "himds"), (64002, "ssl-cert")] {
            if !groups.lines().any(|line| line.starts_with(&format!("{name}:"))) {
                groups += &format!("{name}:x:{number}:\n");
            }
        }
        fs::write(root.join("etc/group"), groups).expect("written");
        let mut command = client("bash", home.path(), DAEMON_LIMIT);
        command.args(["-euc", BOOT, "boot"]).arg(&top);
        let pid = || fs::read_to_string(top.join("pid")).unwrap_or_default().trim().to_owned();
        let is_up = || inside(&pid(), "systemctl start basic.target").output().is_ok_and(|done| done.status.success());
        let daemon = Daemon::start("systemd", command, home, is_up);
        Self { pid: pid(), root, _daemon: daemon }
    }

    /// A file of its tree.
    pub(crate) fn file(&self, path: &str, content: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// A command of its own, by whitespace between words.
    pub(crate) fn command(&self, words: &str) -> Command {
        inside(&self.pid, words)
    }

    pub(crate) fn run(&self, words: &str) -> String {
        let output = self.command(words).output().expect("a command starts");
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{words}: {}\n{printed}\n{}", output.status, self.journal());
        printed
    }

    /// Whether a user without a right gets a manifest.
    pub(crate) fn serves(&self, ask: &str) -> bool {
        let curl = "setpriv --reuid 65534 --regid 65534 --clear-groups curl --silent --show-error --fail --max-time 60 --output /dev/null";
        let accept = "Accept:application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json";
        let done = self.command(&format!("{curl} --header {accept} {ask}{PATH}")).output().expect("curl runs");
        done.status.success()
    }

    pub(crate) fn journal(&self) -> String {
        run(&mut self.command("journalctl --no-pager --unit acr-cache-proxy"))
    }

    pub(crate) fn main_process(&self) -> String {
        self.run("systemctl show --property=MainPID --value acr-cache-proxy").trim().to_owned()
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "not so: {what}\n{}", self.journal());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A command in the namespaces of a process.
fn inside(pid: &str, words: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", pid, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--"]).args(words.split(' '));
    command
}

/// Installs the program and its units, as docs/install.md does, in front of a registry.
pub(crate) fn install(systemd: &Systemd) {
    fs::copy(env!("CARGO_BIN_EXE_acr-cache-proxy"), systemd.root.join("usr/bin/acr-cache-proxy")).expect("installed");
    for unit in ["acr-cache-proxy.service", "acr-cache-proxy.socket"] {
        let text = fs::read_to_string(Path::new(ROOT).join("conf").join(unit)).expect("read");
        systemd.file(&format!("etc/systemd/system/{unit}"), &text);
    }
    systemd.file("etc/acr-cache-proxy/client.pem", &format!("{CERTIFICATE}{KEY}"));
    systemd.file("etc/acr-cache-proxy/client-secret", SECRET);
    systemd.run("chmod 0600 /etc/acr-cache-proxy/client.pem /etc/acr-cache-proxy/client-secret");
    systemd.run(&format!("install -d -m 0750 -o root -g himds {ARC_KEYS}"));
}

/// What the proxy gets to read.
pub(crate) fn configure(systemd: &Systemd, azure: &Emulator, settings: &str, variables: &str) {
    let port = azure.registry_addr().port();
    let all = format!(
        "upstream: {{domain: 'example.azurecr.io:{port}', prefix: hub, addresses: [127.0.0.1]}}\n\
         ca_file: /etc/acr-cache-proxy/ca.pem\n{settings}"
    );
    systemd.file("etc/acr-cache-proxy/ca.pem", azure.ca_pem());
    systemd.file("etc/acr-cache-proxy/config.yaml", &all);
    let identity = azure.identity_addr().expect("an endpoint");
    let all = format!(
        "AZURE_AUTHORITY_HOST={}\nAZURE_TENANT_ID={TENANT}\nAZURE_CLIENT_ID={CLIENT}\n\
         IDENTITY_ENDPOINT=http://{identity}/metadata/identity/oauth2/token\nIMDS_ENDPOINT=http://{identity}\n{variables}",
        azure.authority()
    );
    systemd.file("etc/acr-cache-proxy/environment", &all);
    systemd.run("chmod 0600 /etc/acr-cache-proxy/environment");
}

/// A certificate of a new CA, and its key for a group only, in place of those that are there.
fn renew_certificate(systemd: &Systemd) {
    let ca = Authority::new("mirror CA");
    let pair = ca.server(&["127.0.0.1"]);
    for (name, content) in [("ca.pem", ca.pem()), ("tls.crt", &pair.certificate), ("tls.key", &pair.key)] {
        systemd.file(&format!("etc/ssl/mirror/{name}.new"), content);
    }
    systemd.run("chown root:ssl-cert /etc/ssl/mirror/tls.key.new");
    systemd.run("chmod 0640 /etc/ssl/mirror/tls.key.new");
    for name in ["ca.pem", "tls.crt", "tls.key"] {
        systemd.run(&format!("mv /etc/ssl/mirror/{name}.new /etc/ssl/mirror/{name}"));
    }
}

pub(crate) async fn azure() -> Emulator {
    azure_on([127, 0, 0, 1].into()).await
}

/// With a registry that listens on this address.
pub(crate) async fn azure_on(address: IpAddr) -> Emulator {
    namespace::assert_isolated();
    let client = Client {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        secret: Some(SECRET.to_owned()),
        certificate_pem: Some(CERTIFICATE.to_owned()),
        ..Client::default()
    };
    let azure = Emulator::start(Options {
        clients: vec![client],
        registry_listen: (address, 0).into(),
        identity_listen: Some(([127, 0, 0, 1], 0).into()),
        arc_key_directory: Some(ARC_KEYS.into()),
        ..Options::default()
    });
    let azure = azure.await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    azure
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_unit_works_under_systemd_and_so_does_each_drop_in_that_is_documented() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    renew_certificate(&systemd);
    let drop_in = "etc/systemd/system/acr-cache-proxy.service.d/override.conf";

    for Case { documented: begin, settings, variables, ask, signed_in_by } in CASES {
        // In the place that the drop-in names: the key of the certificate that is served.
        fs::copy(systemd.root.join("etc/ssl/mirror/tls.key"), systemd.root.join("etc/acr-cache-proxy/tls.key"))
            .expect("copied");
        systemd.run("chmod 0600 /etc/acr-cache-proxy/tls.key");
        configure(&systemd, &azure, settings, variables);
        let what = begin.unwrap_or("no drop-in");
        if let Some(begin) = begin {
            // It is needed: without it the unit does not start, or serves nobody.
            systemd.run("systemctl daemon-reload");
            let _ = systemd.command("systemctl start acr-cache-proxy").output();
            assert!(!systemd.serves(ask), "{what}: works without");
            systemd.run("systemctl stop acr-cache-proxy");
            systemd.file(drop_in, &documented(begin));
        }
        systemd.run("systemctl daemon-reload");
        systemd.run("systemctl start acr-cache-proxy");
        assert!(systemd.serves(ask), "{what}: {}", systemd.journal());
        let status = systemd.run("systemctl status --full --lines 0 acr-cache-proxy");
        assert!(status.contains("active (running)") && status.contains("Status: "), "{what}: {status}");
        assert!(systemd.journal().contains(&format!("signed in by {signed_in_by}")), "{what}: {}", systemd.journal());
        if settings.contains("/etc/ssl/mirror/tls.key") {
            renew_certificate(&systemd);
            systemd.wait_until("the new certificate is served", || systemd.serves(ask));
        }
        systemd.run("systemctl stop acr-cache-proxy");
        let _ = fs::remove_file(systemd.root.join(drop_in));
    }
}

/// The folder of its Unix socket was missing, then its key could not be read, and the page named neither remedy.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_listeners_of_the_page_on_a_shared_mirror_did_not_start_in_the_unit() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    let page = fs::read_to_string(Path::new(ROOT).join("docs/shared.md")).expect("read");
    let section = page.split("\n## ").find(|section| section.starts_with("Listeners\n")).expect("the section");
    let block = |language: &str| {
        let block = section.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next());
        block.unwrap_or_else(|| panic!("no {language}"))
    };
    systemd.file("etc/systemd/system/acr-cache-proxy.service.d/override.conf", block("ini"));
    configure(&systemd, &azure, block("yaml"), SECRETS);
    run(Command::new("ip").args(["address", "add", "192.0.2.11/32", "dev", "lo"]));
    let ca = Authority::new("mirror CA");
    let pair = ca.server(&["127.0.0.1"]);
    for (name, content) in [("clients.crt", ca.pem()), ("tls.crt", &pair.certificate), ("tls.key", &pair.key)] {
        systemd.file(&format!("etc/acr-cache-proxy/{name}"), content);
    }
    systemd.run("chgrp ssl-cert /etc/acr-cache-proxy/tls.key");
    systemd.run("chmod 0640 /etc/acr-cache-proxy/tls.key");
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl start acr-cache-proxy");
    assert!(systemd.serves("http://127.0.0.1:8080"), "{}", systemd.journal());
    systemd.run("test -S /run/acr-cache-proxy/clients.sock");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn systemd_reloads_restarts_and_upgrades_the_unit_and_keeps_its_socket() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    let ask = "http://127.0.0.1:8080";
    configure(&systemd, &azure, "", SECRETS);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl enable --now acr-cache-proxy.socket acr-cache-proxy");
    assert!(systemd.serves(ask), "{}", systemd.journal());

    // Good settings are taken; wrong ones fail the command and change nothing.
    configure(&systemd, &azure, "admin: 127.0.0.1:8081\n", SECRETS);
    systemd.run("systemctl reload acr-cache-proxy");
    systemd.run("curl --silent --fail --output /dev/null http://127.0.0.1:8081/readyz");
    configure(&systemd, &azure, "no_such_setting: 1\n", SECRETS);
    fail(&mut systemd.command("systemctl reload acr-cache-proxy"));
    assert!(systemd.serves(ask) && systemd.journal().contains("no_such_setting"), "{}", systemd.journal());
    configure(&systemd, &azure, "", SECRETS);

    let first = systemd.main_process();
    systemd.run(&format!("kill -USR2 {first}"));
    systemd.wait_until("another main process", || systemd.main_process() != first);
    assert!(systemd.serves(ask), "{}", systemd.journal());
    let second = systemd.main_process();
    // It knows that the socket is systemd's, which nobody would serve.
    configure(&systemd, &azure, "listen: 127.0.0.1:8090\n", SECRETS);
    fail(&mut systemd.command("systemctl reload acr-cache-proxy"));
    configure(&systemd, &azure, "", SECRETS);
    assert!(systemd.serves(ask), "{}", systemd.journal());
    systemd.run("systemctl restart acr-cache-proxy");
    assert!(systemd.main_process() != second && systemd.serves(ask), "{}", systemd.journal());

    // While nothing runs, clients wait at the socket, and the first one starts the proxy.
    systemd.run("systemctl stop acr-cache-proxy");
    assert!(systemd.serves(ask), "{}", systemd.journal());

    // Status 2 is not retried.
    configure(&systemd, &azure, "no_such_setting: 1\n", SECRETS);
    fail(&mut systemd.command("systemctl restart acr-cache-proxy"));
    let state = systemd.run("systemctl show --property=ActiveState,ExecMainStatus acr-cache-proxy");
    assert!(state.contains("ActiveState=failed") && state.contains("ExecMainStatus=2"), "{state}");
}
