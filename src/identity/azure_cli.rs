//! Signing in as the user of `az` or `azd`. azure_identity would leave a tool that hangs running, one more process for
//! each sign-in that is given up; here a tool ends with its sign-in.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::process::{Output, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, AzureDeveloperCliCredential, AzureDeveloperCliCredentialOptions,
    Executor,
};
use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::inputs::SourceError;
use crate::process_group::ProcessGroup;

/// A tool's output: a token has some KiB.
const MAX_OUTPUT: usize = 64 << 10;

/// Who is signed in to `az`.
pub(crate) fn azure() -> Result<Arc<dyn TokenCredential>, SourceError> {
    let options = AzureCliCredentialOptions { executor: Some(Arc::new(Tool)), ..AzureCliCredentialOptions::default() };
    Ok(AzureCliCredential::new(Some(options))?)
}

/// Who is signed in to `azd`.
pub(crate) fn developer() -> Result<Arc<dyn TokenCredential>, SourceError> {
    let options = AzureDeveloperCliCredentialOptions {
        executor: Some(Arc::new(Tool)),
        ..AzureDeveloperCliCredentialOptions::default()
    };
    Ok(AzureDeveloperCliCredential::new(Some(options))?)
}

/// Runs a tool in a process group of its own, which is killed when the future that runs it is dropped.
#[derive(Debug)]
struct Tool;

#[async_trait]
impl Executor for Tool {
    async fn run(&self, program: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // azure_identity runs a shell that runs the tool; all of it is to end.
            .process_group(0)
            .spawn()?;
        let mut group = ProcessGroup::of(&child);
        let (mut stdout, mut stderr) = (Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take()));
        // The tool may leave a process behind that holds its pipes open, as `az` does to report its use. So the output is
        // what the pipes hold when the tool ends, not what they hold at their own end.
        let status = tokio::select! {
            status = child.wait() => status?,
            read = async { tokio::try_join!(stdout.read(), stderr.read()) } => {
                read?;
                child.wait().await?
            }
        };
        group.has_ended();
        Ok(Output { status, stdout: stdout.rest()?, stderr: stderr.rest()? })
    }
}

/// One of a tool's two outputs.
struct Pipe<P> {
    pipe: Option<P>,
    text: Vec<u8>,
}

impl<P: AsyncRead + AsFd + Unpin> Pipe<P> {
    fn new(pipe: Option<P>) -> Self {
        Self { pipe, text: Vec::new() }
    }

    /// Reads to the end. What was read is kept when the future is dropped.
    async fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        while pipe.read_buf(&mut self.text).await? > 0 {
            bounded(&self.text)?;
        }
        Ok(())
    }

    /// All that was read, and what is in the pipe now; tokio's pipes do not block.
    fn rest(mut self) -> io::Result<Vec<u8>> {
        let mut part = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe, &mut part) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(length) => self.text.extend_from_slice(part.get(..length).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            bounded(&self.text)?;
        }
        Ok(self.text)
    }
}

fn bounded(text: &[u8]) -> io::Result<()> {
    if text.len() > MAX_OUTPUT {
        return Err(io::Error::other(format!("its output is more than {MAX_OUTPUT} bytes, which is no token")));
    }
    Ok(())
}
