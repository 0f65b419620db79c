//! SIGUSR2: another process of this program, perhaps of a newer version, takes this one's place.
//!
//! It is started with the same arguments and gets the listening sockets, by the variables with which systemd hands sockets over
//! (sd_listen_fds(3)). As long as it has no tokens it accepts nothing, and this process serves on. Then it serves, and this one
//! drains. The sockets stay open all the time, so no client is refused. If the new process does not become ready, or clients would
//! lose what only this one keeps, it is ended, and this one goes on.

use std::ffi::OsString;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use log::info;

use super::standing::Standing;
use crate::control::{self, Request};
use crate::listen::inherited::{self, FIRST_DESCRIPTOR, Handed};
use crate::notify;

/// The new process has its tokens within this. A sign-in takes a second; this is for one that is tried again.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const STEP: Duration = Duration::from_millis(50);

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
    let child = start(&program, arguments, sockets).map_err(|cause| format!("{}: {cause}", program.display()))?;
    let mut child = NewProcess(Some(child));
    let pid = child.wait_until_ready(standing, cancelled)?;
    match control::ask(pid, Request::Serve) {
        Ok(Ok(_)) => {}
        Ok(Err(sentences)) => return Err(sentences),
        Err(cause) => return Err(format!("process {pid}: {cause}")),
    }
    child.0 = None;
    notify::replaced_by(pid);
    info!("upgrade: process {pid} serves from now on");
    Ok(())
}

fn start(program: &OsString, arguments: impl Iterator<Item = OsString>, sockets: Vec<Handed>) -> Result<Child, String> {
    let mut command = Command::new(program);
    command.args(arguments).envs(inherited::variables(&sockets));
    for variable in inherited::RECIPIENT.into_iter().chain([notify::watchdog::RECIPIENT]) {
        command.env_remove(variable);
    }
    let mappings =
        (FIRST_DESCRIPTOR..).zip(sockets).map(|(child_fd, handed)| FdMapping { parent_fd: handed.socket, child_fd });
    command.fd_mappings(mappings.collect()).map_err(|cause| cause.to_string())?;
    command.spawn().map_err(|cause| cause.to_string())
}

/// The new process, ended if it is dropped before it serves.
struct NewProcess(Option<Child>);

impl NewProcess {
    /// Returns the process's id.
    fn wait_until_ready(&mut self, standing: impl Fn() -> Standing, cancelled: &AtomicBool) -> Result<u32, String> {
        let child = self.0.as_mut().ok_or("there is no new process")?;
        let (pid, deadline) = (child.id(), Instant::now() + READY_LIMIT);
        info!("upgrade: process {pid} is started, and gets {} s to become ready", READY_LIMIT.as_secs());
        loop {
            if let Some(status) = child.try_wait().map_err(|cause| format!("process {pid}: {cause}"))? {
                return Err(format!("process {pid} has ended by itself, {status}: its own lines here say why"));
            }
            // Until it has read its settings, there is no socket.
            let missing = match control::ask(pid, Request::Unready) {
                Ok(Ok(lines)) => match standing().holds_back(&lines) {
                    None => return Ok(pid),
                    Some(why) => why,
                },
                Ok(Err(sentences)) => sentences,
                Err(why) => why,
            };
            if cancelled.load(Ordering::Acquire) {
                return Err(format!("process {pid} is ended, because this one was told to end"));
            }
            if Instant::now() >= deadline {
                return Err(format!("process {pid} could not take over within {} s: {missing}", READY_LIMIT.as_secs()));
            }
            sleep(STEP);
        }
    }
}

impl Drop for NewProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It serves nobody yet. An error means that it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
