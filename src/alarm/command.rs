//! `notify.command`: a program that is told of a fault that lasts, and of its end.

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use log::{info, warn};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Event, Tells};
use crate::process_group::ProcessGroup;

/// A message is on its way within this; a program that hangs is ended, with all that it has started.
const LIMIT: Duration = Duration::from_secs(30);
/// What it has printed is in its pipes when it ends; a process that it leaves behind may hold them open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
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
        .env("ACR_CACHE_PROXY_REFUSED", refused.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(cause) => return warn!("notify.command: {about}: {program}: {cause}"),
    };
    let mut group = ProcessGroup::of(&child);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = timeout(LIMIT, async {
        let mut reading = pin!(async { tokio::join!(read(out, &mut stdout), read(err, &mut stderr)) });
        tokio::select! {
            status = child.wait() => {
                let _ = timeout(LAST_WORDS, reading).await;
                status
            }
            _ = &mut reading => child.wait().await,
        }
    });
    let ended = ended.await;
    if ended.is_ok() {
        group.has_ended();
    }
    drop(group);
    stdout.extend(stderr);
    stdout.truncate(MAX_OUTPUT);
    let printed = String::from_utf8_lossy(&stdout);
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

/// Reads to the end, and keeps the begin.
async fn read(pipe: Option<impl AsyncRead + Unpin>, text: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = pipe.read(&mut part).await {
        let room = MAX_OUTPUT.saturating_sub(text.len()).min(length);
        text.extend_from_slice(part.get(..room).unwrap_or_default());
    }
}
