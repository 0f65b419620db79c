//! Runs `az` and `azd` for azure_identity, which itself would leave behind one that hangs: each sign-in that is given up
//! would be one process more.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::process::{Output, Stdio};

use async_trait::async_trait;
use azure_identity::Executor;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// What a tool may say: a token has some KiB.
const MAX_OUTPUT: usize = 64 << 10;

/// Runs a tool in a process group of its own, which ends with the future that runs it.
#[derive(Debug)]
pub struct Tool;

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
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
        let (mut stdout, mut stderr) = (Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take()));
        // The tool may leave a process behind that holds its pipes open, as `az` does to report its use. So the end of
        // the tool counts, and not that of the pipes: what it has said is in them by then.
        let status = tokio::select! {
            status = child.wait() => status?,
            read = async { tokio::try_join!(stdout.read(), stderr.read()) } => {
                read?;
                child.wait().await?
            }
        };
        group.0 = None;
        Ok(Output { status, stdout: stdout.rest()?, stderr: stderr.rest()? })
    }
}

/// What a tool says on one of its two outputs.
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

    /// All that was read, with what is in the pipe now; tokio's pipes do not block.
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
        return Err(io::Error::other(format!("it says more than {MAX_OUTPUT} bytes, which is no token")));
    }
    Ok(())
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may have ended by itself.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
