//! The real binary, started against the emulator. Ports come from the system; readiness is read from the log.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Image, Options, Recorded};

/// Nothing that is awaited here takes longer, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What is done at once is done by then, even on a loaded machine; what waits for one of the proxy's limits, of 25 s and
/// of 30 s, is not.
pub const AT_ONCE: Duration = Duration::from_secs(15);

/// The tenant of the identity that every emulator of these tests knows.
pub const TENANT: &str = "72f988bf-0000-4000-8000-2d7cd011db47";
/// That identity's client id.
pub const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
/// That identity's secret.
pub const SECRET: &str = "correct~horse.battery-staple";

/// Emulator options with the tests' identity.
pub fn options() -> Options {
    Options {
        clients: vec![acr_emulator::Client {
            tenant: TENANT.to_owned(),
            client_id: CLIENT.to_owned(),
            secret: Some(SECRET.to_owned()),
            ..acr_emulator::Client::default()
        }],
        ..Options::default()
    }
}

/// An emulator that holds `hub/library/busybox:latest`.
pub async fn azure() -> Emulator {
    let azure = Emulator::start(options()).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    azure
}

/// Waits until the emulator's records fulfil the condition; `what` says what was waited for.
pub async fn wait_for(azure: &Emulator, what: &str, condition: impl Fn(&[Recorded]) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, azure.wait_for(condition)).await;
    assert!(waited.is_ok(), "{what} never came: {:?}", azure.requests());
}

/// A running proxy. Dropping it kills the process.
pub struct Proxy {
    child: Child,
    log: Arc<Log>,
    address: Option<SocketAddr>,
    _files: tempfile::TempDir,
}

#[derive(Default)]
struct Log {
    /// The text, and whether it is at its end.
    lines: Mutex<(String, bool)>,
    grown: Condvar,
}

impl Log {
    /// A test that fails with the lock in its hands still shows the log.
    fn lock(&self) -> MutexGuard<'_, (String, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What registries are called here.
fn domain(address: SocketAddr) -> String {
    format!("example.azurecr.io:{}", address.port())
}

/// What a proxy is started with: by default the tests' identity and the emulator as its registry.
pub struct Setup {
    args: Vec<String>,
    environment: Vec<(String, String)>,
    journal: Option<bool>,
    /// Soft and hard limit of open files, if they are not this process's.
    descriptors: Option<(usize, usize)>,
    files: tempfile::TempDir,
}

impl Setup {
    /// A proxy in front of `azure`, with prefix `hub`, at `trace` level: every test is one of secrets, too.
    pub fn new(azure: &Emulator) -> Self {
        Self::registry(azure, azure.registry_addr())
    }

    /// The same with routes in place of the one upstream: a source and its prefix for each of them.
    pub fn routes(azure: &Emulator, routes: &[(&str, &str)]) -> Self {
        let domain = domain(azure.registry_addr());
        let route = |(source, prefix): &(&str, &str)| {
            format!("  - {{source: {source}, domain: '{domain}', prefix: {prefix}, addresses: [127.0.0.1]}}\n")
        };
        Self::with(azure, &format!("routes:\n{}", routes.iter().map(route).collect::<String>()))
    }

    /// A registry of the test's own at this address, with prefix `hub`; `azure` is Entra ID, and its CA is trusted.
    pub fn registry(azure: &Emulator, address: SocketAddr) -> Self {
        let domain = domain(address);
        Self::with(azure, &format!("upstream:\n  domain: {domain}\n  prefix: hub\n  addresses: [127.0.0.1]\n"))
    }

    fn with(azure: &Emulator, upstream: &str) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let ca = files.path().join("ca.pem");
        std::fs::write(&ca, azure.ca_pem()).expect("the CA is written");
        let config = files.path().join("config.yaml");
        let rest = format!("listen: 127.0.0.1:0\nca_file: {}\nlog: trace\n", ca.display());
        std::fs::write(&config, upstream.to_owned() + &rest).expect("the configuration is written");
        Self { args: Vec::new(), environment: Vec::new(), journal: None, descriptors: None, files }
            .flag("--config", &config.to_string_lossy())
            .env("AZURE_AUTHORITY_HOST", &azure.authority())
            .secret(SECRET)
    }

    /// Adds lines to the configuration file.
    pub fn settings(self, lines: &str) -> Self {
        let path = self.files.path().join("config.yaml");
        let config = std::fs::read_to_string(&path).expect("written by new");
        std::fs::write(&path, config + lines + "\n").expect("the configuration is written");
        self
    }

    /// Adds lines to the `upstream` table, indented by two spaces.
    pub fn upstream(self, lines: &str) -> Self {
        let path = self.files.path().join("config.yaml");
        let config = std::fs::read_to_string(&path).expect("written by new");
        std::fs::write(&path, config.replacen("upstream:\n", &format!("upstream:\n{lines}"), 1)).expect("written");
        self
    }

    /// Replaces the configuration's registry by these entries of `routes`.
    pub fn only_routes(self, routes: &str) -> Self {
        let path = self.files.path().join("config.yaml");
        let config = std::fs::read_to_string(&path).expect("written by new");
        let rest = config.split_once("listen:").map(|(_, rest)| rest).expect("it has one");
        std::fs::write(&path, format!("routes:\n{routes}listen:{rest}")).expect("the configuration is written");
        self
    }

