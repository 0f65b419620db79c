//! Whether the parts that serve do so: each is asked over a socket of its own, and answers from where it serves.
//!
//! A question goes through all that a connection goes through before its first byte is read: the kernel says that a socket is
//! readable, the runtime wakes the part, and the part has a task answer. What a registry, a client or the load does makes no
//! difference to it. A worker thread that hangs in one task, while the others go on, is found by what its runtime counts.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream as Socket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::warn;
use tokio::net::UnixStream;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::{Instant, timeout_at};

/// Where parts are made known. Without anybody who asks, parts are not asked and cost nothing.
#[derive(Clone, Default)]
pub(crate) struct Liveness(Option<Arc<Mutex<New>>>);

/// What has been made known since the last look.
#[derive(Default)]
struct New {
    parts: Vec<(String, Socket)>,
    runtimes: Vec<(String, RuntimeMetrics)>,
}

impl Liveness {
    /// Parts, and who asks them.
    pub(crate) fn new() -> (Self, Asker) {
        let new = Arc::new(Mutex::default());
        (Self(Some(Arc::clone(&new))), Asker { new, parts: Vec::new(), runtimes: Vec::new() })
    }

    /// A part that is asked until it is dropped, in the runtime where it answers.
    pub(crate) fn part(&self, name: &str) -> Heartbeat {
        let Some(new) = &self.0 else { return Heartbeat(None) };
        match pair() {
            Ok((ours, theirs)) => {
                locked(new).parts.push((name.to_owned(), theirs));
                Heartbeat(Some(ours))
            }
            Err(cause) => {
                warn!("{name}: the watchdog does not ask it: {cause}");
                Heartbeat(None)
            }
        }
    }

    /// The threads of the runtime that this is called in.
    pub(crate) fn threads(&self, name: &str) {
        if let Some(new) = &self.0 {
            locked(new).runtimes.push((name.to_owned(), Handle::current().metrics()));
        }
    }
}

