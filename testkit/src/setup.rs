//! The configuration, flags and environment of a proxy.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use acr_emulator::{Emulator, Options};
use command_fds::{CommandFdExt as _, FdMapping};

use crate::log::Log;
use crate::process::Proxy;
use crate::program::binary;
use crate::{CLIENT, SECRET, TENANT};

/// Settings of `cache` by which the registry is asked for each request: the request is passed on, or a flight asks. For tests
/// that count what the registry gets, or that let it fail.
pub const ASKING: [&str; 2] = ["off", "{tags: 0s, manifests: 0s, missing: 0s, redirects: 0s, lists: 0s, stale: 0s}"];

/// The registry's name, which has no entry in DNS.
fn domain(address: SocketAddr) -> String {
    format!("example.azurecr.io:{}", address.port())
}

/// The configuration, flags and environment of a proxy: by default, the identity of the tests and the emulator as registry.
pub struct Setup {
    args: Vec<String>,
    environment: Vec<(String, String)>,
    journal: Option<bool>,
    /// Soft and hard limit of open files; `None` keeps those of the test.
    descriptors: Option<(usize, usize)>,
    /// Listening sockets, as a service manager hands them over.
    sockets: Vec<OwnedFd>,
    program: Option<PathBuf>,
    files: tempfile::TempDir,
}

impl Setup {
    /// A proxy in front of `azure` with the prefix `hub`. It logs at `trace`, so that every test would reveal a leaked secret.
    pub fn new(azure: &Emulator) -> Self {
        Self::registry(azure, azure.registry_addr())
    }

    /// Routes instead of one upstream, each with a source and a prefix.
    pub fn routes(azure: &Emulator, routes: &[(&str, &str)]) -> Self {
        let domain = domain(azure.registry_addr());
        let route = |(source, prefix): &(&str, &str)| {
            format!("  - {{source: {source}, domain: '{domain}', prefix: {prefix}, addresses: [127.0.0.1]}}\n")
        };
        Self::with(azure, &format!("routes:\n{}", routes.iter().map(route).collect::<String>()))
    }