    /// Without any of the variables that sign in.
    pub fn nobody(self) -> Self {
        ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]
            .into_iter()
            .fold(self, |setup, name| setup.env(name, ""))
    }

    /// Signs in as the machine's identity, which App Service's endpoint of the emulator gives, and as nobody else.
    pub fn managed(self, azure: &Emulator) -> Self {
        let endpoint = azure.identity_addr().expect("asked for in the options");
        self.nobody()
            .env("PATH", "/nonexistent")
            .env("IDENTITY_ENDPOINT", &format!("http://{endpoint}/msi/token"))
            .env("IDENTITY_HEADER", &Options::default().identity_header)
    }

    /// Signs in by client secret.
    pub fn secret(self, secret: &str) -> Self {
        self.env("AZURE_TENANT_ID", TENANT).env("AZURE_CLIENT_ID", CLIENT).env("AZURE_CLIENT_SECRET", secret)
    }

    /// Sets a flag, in place of an earlier value of it.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        if let Some(at) = self.args.iter().position(|arg| arg == name) {
            self.args.drain(at..at + 2);
        }
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Sets a variable; an empty value counts as unset.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable out of its environment, which is not to set it to nothing.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Starts it with these limits of open files: soft, hard.
    pub fn descriptors(mut self, soft: usize, hard: usize) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    /// A file of this proxy's own.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file is written");
        path
    }

    /// Where such a file would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Proxy {
        let mut proxy = self.spawn();
        let line = proxy.wait_for_log("listening on http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        proxy.address = Some(address.and_then(|text| text.parse().ok()).expect("the log names the address"));
        proxy
    }

    /// Says, as systemd does, that its standard error is the journal: this stream, or another one.
    pub fn journal(mut self, is_standard_error: bool) -> Self {
        self.journal = Some(is_standard_error);
        self
    }

    /// Starts it without expecting anything.
    pub fn spawn(self) -> Proxy {
        let (stderr, writer) = std::io::pipe().expect("a pipe");
        let stream = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let journal = self.journal.map(|is_standard_error| {
            let of = stream.metadata().expect("an open pipe");
            let inode = if is_standard_error { of.ino() } else { of.ino() + 1 };
            ("JOURNAL_STREAM", format!("{}:{inode}", of.dev()))
        });
        let binary = std::env::var("CARGO_BIN_EXE_acr-cache-proxy").expect("cargo tells a test where the program is");
        let mut command = match self.descriptors {
            None => Command::new(&binary),
            Some((soft, hard)) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""), &binary]);
                shell
            }
        };
        let child = command
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(journal)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(stream))
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut lines = writer.lock();
                lines.0.push_str(&line);
                lines.0.push('\n');
                writer.grown.notify_all();
            }
            writer.lock().1 = true;
            writer.grown.notify_all();
        });
        Proxy { child, log, address: None, _files: self.files }
    }
}

impl Proxy {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("started with Setup::start")
    }

    /// `http://<address><path>`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.log.lock().0.clone()
    }

    /// The first line that holds `needle`, as soon as it is there.
    pub fn wait_for_log(&self, needle: &str) -> String {
        self.wait_until(needle, |log| log.lines().find(|line| line.contains(needle)).map(str::to_owned))
    }

    /// What `look` finds in the log, as soon as it does; `what` says what was looked for.
    pub fn wait_until<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().expect("log");
        loop {
            if let Some(found) = look(&lines.0) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.1 && !left.is_zero(), "no {what:?} in the log:\n{}", lines.0);
            lines = self.log.grown.wait_timeout(lines, left).expect("log").0;
        }
    }

    /// Stops it, and gives everything that it has logged, to its last line.
    pub fn end(mut self) -> String {
        self.signal("TERM");
        self.wait();
        let lines = self.log.lock();
        let (lines, waited) =
            self.log.grown.wait_timeout_while(lines, PATIENCE, |(_, at_its_end)| !*at_its_end).expect("log");
        assert!(!waited.timed_out(), "the log has no end:\n{}", lines.0);
        lines.0.clone()
    }

    /// Sends a signal by its name, as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            // The only way to wait for a process with a limit; nothing depends on the step.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many threads it has now.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs").count()
    }

    /// The most memory that it ever had, in bytes: all of it, as the kernel counts.
    pub fn peak_resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
        let kilobytes = line.trim().strip_suffix(" kB").and_then(|number| number.parse::<usize>().ok());
        kilobytes.expect("a number of kB") << 10
    }

    /// The memory that it has now, in bytes, without the pages of its program: those of a debug build are many.
    pub fn resident_bytes(&self) -> usize {
        const PAGE: usize = 4096;
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("it runs");
        let mut pages = statm.split(' ').skip(1).map(|pages| pages.parse::<usize>().expect("a number of pages"));
        let (resident, of_files) = (pages.next().expect("resident"), pages.next().expect("shared"));
        resident.saturating_sub(of_files) * PAGE
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy\n{}---", self.log());
        }
    }
}