fn pair() -> io::Result<(UnixStream, Socket)> {
    let (ours, theirs) = Socket::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// Nothing panics while it holds the lock.
fn locked(new: &Mutex<New>) -> std::sync::MutexGuard<'_, New> {
    new.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part's end.
pub(crate) struct Heartbeat(Option<UnixStream>);

impl Heartbeat {
    /// Waits for a question, for ever if nobody asks. Cancel safe.
    pub(crate) async fn asked(&self) {
        if let Some(socket) = &self.0 {
            // Anything else is that nobody asks any more.
            if let Ok(1) = read(socket).await {
                return;
            }
        }
        pending::<()>().await;
    }

    /// To be called for each question.
    pub(crate) fn answer(&self) {
        if let Some(socket) = &self.0 {
            // One byte has room: there is one question at a time.
            let _ = socket.try_write(&[0]);
        }
    }
}

/// Waits for a byte; 0 is the end. Cancel safe.
async fn read(socket: &UnixStream) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(&mut [0]) {
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Asks all parts.
pub(crate) struct Asker {
    new: Arc<Mutex<New>>,
    parts: Vec<Asked>,
    runtimes: Vec<Runtime>,
}

struct Asked {
    name: String,
    socket: UnixStream,
    /// Its answer is due.
    is_asked: bool,
}

struct Runtime {
    name: String,
    metrics: RuntimeMetrics,
    /// Of each worker at the last look.
    seen: Vec<Worker>,
}

/// What a runtime counts of a worker thread. Between one task and the next something of it changes, also under load.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Worker {
    /// Odd while it waits for work.
    parked: u64,
    busy: Duration,
}

impl Worker {
    fn is_parked(self) -> bool {
        self.parked % 2 == 1
    }
}

impl Asker {
    /// What does not live: parts that do not answer within `limit`, and threads that have come to no end of one task since the
    /// last call. One that was found is asked no second question before its answer is there.
    pub(crate) async fn ask(&mut self, limit: Duration) -> Vec<String> {
        let until = Instant::now() + limit;
        self.take_new();
        for part in self.parts.iter_mut().filter(|part| !part.is_asked) {
            // The kernel has room for it at once. A part that has ended is found below.
            let ask = async { part.socket.writable().await.and_then(|()| part.socket.try_write(&[0])) };
            part.is_asked = timeout_at(until, ask).await.is_ok_and(|sent| sent.is_ok());
        }
        let mut silent = Vec::new();
        for mut part in std::mem::take(&mut self.parts) {
            match timeout_at(until, read(&part.socket)).await {
                Ok(Ok(1)) => part.is_asked = false,
                // It has ended, as a listener that is closed.
                Ok(_) => continue,
                Err(_) => silent.push(format!("{} does not answer", part.name)),
            }
            self.parts.push(part);
        }
        silent.extend(self.runtimes.iter_mut().flat_map(Runtime::hanging));
        silent
    }

    fn take_new(&mut self) {
        let New { parts, runtimes } = std::mem::take(&mut *locked(&self.new));
        for (name, socket) in parts {
            match UnixStream::from_std(socket) {
                Ok(socket) => self.parts.push(Asked { name, socket, is_asked: false }),
                Err(cause) => warn!("{name}: the watchdog does not ask it: {cause}"),
            }
        }
        let new = runtimes.into_iter().map(|(name, metrics)| Runtime { name, metrics, seen: Vec::new() });
        self.runtimes.extend(new);
    }
}

impl Runtime {
    /// Its workers that have done nothing but one task since the last look.
    fn hanging(&mut self) -> Vec<String> {
        let worker = |number| Worker {
            parked: self.metrics.worker_park_unpark_count(number),
            busy: self.metrics.worker_total_busy_duration(number),
        };
        let now: Vec<_> = (0..self.metrics.num_workers()).map(worker).collect();
        let seen = std::mem::replace(&mut self.seen, now);
        let hangs = |(now, before): &(&Worker, &Worker)| now == before && !now.is_parked();
        let hanging = self.seen.iter().zip(&seen).enumerate().filter(|(_, pair)| hangs(pair));
        hanging.map(|(number, _)| format!("{}: thread {number} hangs", self.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    use super::*;

    /// Longer than any machine needs; only what does not answer takes it.
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    async fn answer_all(beat: Heartbeat) {
        loop {
            beat.asked().await;
            beat.answer();
        }
    }

    #[tokio::test]
    async fn a_part_that_answers_lives_and_one_that_has_ended_is_not_missed() {
        let (liveness, mut asker) = Liveness::new();
        let task = tokio::spawn(answer_all(liveness.part("the listener")));
        assert!(asker.ask(LONG).await.is_empty());
        assert!(asker.ask(LONG).await.is_empty());
        task.abort();
        assert!(task.await.is_err_and(|cause| cause.is_cancelled()));
        assert!(asker.ask(LONG).await.is_empty());
        assert!(asker.parts.is_empty());
    }

    #[tokio::test]
    async fn a_part_that_does_not_answer_is_named_until_it_does() {
        let (liveness, mut asker) = Liveness::new();
        let beat = liveness.part("the listener");
        for _ in 0..2 {
            assert_eq!(asker.ask(SHORT).await, ["the listener does not answer"]);
        }
        let task = tokio::spawn(answer_all(beat));
        assert!(asker.ask(LONG).await.is_empty());
        assert!(asker.ask(LONG).await.is_empty(), "one question, one answer");
        task.abort();
    }

    #[tokio::test]
    async fn where_nobody_asks_a_part_waits_for_ever() {
        let beat = Liveness::default().part("the listener");
        beat.answer();
        assert!(timeout_at(Instant::now() + SHORT, beat.asked()).await.is_err());
    }

    /// With several workers the others go on, and the part answers; with one it does not.
    #[tokio::test]
    async fn a_thread_that_hangs_is_found_and_one_that_works_or_waits_is_not() {
        let several = Builder::new_multi_thread().worker_threads(3).enable_all().build().expect("a runtime");
        let (liveness, mut asker) = Liveness::new();
        let known = liveness.clone();
        several.spawn(async move { known.threads("clients") }).await.expect("no panic");
        // Busy all the time, and never parked.
        let busy = several.spawn(async {
            loop {
                yield_now().await;
            }
        });
        let beat = several.spawn(async move { liveness.part("the listener") }).await.expect("no panic");
        several.spawn(answer_all(beat));
        asker.ask(LONG).await;
        for _ in 0..3 {
            tokio::time::sleep(SHORT).await;
            assert_eq!(asker.ask(LONG).await, [""; 0]);
        }

        let (release, hangs) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let hanging = several.spawn(async move {
            let _ = begun.send(());
            let _ = hangs.recv();
        });
        has_begun.await.expect("it runs");
        asker.ask(LONG).await;
        tokio::time::sleep(SHORT).await;
        let found = asker.ask(LONG).await;
        assert!(matches!(&*found, [one] if one.starts_with("clients: thread ")), "{found:?}");
        release.send(()).expect("it waits");
        hanging.await.expect("no panic");
        asker.ask(LONG).await;
        tokio::time::sleep(SHORT).await;
        assert_eq!(asker.ask(LONG).await, [""; 0]);
        busy.abort();
        several.shutdown_background();
    }
}
