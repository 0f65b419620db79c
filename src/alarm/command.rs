//! `notify.command`: a program that is told of a fault that lasts, and of its end.

use std::path::PathBuf;
use std::time::Duration;

use log::{info, warn};
use nix::unistd::{AccessFlags, access};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Event, Tells};
use crate::program::{self, Printed};

/// A message is on its way within this; a program that hangs is ended, with its process group.
const LIMIT: Duration = Duration::from_secs(30);
/// Of what it prints, the log has so much, and the rest is read and dropped.
const MAX_OUTPUT: usize = 1024;
/// An argument or a variable has 128 KiB at most; a sentence has some hundred bytes.
const MAX_MESSAGE: usize = 4096;
/// Variables of this process that it gets. The others may be secrets.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// Why the command cannot be run, a sentence; `None` if it can be, as far as that shows before.
pub(crate) fn doubt(words: &[String]) -> Option<String> {
    let program = words.first()?;
    let is_path = program.contains('/');
    let places: Vec<_> = match is_path {
        true => vec![PathBuf::from(program)],
        false => std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(program)).collect(),
    };
    let runs = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let why = match (places.iter().any(runs), is_path) {
        (true, _) => return None,
        (false, false) => "no program of this name is in PATH",
        (false, true) if places.iter().any(|path| path.exists()) => "it is no program that this user may run",
        (false, true) => "it is not there",
    };
    Some(format!("notify.command: {program}: {why}: nobody is told of a fault"))
}

/// Runs the command and waits for its end. How that was is in the log. Dropped, it ends the command.
pub(super) async fn run(words: &[String], event: &Event, message: &str, refused: u64) {
    let Some((program, arguments)) = words.split_first() else { return };
    let name = match event.tells {
        Tells::Lasts => "begin",
        Tells::Ends => "end",
        Tells::Reminds => return,
    };
    let about = format!("{name} of {} {}", event.fault.what.name(), event.fault.subject);
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect();
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
        .env("ACR_CACHE_PROXY_EVENT", name)
        .env("ACR_CACHE_PROXY_FAULT", event.fault.what.name())
        .env("ACR_CACHE_PROXY_SUBJECT", &event.fault.subject)
        .env("ACR_CACHE_PROXY_MESSAGE", message)
        .env("ACR_CACHE_PROXY_SECONDS", event.lasted.as_secs().to_string())
        .env("ACR_CACHE_PROXY_REFUSED", refused.to_string());
    let mut printed = Printed::first(MAX_OUTPUT);
    let ended = timeout(LIMIT, program::run(&mut command, &mut printed)).await;
    let Printed { stdout: mut printed, stderr, .. } = printed;
    printed.extend(stderr);
    printed.truncate(MAX_OUTPUT);
    let printed = String::from_utf8_lossy(&printed);
    let printed = if printed.trim().is_empty() { String::new() } else { format!(": {}", printed.trim()) };
    match ended {
        Ok(Ok(status)) if status.success() => info!("notify.command: {about}: told{printed}"),
        Ok(Ok(status)) => warn!("notify.command: {about}: {program}: {status}{printed}"),
        Ok(Err(cause)) => warn!("notify.command: {about}: {program}: {cause}"),
        Err(_) => {
            warn!(
                "notify.command: {about}: {program}: ended, because it took more than {} s{printed}",
                LIMIT.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_be_run_is_found_before_a_fault() {
        for (command, why) in [
            (&[][..], None),
            (&["/bin/sh", "-c", "true"], None),
            (&["sh"], None),
            (&["/nonexistent/x"], Some("it is not there")),
            (&["/etc/passwd"], Some("it is no program that this user may run")),
            (&["/etc"], Some("it is no program that this user may run")),
            (&["no-such-program"], Some("no program of this name is in PATH")),
        ] {
            let words: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
            let says = why.map(|why| format!("notify.command: {}: {why}: nobody is told of a fault", command[0]));
            assert_eq!(doubt(&words), says);
        }
    }
}