    /// A proxy in front of the test's own registry at this address, with the prefix `hub`. Entra ID and the CA are those of
    /// `azure`.
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
        Self {
            args: Vec::new(),
            environment: Vec::new(),
            journal: None,
            descriptors: None,
            sockets: Vec::new(),
            program: None,
            files,
        }
        .flag("--config", &config.to_string_lossy())
        .env("AZURE_AUTHORITY_HOST", &azure.authority())
        .secret(SECRET)
    }

    /// Sets what is kept, such as `{tags: 1s}` or `off`, in place of the program's defaults.
    pub fn cache(self, settings: &str) -> Self {
        self.settings(&format!("cache: {settings}"))
    }

    /// Sets what is logged, such as `{format: json}`, in place of `trace`.
    pub fn log(self, settings: &str) -> Self {
        self.edit(|config| config.replacen("log: trace\n", &format!("log: {settings}\n"), 1))
    }

    /// Adds lines to the configuration file.
    pub fn settings(self, lines: &str) -> Self {
        self.edit(|config| config + lines + "\n")
    }

    /// Listens by this value of `listen`, in which `{}` stands for the proxy's temporary directory.
    pub fn listen(self, value: &str) -> Self {
        let value = value.replace("{}", &self.files.path().to_string_lossy());
        self.edit(|config| config.replacen("listen: 127.0.0.1:0", &format!("listen: {value}"), 1))
    }

    /// Reaches the registry by its name, which only a forward proxy knows, and not by an address.
    pub fn by_name(self) -> Self {
        self.edit(|config| config.replacen("  addresses: [127.0.0.1]\n", "", 1))
    }

    /// Adds lines to the `upstream` table, indented by two spaces.
    pub fn upstream(self, lines: &str) -> Self {
        self.edit(|config| config.replacen("upstream:\n", &format!("upstream:\n{lines}"), 1))
    }

    /// Replaces the configuration's registry by these entries of `routes`.
    pub fn only_routes(self, routes: &str) -> Self {
        self.edit(|config| {
            let rest = config.split_once("listen:").map(|(_, rest)| rest).expect("it has one");
            format!("routes:\n{routes}listen:{rest}")
        })
    }

    /// Changes the text of the configuration file.
    pub fn edit(self, change: impl FnOnce(String) -> String) -> Self {
        let path = self.path("config.yaml");
        let config = std::fs::read_to_string(&path).expect("written by `with`");
        self.file("config.yaml", change(config));
        self
    }

    /// Removes the variables of the client secret.
    pub fn nobody(self) -> Self {
        ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]
            .into_iter()
            .fold(self, |setup, name| setup.env(name, ""))
    }

    /// Signs in only with the managed identity of the emulator's App Service endpoint.
    pub fn managed(self, azure: &Emulator) -> Self {
        let endpoint = azure.identity_addr().expect("asked for in the options");
        self.nobody()
            .env("PATH", "/nonexistent")
            .env("IDENTITY_ENDPOINT", &format!("http://{endpoint}/msi/token"))
            .env("IDENTITY_HEADER", &Options::default().identity_header)
    }

    /// Signs in with a client secret.
    pub fn secret(self, secret: &str) -> Self {
        self.env("AZURE_TENANT_ID", TENANT).env("AZURE_CLIENT_ID", CLIENT).env("AZURE_CLIENT_SECRET", secret)
    }

    /// Sets a flag; replaces its earlier value.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        if let Some(at) = self.args.iter().position(|arg| arg == name) {
            self.args.drain(at..at + 2);
        }
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds a flag without a value.
    pub fn switch(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    /// Sets a variable; an empty value counts as unset.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a variable from the environment. This differs from an empty value.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Sets the soft and the hard limit of open files.
    pub fn descriptors(mut self, soft: usize, hard: usize) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    /// Writes a file into the proxy's temporary directory.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file is written");
        path
    }

    /// The path of a file in that directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Sets `JOURNAL_STREAM`, as systemd does: to the stream of standard error, or to another one.
    pub fn journal(mut self, is_standard_error: bool) -> Self {
        self.journal = Some(is_standard_error);
        self
    }

    /// Hands listening sockets over, as systemd does for a socket unit.
    pub fn hand_over(mut self, sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        self.sockets.extend(sockets);
        self
    }

    /// The path of the program, in place of where cargo has built it.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Proxy {
        let socket = self.path("notify");
        let socket_name = socket.to_string_lossy().into_owned();
        let notifications = UnixDatagram::bind(&socket).expect("a socket");
        let mut proxy = self.env("NOTIFY_SOCKET", &socket_name).spawn();
        proxy.wait_until_ready(&notifications);
        proxy
    }

    /// Starts it and does not wait.
    pub fn spawn(mut self) -> Proxy {
        let (stderr, writer) = std::io::pipe().expect("a pipe");
        let stream = std::fs::File::from(OwnedFd::from(writer));
        let journal = self.journal.map(|is_standard_error| {
            let of = stream.metadata().expect("an open pipe");
            let inode = if is_standard_error { of.ino() } else { of.ino() + 1 };
            ("JOURNAL_STREAM", format!("{}:{inode}", of.dev()))
        });
        let mut command = self.command(None);
        let sockets = std::mem::take(&mut self.sockets);
        let count = sockets.len();
        if count > 0 {
            let mappings = (3..).zip(sockets).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
            command.fd_mappings(mappings.collect()).expect("each is another");
        }
        let handed_over = (count > 0).then(|| ("LISTEN_FDS", count.to_string()));
        let child = command
            .envs(journal)
            .envs(handed_over)
            .stdout(Stdio::null())
            .stderr(Stdio::from(stream))
            .spawn()
            .expect("the binary starts");
        Proxy::new(child, Log::read(stderr), self.files)
    }

    /// Runs another command of the program with the same settings, to its end.
    pub fn run(&self, command: &str) -> Output {
        self.command(Some(command)).output().expect("the binary starts")
    }

    fn command(&self, word: Option<&str>) -> Command {
        let binary = self.program.as_ref().map_or_else(binary, |path| path.to_string_lossy().into_owned());
        let mut command = match self.descriptors {
            None => Command::new(&binary),
            Some((soft, hard)) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""), &binary]);
                shell
            }
        };
        command
            .args(word)
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }
}
