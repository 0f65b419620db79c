//! `notify.command`: a program that is told of a fault that lasts, and of its end.

use std::time::Duration;

use log::{info, warn};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Event, Tells};
use crate::program::{self, Printed};

/// A message is on its way within this; a program that hangs is ended, with all that it has started.
const LIMIT: Duration = Duration::from_secs(30);
/// Of what it prints, the log has so much, and the rest is read and dropped.
const MAX_OUTPUT: usize = 1024;
/// An argument or a variable has 128 KiB at most; a sentence has some hundred bytes.
const MAX_MESSAGE: usize = 4096;
/// Variables of this process that it gets. The others may be secrets.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

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
