//! SIGUSR2: another process of this program, perhaps of a newer version, takes this one's place.
//!
//! It is started with the same arguments and gets the listening sockets, by the variables with which systemd hands sockets over
//! (sd_listen_fds(3)), and one more, by which this process asks it. As long as it has no tokens it accepts nothing, and this process
//! serves on. Then it serves, and this one drains. The sockets stay open all the time, so no client is refused. If the new process
//! does not become ready, or clients would lose what only this one keeps, it is ended, and this one goes on.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use log::info;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{AccessFlags, Pid, access};

use super::handover::{self, Asking, Request};
use super::standing::{Obstacle, Standing};
use crate::listen::inherited::{self, FIRST_DESCRIPTOR, Handed};
use crate::notify;

/// The new process has its tokens within this. A sign-in takes a second; this is for one that is tried again.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const STEP: Duration = Duration::from_millis(50);
/// From one time that it has tried to reach the registries to the next.
const REACH_STEP: Duration = Duration::from_secs(1);
/// Up to the machine that an ELF file is for.
const ELF_BEGIN: u64 = 20;
/// What a program that is not whole ends with.
const OF_A_DAMAGED_FILE: [Signal; 3] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL];
/// It begins to serve within milliseconds. One that hangs then is ended.
const SERVE_LIMIT: Duration = Duration::from_secs(10);

/// Starts the new process with these sockets and returns when it serves; `standing` is what clients get by this process. The error
/// says why this process has to go on. `cancelled` ends the attempt.
pub(super) fn replace(
    sockets: Vec<Handed>,
    standing: impl Fn() -> Standing,
    cancelled: &AtomicBool,
) -> Result<(), String> {
    let mut arguments = std::env::args_os();
    // Not /proc/self/exe: after an installation that is the old program, which has no name any more.
    let program = arguments.next().ok_or("this process was started without its name")?;
    let (asking, asked) = handover::pair(STEP).map_err(|cause| format!("pair of sockets: {cause}"))?;
    check_program(&program)?;
    let started = start(&program, arguments, sockets, asked).map_err(|cause| format!("{}: {cause}", program.display()));
    let mut process = NewProcess { child: Some(started?), asking };
    let pid = process.wait_until_ready(standing, cancelled)?;
    process.serve().map_err(|cause| format!("process {pid} does not begin to serve: {cause}"))?;
    notify::replaced_by(pid);
    info!("upgrade: process {pid} serves from now on");
    Ok(())
}

/// An error if the system does not run this file itself. execvp(3) would hand it to a shell then, line by line.
fn check_program(program: &OsStr) -> Result<(), String> {
    let path = Path::new(program);
    let is_there = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let path = match program.as_bytes().contains(&b'/') {
        false => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).map(|folder| folder.join(path)).find(is_there)
        }
        true => Some(path.to_owned()).filter(is_there),
    };
    // Of one that is not there, or cannot be read, its start tells.
    let (Some(Ok(new)), Ok(own)) = (path.as_deref().map(begin), begin(Path::new("/proc/self/exe"))) else {
        return Ok(());
    };
    if new.starts_with(b"#!") || kind(&new).is_some_and(|new| Some(new) == kind(&own)) {
        return Ok(());
    }
    Err(format!(
        "{}: it is no program for this machine, neither as this one (ELF) nor a script (#!): install it again",
        program.display()
    ))
}

/// The begin of a file, in which ELF says what it is for.
fn begin(path: &Path) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    File::open(path)?.take(ELF_BEGIN).read_to_end(&mut begin)?;
    Ok(begin)
}

/// What an ELF file is for: class and order of bytes, and the machine (elf(5)).
fn kind(begin: &[u8]) -> Option<(&[u8], &[u8])> {
    Some((begin.get(4..6)?, begin.get(18..20)?)).filter(|_| begin.starts_with(b"\x7fELF"))
}

fn start(
    program: &OsString,
    arguments: impl Iterator<Item = OsString>,
    sockets: Vec<Handed>,
    asked: OwnedFd,
) -> Result<Child, String> {
    let mut command = Command::new(program);
    command.args(arguments).envs(inherited::variables(&sockets));
    for variable in inherited::RECIPIENT.into_iter().chain([notify::watchdog::RECIPIENT]) {
        command.env_remove(variable);
    }
    let sockets = sockets.into_iter().map(|handed| handed.socket).chain([asked]);
    let mappings = (FIRST_DESCRIPTOR..).zip(sockets).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    // If it fails, all that it has started ends with it: whatever goes on has these sockets open.
    command.process_group(0);
    command.fd_mappings(mappings.collect()).map_err(|cause| cause.to_string())?;
    command.spawn().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound if Path::new(program).is_file() => {
            format!("the interpreter that its first line names is not there, or that line ends in CR LF: {cause}")
        }
        _ => cause.to_string(),
    })
}

