//! `doctor` of hosts that are broken in each way: it finds what is broken, and claims nothing else. The words are in
//! `doctor/reports.txt`, which is to be read when it changes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use testkit::{PATIENCE, Proxy, Setup};

use crate::admin::admin;
use crate::wire;

mod buildkitds;
mod certificates;
mod containerds;
mod dockerds;
mod hosts_tomls;
mod k3ss;
mod others;
mod parts;
mod policies;
mod proxies;
mod pull;
mod signatures;
mod unasked;
mod users;

/// What podman accepts.
const POLICY: &str = "/etc/containers/policy.json";

/// One that requires sigstore signatures of Docker Hub's images.
const SIGSTORE: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}], \"transports\": {\"docker\": {\
    \"docker.io\": [{\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\"}]}}}\n";

/// What makes a host.
enum Do {
    /// These programs are installed.
    Install(&'static [&'static str]),
    /// `client-config` has written the files of these clients.
    Write(&'static [&'static str]),
    /// A file is there.
    Put(&'static str, &'static str),
    /// A text in a file is another one.
    Swap(&'static str, &'static str, &'static str),
    /// A file is not there.
    Remove(&'static str),
    /// A link is there, and leads to this.
    Link(&'static str, &'static str),
    /// A FIFO is there.
    Fifo(&'static str),
    /// The file was changed after everything was started.
    Change(&'static str),
    /// A daemon listens at this socket, and answers this to each request.
    Listen(&'static str, &'static str),
}

/// A host that is broken, or is not. In all texts `@URL@` is the proxy's address, and `@AT@` the same without a scheme.
struct Broken {
    what: &'static str,
    /// How the host comes to be so.
    made: &'static [Do],
    /// The findings: part and code.
    found: &'static [(&'static str, &'static str)],
}

/// The proxy that all hosts share.
struct Site {
    proxy: Proxy,
    settings: String,
}

impl Site {
    async fn start() -> (Self, acr_emulator::Emulator) {
        let azure = testkit::azure().await;
        let authority = format!("example.azurecr.io:{}", azure.registry_addr().port());
        let route = |source: &str, prefix: &str, on_failure: &str| {
            format!(
                "- {{source: {source}, prefix: {prefix}, on_failure: {on_failure}, domain: '{authority}', addresses: [127.0.0.1]}}\n"
            )
        };
        let routes = route("docker.io", "hub", "fallback")
            + &route("ghcr.io", "ghcr", "fallback")
            + &route("quay.io", "quay", "closed");
        let setup = Setup::new(&azure).only_routes(&routes);
        let config = setup.path("config.yaml");
        let settings = fs::read_to_string(config).expect("written");
        let proxy = setup.flag("--admin-address", ":0").start();
        let admin = admin(&proxy).port();
        let settings = settings.replacen("listen: 127.0.0.1:0", &format!("listen: '{}'", proxy.address()), 1);
        let settings = settings + &format!("admin: '127.0.0.1:{admin}'\n");
        // Until then it has something to say.
        let deadline = Instant::now() + PATIENCE;
        while wire::ask(([127, 0, 0, 1], admin).into(), "GET /readyz", "").status != 200 {
            assert!(Instant::now() < deadline, "it never was ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (Self { proxy, settings }, azure)
    }

    /// The tree of a host.
    fn host(&self, made: &[Do]) -> Host {
        let root = tempfile::tempdir().expect("a directory");
        let host = Host { root, at: self.proxy.address().to_string() };
        host.put("/etc/acr-cache-proxy/config.yaml", &self.settings);
        let mut changed = None;
        for step in made {
            match step {
                Do::Install(programs) => {
                    programs.iter().for_each(|name| host.put(&format!("/usr/bin/{name}"), ""));
                    // Its package brings this one, without which it pulls nothing.
                    if programs.contains(&"podman") {
                        host.put(POLICY, "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n");
                    }
                }
                Do::Write(clients) => clients.iter().for_each(|client| host.write(client)),
                Do::Put(path, content) => host.put(path, content),
                Do::Swap(path, from, to) => {
                    let text = fs::read_to_string(host.path(path)).expect("written before");
                    let from = host.filled(from);
                    assert!(text.contains(&from), "{path} has no {from:?}: {text}");
                    host.put(path, &text.replace(&from, to));
                }
                Do::Remove(path) => fs::remove_file(host.path(path)).expect("it was there"),
                Do::Link(path, target) => {
                    fs::create_dir_all(host.path(path).parent().expect("a directory")).expect("made");
                    std::os::unix::fs::symlink(target, host.path(path)).expect("linked");
                }
                Do::Fifo(path) => {
                    fs::create_dir_all(host.path(path).parent().expect("a directory")).expect("made");
                    nix::unistd::mkfifo(&host.path(path), nix::sys::stat::Mode::S_IRWXU).expect("made");
                }
                Do::Change(path) => changed = Some(host.path(path)),
                Do::Listen(path, answer) => listen(&host.path(path), &host.filled(answer)),
            }
        }
        // Before this process was started, which stands for every daemon.
        backdate(host.root.path());
        if let Some(path) = changed {
            set_time(&path, SystemTime::now() + Duration::from_secs(60));
        }
        host
    }
}

/// A host below a directory.
struct Host {
    root: tempfile::TempDir,
    at: String,
}

impl Host {
    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(self.filled(path).trim_start_matches('/'))
    }

    fn filled(&self, text: &str) -> String {
        text.replace("@URL@", &format!("http://{}", self.at)).replace("@AT@", &self.at)
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, self.filled(content)).expect("written");
    }

    fn write(&self, client: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        let config = self.path("/etc/acr-cache-proxy/config.yaml");
        command.args(["client-config", client, "--write", "--root"]).arg(self.root.path()).arg("--config").arg(config);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    }

    fn doctor(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.env_clear().arg("doctor").args(flags).arg("--root").arg(self.root.path());
        let output = command.output().expect("it runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for secret in ["hunter2", "panicked"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        output
    }

    /// What `--fix` should have put right, and did not; and what it has broken.
    fn left_by_fix(&self) -> Vec<(String, String)> {
        let before: Value = serde_json::from_slice(&self.doctor(&["--json"]).stdout).expect("JSON");
        let by_hand: Vec<_> = findings(&before).filter(|(_, finding)| finding["fixable"] == false).collect();
        self.doctor(&["--fix"]);
        let after: Value = serde_json::from_slice(&self.doctor(&["--json"]).stdout).expect("JSON");
        let left = findings(&after).filter(|(part, finding)| {
            !by_hand.iter().any(|(known, one)| known == part && one["code"] == finding["code"])
        });
        left.map(|(part, finding)| (part, finding["text"].to_string())).collect()
    }

    /// Carries out the commands of all findings that are more than an editor or a restart, as a shell of root's would on the host. Gives the
    /// findings that are still there.
    fn left_by_commands(&self) -> Vec<String> {
        const WRITE: [&str; 7] = ["acr-cache-proxy", "cp", "install", "mkdir", "mv", "printf", "sed"];
        let root = self.root.path().display().to_string();
        let program = Path::new(env!("CARGO_BIN_EXE_acr-cache-proxy")).parent().expect("a directory");
        let path = format!("{}:/usr/bin:/bin", program.display());
        let texts = |report: &Value| -> Vec<_> {
            let commands = findings(report).map(|(_, finding)| {
                let [text, fix] = ["text", "fix"].map(|key| finding[key].as_str().expect("text").to_owned());
                (text, fix.trim_start_matches("# on the host itself: ").to_owned())
            });
            commands.filter(|(_, fix)| WRITE.contains(&fix.split(' ').next().unwrap_or_default())).collect()
        };
        let report = || -> Value { serde_json::from_slice(&self.doctor(&["--json"]).stdout).expect("JSON") };
        let before = texts(&report());
        for (_, fix) in &before {
            let (here, there) = match fix.split_once("  # then, on the host itself: ") {
                Some((here, there)) => (here, there),
                None if fix.contains("--root ") => (fix.as_str(), ""),
                None => ("", fix.as_str()),
            };
            let there = ["etc", "root"]
                .into_iter()
                .fold(there.to_owned(), |there, at| there.replace(&format!(" /{at}/"), &format!(" {root}/{at}/")));
            let there = there.replace(" --write", &format!(" --root {root} --write"));
            for command in [here, &there].map(|command| command.split("systemctl ").next().expect("one")) {
                let command = command.trim_end_matches(" && ");
                let output =
                    Command::new("/bin/sh").args(["-c", command]).env("PATH", &path).output().expect("it runs");
                assert!(output.status.success(), "{command}: {output:?}");
            }
        }
        let after = report();
        let is_left = |text: &&String| findings(&after).any(|(_, finding)| finding["text"] == **text);
        before.iter().map(|(text, _)| text).filter(is_left).cloned().collect()
    }

    /// The report for people, with the address that the documentation has.
    fn report(&self) -> String {
        let text = String::from_utf8_lossy(&self.doctor(&[]).stdout).into_owned();
        let port = format!(":{}", self.at.rsplit(':').next().expect("a port"));
        let root = self.root.path().to_string_lossy().into_owned();
        text.replace(&format!("--root {root}"), "--root /tree")
            .replace(&root, "")
            .replace(&self.at, "127.0.0.1:8080")
            .replace(&port, ":8080")
    }
}

/// Answers each request with this object, on a thread that ends with the test's process.
fn listen(socket: &Path, answer: &str) {
    listen_and(socket, answer, |_| {});
}

/// The same, and does something with each request before it answers.
fn listen_and(socket: &Path, answer: &str, with: impl Fn(&str) + Send + 'static) {
    fs::create_dir_all(socket.parent().expect("a directory")).expect("made");
    let listener = UnixListener::bind(socket).expect("a socket");
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{answer}");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // One that only looks whether somebody listens sends nothing.
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                request.push(byte[0]);
            }
            with(&String::from_utf8_lossy(&request));
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

fn backdate(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            backdate(&path);
        } else if path.is_file() {
            set_time(&path, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        }
    }
}

fn set_time(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("a time");
}

/// Each finding of a report, with the name of its part.
fn findings(report: &Value) -> impl Iterator<Item = (String, &Value)> {
    let parts = report["parts"].as_array().expect("parts").iter();
    parts.flat_map(|part| {
        let findings = part["findings"].as_array().expect("findings").iter();
        findings.map(|finding| (part["name"].as_str().expect("text").to_owned(), finding))
    })
}

/// Part and code of each finding.
fn found(output: &Output) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|wrong| panic!("{wrong}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    findings(&report).map(|(part, finding)| (part, finding["code"].as_str().expect("text").to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_host_is_found_and_nothing_else_is_claimed() {
    let (site, _azure) = Site::start().await;
    let hosts = dockerds::BROKEN
        .iter()
        .chain(containerds::BROKEN)
        .chain(k3ss::BROKEN)
        .chain(hosts_tomls::BROKEN)
        .chain(others::BROKEN)
        .chain(users::BROKEN)
        .chain(parts::BROKEN)
        .chain(buildkitds::BROKEN)
        .chain(policies::BROKEN)
        .chain(signatures::BROKEN);
    let hosts: Vec<_> = hosts.collect();
    assert!(hosts.iter().filter(|host| !host.found.is_empty()).count() >= 30);
    let mut reports = String::new();
    let mut wrong = Vec::new();
    for Broken { what, made, found: expected, .. } in &hosts {
        let host = site.host(made);
        let output = host.doctor(&["--json"]);
        let findings = found(&output);
        let is_found = findings.iter().map(|(part, code)| (part.as_str(), code.as_str())).eq(expected.iter().copied());
        if !is_found {
            wrong.push(format!("{what}: {findings:?} in place of {expected:?}\n{}", host.report()));
        }
        let status = output.status.code();
        assert_eq!(status, Some(i32::from(!findings.is_empty())), "{what}");
        reports += &format!("=== {what}\n{}\n", host.report());
        let again = site.host(made);
        wrong.extend(again.left_by_commands().into_iter().map(|left| format!("{what}: its command leaves {left:?}")));
        wrong.extend(host.left_by_fix().into_iter().map(|left| format!("{what}: --fix leaves {left:?}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/doctor/reports.txt");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, &reports).expect("written");
    }
    let known = fs::read_to_string(path).expect("UPDATE_REFERENCE=1 writes it");
    let split = |text: &str| -> BTreeMap<String, String> {
        let parts = text.split("=== ").skip(1).filter_map(|part| part.split_once('\n'));
        parts.map(|(what, report)| (what.to_owned(), report.to_owned())).collect()
    };
    let (known, new) = (split(&known), split(&reports));
    for (what, report) in &new {
        assert_eq!(Some(report), known.get(what), "{what}: read it, then UPDATE_REFERENCE=1");
    }
    assert_eq!(known.len(), new.len(), "UPDATE_REFERENCE=1");
}

/// Its unit gives the proxy the variables of its sign-in, and who looks after the host does not have them.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_of_sign_in_whose_variables_only_the_service_has_is_no_mistake() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["podman"]), Do::Write(&["podman"])]);
    host.put("/etc/acr-cache-proxy/config.yaml", &(site.settings.clone() + "identity: {kind: client_secret}\n"));
    assert_eq!(found(&host.doctor(&["--json"])), []);
}

/// It was said not to start with them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_systemd_hands_to_the_unit_alone_is_no_mistake() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["podman"]), Do::Write(&["podman"])]);
    let identity = "identity: {kind: client_secret, client_secret_file: $CREDENTIALS_DIRECTORY/client-secret}\n";
    host.put("/etc/acr-cache-proxy/config.yaml", &(site.settings.clone() + identity));
    assert_eq!(found(&host.doctor(&["--json"])), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_a_link_of_the_tree_leads_to_is_looked_for_in_the_tree() {
    const LOADED: &str = r#"{"ServerVersion": "99.0.0", "RegistryConfig": {"Mirrors": []}}"#;
    let (site, _azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["dockerd", "containerd", "buildkitd", "crio"])]);
    let outside = tempfile::tempdir().expect("a directory");
    let socket = outside.path().join("daemon.sock");
    listen(&socket, LOADED);
    let link = |path: &str, target: &Path| {
        fs::create_dir_all(host.path(path).parent().expect("a directory")).expect("made");
        std::os::unix::fs::symlink(target, host.path(path)).expect("linked");
    };
    link("/run/docker.sock", &socket);
    link("/run/containerd", outside.path());
    link("/run/buildkit/buildkitd.sock", &Path::new("../../../../../../../../").join(&socket));
    link("/run/crio/crio.sock", &socket);
    std::os::unix::fs::symlink("daemon.sock", outside.path().join("containerd.sock")).expect("linked");
    let runs = |host: &Host| -> Vec<(String, bool)> {
        let report: Value = serde_json::from_slice(&host.doctor(&["--json"]).stdout).expect("JSON");
        let parts = report["parts"].as_array().expect("parts").iter().skip(1);
        parts.map(|part| (part["name"].as_str().expect("text").to_owned(), part["runs"] == true)).collect()
    };
    let all = |expected: bool| ["dockerd", "containerd", "cri-o", "buildkitd"].map(|name| (name.to_owned(), expected));
    assert_eq!(runs(&host), all(false), "nobody listens in the tree");
    listen(&host.path(&socket.to_string_lossy()), LOADED);
    std::os::unix::fs::symlink("daemon.sock", host.path(&outside.path().join("containerd.sock").to_string_lossy()))
        .expect("linked");
    assert_eq!(runs(&host), all(true), "there it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_repeat_the_flags_by_which_the_settings_are_read() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[Do::Install(&["dockerd"])]);
    let address = site.proxy.address().to_string();
    let flags = ["--listen-address", &address, "--upstream-domain", "example.azurecr.io", "--upstream-prefix", "hub"];
    // These change how a proxy runs, and nothing of what is typed.
    let of_run = ["--log", "warn", "--threads", "1"];
    let output = host.doctor(&[&["--json"][..], &of_run, &flags].concat());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (_, finding) = findings(&report).next().expect("a finding");
    let command = finding["fix"].as_str().expect("a command");
    let root = host.root.path().display().to_string();
    assert!(command.contains(&format!(" {} --root {root} --write", flags.join(" "))), "{command}");
    assert!(command.ends_with("  # then, on the host itself: systemctl reload docker"), "{command}");
    // In a shell it changes the tree that was looked at, and not this machine.
    let program = Path::new(env!("CARGO_BIN_EXE_acr-cache-proxy")).parent().expect("a directory");
    let mut shell = Command::new("/bin/sh");
    let output = shell.args(["-c", command]).env("PATH", program).output().expect("it runs");
    assert!(output.status.success() && host.path("/etc/docker/daemon.json").exists(), "{output:?}");
}

/// Names and contents of users' files, and what a daemon says, are quoted. A fix is pasted into a shell of root's.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_quoted_is_no_command_and_no_line_of_the_report() {
    const LOADED: &str = r#"{"ServerVersion": "26.1.5\u202e\u001b[8m\n   fix: false, and a text without an end @URL@ @URL@ @URL@ @URL@", "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#;
    let (site, _azure) = Site::start().await;
    let host = site.host(&[
        Do::Install(&["podman", "dockerd"]),
        Do::Write(&["podman", "docker"]),
        Do::Listen("/run/docker.sock", LOADED),
        Do::Put("/home/eve/.config/containers/registries.conf", ""),
        Do::Put(
            "/home/eve/.config/containers/registries.conf.d/a;false #\n\u{1b}[8m\u{202e}.conf",
            "[[registry]]\nlocation = \"http://a\\u001b[8m\\n\"\n",
        ),
    ]);
    let report = host.report();
    assert!(!report.contains(['\u{1b}', '\u{202e}']) && !report.contains("\n   fix: false"), "{report:?}");
    let version = r"26.1.5\u{202e}\u{1b}[8m\u{a}   fix: false, and a text without an end h";
    assert!(report.contains(version) && report.contains("...; "), "{report:?}");
    let output = host.doctor(&["--json"]);
    assert_eq!(found(&output), [("podman".to_owned(), "path".to_owned())]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (_, finding) = findings(&report).next().expect("one");
    let fix = finding["fix"].as_str().expect("text");
    // It names the file all the same.
    let name = r#"registries.conf.d/a;false #\012\033[8m\342\200\256.conf')""#;
    assert!(fix.ends_with(name) && !fix.contains('\n'), "{fix:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_in_of_a_user_is_edited_by_that_user_and_its_name_is_no_command() {
    let (site, _azure) = Site::start().await;
    let host = site.host(&[
        Do::Install(&["podman"]),
        Do::Write(&["podman"]),
        Do::Put(
            "/home/eve/.config/containers/registries.conf.d/99;false #.conf",
            "[[registry]]\nlocation = \"docker.io\"\n",
        ),
    ]);
    let output = host.doctor(&["--json"]);
    assert_eq!(found(&output), [("podman".to_owned(), "hidden".to_owned())]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (_, finding) = findings(&report).next().expect("one");
    let fix = finding["fix"].as_str().expect("text");
    let expected = "# on the host itself: runuser -u \"$(stat -c %U /home/eve)\" -- ${EDITOR:-vi} \
                    '/home/eve/.config/containers/registries.conf.d/99;false #.conf'  # take the entry for docker.io out";
    assert_eq!(fix, expected);
}
