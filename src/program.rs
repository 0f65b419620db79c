//! Programs that are run to their end: with a bound of what they print, and ended, with their process group, when nobody waits for them
//! any more. What a program has put into a group or a session of its own is not ended: it has left on purpose, and systemd, whose
//! unit it cannot leave, ends it with the unit.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// Those that run. The end of this process drops no future that has one.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// What becomes of output beyond the bound.
#[derive(Clone, Copy, Debug)]
enum Beyond {
    /// It is an error, of the kind [`io::ErrorKind::FileTooLarge`].
    Fails,
    /// It is read and dropped, so that the program can go on.
    IsDropped,
}

/// What a program has printed so far.
#[derive(Debug)]
pub(crate) struct Printed {
    /// To standard output.
    pub stdout: Vec<u8>,
    /// To standard error.
    pub stderr: Vec<u8>,
    /// Of each of them.
    max: usize,
    beyond: Beyond,
}

impl Printed {
    /// All of it. More than `max` bytes of one of the two are an error.
    pub(crate) fn all(max: usize) -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), max, beyond: Beyond::Fails }
    }

    /// The first `max` bytes of each of the two.
    pub(crate) fn first(max: usize) -> Self {
        Self { beyond: Beyond::IsDropped, ..Self::all(max) }
    }
}

/// Runs a program in a process group of its own, with nothing to read, and waits for its end. When this future is dropped, all of the
/// group is killed; what was printed until then is in `printed`.
///
/// The program may leave a process behind that holds its pipes open, as `az` does to report its use. So the output is what the pipes
/// hold when the program ends, not what they hold at their own end.
pub(crate) async fn run(command: &mut Command, printed: &mut Printed) -> io::Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let mut group = ProcessGroup::of(&child);
    let Printed { stdout, stderr, max, beyond } = printed;
    let (max, beyond) = (*max, *beyond);
    let mut stdout = Output { pipe: child.stdout.take(), text: stdout, max, beyond };
    let mut stderr = Output { pipe: child.stderr.take(), text: stderr, max, beyond };
    let status = tokio::select! {
        status = child.wait() => status?,
        read = async { tokio::try_join!(stdout.read(), stderr.read()) } => {
            read?;
            child.wait().await?
        }
    };
    group.has_ended();
    stdout.read_rest()?;
    stderr.read_rest()?;
    Ok(status)
}

/// To be called before this process ends.
pub(crate) fn end_all() {
    for id in std::mem::take(&mut *running()) {
        kill(id);
    }
}

/// One of a program's two outputs.
struct Output<'a, P> {
    pipe: Option<P>,
    text: &'a mut Vec<u8>,
    max: usize,
    beyond: Beyond,
}

impl<P: AsyncRead + AsFd + Unpin> Output<'_, P> {
    /// Reads to the end.
    async fn read(&mut self) -> io::Result<()> {
        let mut part = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut part).await? {
                0 => break,
                length => self.take(part.get(..length).unwrap_or_default())?,
            }
        }
        Ok(())
    }

    /// Reads what is in the pipe now; tokio's pipes do not block.
    fn read_rest(&mut self) -> io::Result<()> {
        let mut part = [0; 4096];
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe, &mut part) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(length) => self.take(part.get(..length).unwrap_or_default())?,
                Err(Errno::EINTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, part: &[u8]) -> io::Result<()> {
        let room = self.max - self.text.len();
        self.text.extend_from_slice(part.get(..room).unwrap_or(part));
        match self.beyond {
            Beyond::Fails if part.len() > room => {
                Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("its output is more than {} bytes", self.max)))
            }
            Beyond::Fails | Beyond::IsDropped => Ok(()),
        }
    }
}

/// The process group of a child that leads one; killed when this is dropped before the child has ended.
struct ProcessGroup(Option<i32>);

impl ProcessGroup {
    /// Of a child that was started with `process_group(0)`.
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        running().extend(id);
        Self(id)
    }

    /// The child has ended by itself. What it has left behind may go on, and its number may be another's soon.
    fn has_ended(&mut self) {
        if let Some(id) = self.0.take() {
            running().remove(&id);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            running().remove(&id);
            kill(id);
        }
    }
}

fn kill(id: i32) {
    // It may have ended by itself.
    let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
}

/// Nothing panics while it holds the lock.
fn running() -> MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_was_printed_at_the_end_is_there_and_a_process_that_is_left_behind_is_not_waited_for() {
        let mut printed = Printed::all(100);
        let mut command = shell("echo out; sleep 1000 & echo $! >&2; exit 3");
        let status = run(&mut command, &mut printed).await.expect("it runs");
        assert_eq!((status.code(), printed.stdout.as_slice()), (Some(3), &b"out\n"[..]));
        let left: i32 = String::from_utf8_lossy(&printed.stderr).trim().parse().expect("a number");
        nix::sys::signal::kill(Pid::from_raw(left), Signal::SIGKILL).expect("it goes on");
    }

    /// The documentation said that all is ended that the program has started.
    #[tokio::test]
    async fn a_program_that_is_given_up_ends_with_its_process_group_and_what_has_left_that_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command =
            shell("sleep 1000 & echo $! > group; setsid sh -c 'echo $$ > session; exec sleep 1000' & wait");
        let id = |name| {
            let path = folder.path().join(name);
            async move {
                loop {
                    // Its line is whole when it has an end.
                    let written = std::fs::read_to_string(&path).unwrap_or_default();
                    if let Some(id) = written.strip_suffix('\n').and_then(|id| id.parse::<i32>().ok()) {
                        break id;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        let both = async { (id("group").await, id("session").await) };
        let mut printed = Printed::all(100);
        let (in_group, elsewhere) = tokio::select! {
            ended = run(command.current_dir(&folder), &mut printed) => panic!("it hangs: {ended:?}"),
            both = tokio::time::timeout(Duration::from_secs(60), both) => both.expect("it starts both"),
        };
        nix::sys::signal::kill(Pid::from_raw(elsewhere), Signal::SIGKILL).expect("it goes on");
        // Whoever inherits the other one takes a moment to bury it.
        let is_gone = || {
            let state = std::fs::read_to_string(format!("/proc/{in_group}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        let gone = async {
            while !is_gone() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it is ended");
    }

    #[tokio::test]
    async fn output_beyond_the_bound_is_an_error_or_dropped() {
        let lines = || shell("yes | head -c 100000; yes | head -c 100000 >&2");
        let wrong = run(&mut lines(), &mut Printed::all(99_999)).await.expect_err("too long");
        assert_eq!(
            (wrong.kind(), wrong.to_string().as_str()),
            (io::ErrorKind::FileTooLarge, "its output is more than 99999 bytes")
        );
        for (mut printed, length) in [(Printed::all(100_000), 100_000), (Printed::first(7), 7)] {
            assert!(run(&mut lines(), &mut printed).await.expect("it runs").success());
            assert_eq!((printed.stdout.len(), printed.stderr.len()), (length, length));
        }
    }
}