/// The new process, ended if it is dropped before it serves.
struct NewProcess {
    child: Option<Child>,
    /// Closed after the process has ended: it would take that for the end of this one, and serve.
    asking: Asking,
}

impl NewProcess {
    /// Returns the process's id.
    fn wait_until_ready(&mut self, standing: impl Fn() -> Standing, cancelled: &AtomicBool) -> Result<u32, String> {
        let pid = self.child.as_ref().ok_or("there is no new process")?.id();
        let deadline = Instant::now() + READY_LIMIT;
        info!("upgrade: process {pid} is started, and gets {} s to become ready", READY_LIMIT.as_secs());
        let (mut is_asked, mut request) = (false, Request::Unready);
        let mut obstacle = Obstacle::default();
        loop {
            if has_ended(pid).map_err(|cause| format!("process {pid}: {cause}"))? {
                let status = self.end().map_err(|cause| format!("process {pid}: {cause}"))?;
                return Err(format!("process {pid} {}", how_it_ended(status)));
            }
            let answer = if is_asked { Ok(()) } else { self.asking.send(request) };
            is_asked = true;
            match answer.and_then(|()| self.asking.answer()) {
                Ok(None) => {}
                Ok(Some(lines)) => {
                    let Some(next) = obstacle.judge(&standing(), request, lines) else { return Ok(pid) };
                    is_asked = false;
                    // Each time it connects to every registry.
                    sleep(if request == Request::Unreached { REACH_STEP } else { STEP });
                    request = next;
                }
                Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                    return Err(format!("process {pid} is no acr-cache-proxy, or fails: {cause}: install it again"));
                }
                // It is ending, which takes a moment.
                Err(cause) => {
                    obstacle.why = format!("it cannot be asked: {cause}");
                    sleep(STEP);
                }
            }
            if cancelled.load(Ordering::Acquire) {
                return Err(format!("process {pid} is ended, because this one was told to end"));
            }
            if Instant::now() >= deadline {
                let limit = READY_LIMIT.as_secs();
                return Err(format!("process {pid} could not take over within {limit} s: {}", obstacle.why));
            }
        }
    }

    /// It has no request left that is not answered. From its return on, it goes on whatever becomes of this value.
    fn serve(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + SERVE_LIMIT;
        // One that ends after its word is found by another question: nobody would serve if this process ended, too.
        for request in [Request::Serve, Request::Unready] {
            self.asking.send(request)?;
            while self.asking.answer()?.is_none() {
                if Instant::now() >= deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        if has_ended(self.child.as_ref().ok_or(io::ErrorKind::NotFound)?.id())? {
            return Err(io::Error::other("it has ended"));
        }
        self.child = None;
        Ok(())
    }

    /// Ends what is left of it, with all that it has started, which has the sockets as well.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let mut child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        // Nobody has waited for it yet, so its number is nobody else's. An error means that nothing is left.
        let _ = killpg(process(child.id())?, Signal::SIGKILL);
        child.wait()
    }
}

impl Drop for NewProcess {
    fn drop(&mut self) {
        // It serves nobody yet. An error means that it is gone, or that it serves.
        let _ = self.end();
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match status.signal() {
        None => format!("has ended by itself, {status}: its own lines here say why"),
        Some(signal) if OF_A_DAMAGED_FILE.iter().any(|own| *own as i32 == signal) => {
            format!("was ended by a signal, {status}: its file may be damaged or not whole: install it again")
        }
        Some(_) => format!(
            "was ended by a signal, {status}: who sent it knows why, or the kernel (journalctl -k), as for want of memory"
        ),
    }
}

/// Whether it has, without a wait for it that would give its number away.
fn has_ended(pid: u32) -> io::Result<bool> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(process(pid)?), flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(cause) => Err(cause.into()),
    }
}

fn process(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).map(Pid::from_raw).map_err(io::Error::other)
}
