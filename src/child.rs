//! The proxy as a child process of this same binary, for `demo` and `bench --emulated`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The child listens within milliseconds; this is for a very busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What a child that does not start says last is its reason; what comes before is of less use.
const LAST_LINES: usize = 4;

/// Set for a child alone: its standard input is a pipe that ends with its parent.
const ENDS_WITH_STDIN: &str = "ACR_CACHE_PROXY_ENDS_WITH_STDIN";

/// For `main`: a child ends when its parent has ended, in whatever way, SIGKILL included. Nothing happens elsewhere.
pub fn end_with_parent() {
    if std::env::var_os(ENDS_WITH_STDIN).is_some() {
        std::thread::spawn(|| {
            // Nothing is ever sent; an error means as much as the end.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            std::process::exit(0);
        });
    }
}

/// A running proxy, stopped when this value is dropped.
pub struct ProxyProcess {
    child: Child,
    address: SocketAddr,
}

impl ProxyProcess {
    /// Starts it and waits until it listens; `heard` gets every line of its log.
    pub fn start(
        arguments: &[String],
        variables: &[(&str, String)],
        heard: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, String> {
        let binary = std::env::current_exe().map_err(|cause| format!("own binary: {cause}"))?;
        let mut child = Command::new(binary)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env(ENDS_WITH_STDIN, "1")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C is for the parent, which stops the child in its own time.
            .process_group(0)
            .spawn()
            .map_err(|cause| format!("proxy: {cause}"))?;
        let stderr = child.stderr.take();
        // From here on the child is stopped on every way out.
        let mut process = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut last = Vec::new();
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
                heard(&line);
                let address = line.split("listening on http://").nth(1).and_then(|rest| rest.split(' ').next());
                if let Some(Ok(address)) = address.map(str::parse::<SocketAddr>) {
                    let _ = sender.send(Ok(address));
                }
                if last.len() == LAST_LINES {
                    last.remove(0);
                }
                last.push(line.trim_start_matches("acr-cache-proxy: ").to_owned());
            }
            let _ = sender.send(Err(last.join("; ")));
        });
        process.address = receiver
            .recv_timeout(START_LIMIT)
            .map_err(|_| format!("the proxy did not listen within {} s", START_LIMIT.as_secs()))?
            .map_err(|last| format!("the proxy did not start: {last}"))?;
        Ok(process)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that only this user can read, removed with this value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it; the error names it.
    pub fn new(purpose: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!(
            "acr-cache-proxy-{purpose}-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        ));
        DirBuilder::new().mode(0o700).create(&path).map_err(|cause| format!("{}: {cause}", path.display()))?;
        Ok(Self(path))
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        let write = || -> io::Result<()> {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(content.as_bytes())
        };
        write().map_err(|cause| format!("{}: {cause}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
