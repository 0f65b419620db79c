//! A client's files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{namespace, program};
use testkit::Proxy;

/// A directory for everything that a client writes, with the CAs that it trusts.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// `authorities` are certificates in PEM.
    pub(crate) fn new(authorities: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("ca.pem"), authorities.concat()).expect("the CAs are written");
        Self { directory }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The CAs of the emulators, for clients that follow a redirect to storage or fall back.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("in here")).expect("a directory");
        std::fs::write(&path, content).expect("a file is written");
        path
    }

    /// Puts what `client-config` writes for a client below this home, for a proxy with these settings.
    pub(crate) fn write_client_config(&self, client: &str, config: &Path, proxy: &Proxy) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["client-config", client, "--mirror", &proxy.url(""), "--write", "--config"]).arg(config);
        program::run(command.arg("--root").arg(self.path()));
    }

    /// A client's command, by whitespace between its words.
    pub(crate) fn client(&self, limit: Duration, words: &str) -> Command {
        let mut words = words.split_whitespace();
        let mut command = program::client(words.next().expect("a program"), self.path(), limit);
        command.args(words).env("SSL_CERT_FILE", self.ca());
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        namespace::unmount_below(self.path());
    }
}
