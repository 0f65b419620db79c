//! Log lines on their way to standard error: a thread of its own writes them, many at once.
//!
//! One system call for each line costs a request a twentieth of its time, and whoever holds standard error (a pipe
//! that nobody reads, a journal that hangs) would hold every pull. Here a request only appends to a buffer.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines wait this long for others to go with. A person who reads along does not notice it.
const PAUSE: Duration = Duration::from_millis(20);
/// Some ten thousand lines. If standard error takes none for so long, further ones are dropped and counted: pulls go on.
const MAX_PENDING: usize = 2 << 20;
/// How long the end of the process waits for the last lines to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is to be written. The handles of one buffer are the logger's, which appends, and the writing thread's.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// The first line came, or there is a hurry.
    bell: Condvar,
    /// A batch has been written.
    written: Condvar,
}

#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    dropped: u64,
    writing: bool,
    hurry: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`; a line of its own begins with `priority`. `Err` if the system gives no
    /// thread.
    pub fn to(out: impl Write + Send + 'static, priority: &'static str) -> io::Result<Self> {
        let lines = Self::default();
        let source = lines.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || source.carry(out, priority))?;
        Ok(lines)
    }

    /// Returns when everything that was logged before is written, or after [`LAST_WORDS`].
    pub fn drain(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        let mut pending = self.pending();
        pending.hurry = true;
        self.shared.bell.notify_one();
        while pending.writing || !pending.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            pending = wait(&self.shared.written, pending, left);
        }
        pending.hurry = false;
    }

    /// For ever: waits for a line, then for its company, then writes them.
    fn carry(&self, mut out: impl Write, priority: &str) {
        let mut batch = Vec::new();
        loop {
            let mut pending = self.pending();
            while pending.lines.is_empty() {
                pending = self.shared.bell.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let due = Instant::now() + PAUSE;
            while !pending.hurry {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                pending = wait(&self.shared.bell, pending, left);
            }
            std::mem::swap(&mut batch, &mut pending.lines);
            let dropped = std::mem::take(&mut pending.dropped);
            pending.writing = true;
            drop(pending);
            // There is nobody to tell that standard error is gone.
            let _ = out.write_all(&batch);
            if dropped > 0 {
                let _ = writeln!(out, "{priority}{dropped} log lines were dropped: standard error was not read");
            }
            batch.clear();
            self.pending().writing = false;
            self.shared.written.notify_all();
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics with the lock in its hands, and half a line would do no harm.
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(bell: &Condvar, pending: MutexGuard<'a, Pending>, limit: Duration) -> MutexGuard<'a, Pending> {
    bell.wait_timeout(pending, limit).unwrap_or_else(PoisonError::into_inner).0
}

/// A line is one call, as `env_logger` makes it: it is kept whole or dropped whole.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut pending = self.pending();
        if pending.lines.len() + line.len() > MAX_PENDING {
            pending.dropped += 1;
            return Ok(line.len());
        }
        let first = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
        drop(pending);
        if first {
            self.shared.bell.notify_one();
        }
        Ok(line.len())
    }

    /// After each line; to wait for it here is what this is to avoid.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes a batch each time it is told to.
    struct Taker {
        told: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Taker {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            self.told.recv().map_err(io::Error::other)?;
            self.taken.send(batch.to_vec()).map_err(io::Error::other)?;
            Ok(batch.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn taker() -> (Lines, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let (tell, told) = mpsc::channel();
        let (taken, batches) = mpsc::channel();
        (Lines::to(Taker { told, taken }, "<4>").expect("a thread"), tell, batches)
    }

    #[test]
    fn what_was_logged_is_written_whole_and_in_order_before_drain_returns() {
        let (mut lines, tell, batches) = taker();
        for _ in 0..100 {
            tell.send(()).expect("it listens");
        }
        for number in 0..1000 {
            writeln!(lines, "{number}").expect("it takes everything");
        }
        lines.drain();
        let text: Vec<u8> = batches.try_iter().flatten().collect();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&text), expected);
    }

    #[test]
    fn a_standard_error_that_is_not_read_holds_nobody_and_the_loss_is_told() {
        let (mut lines, tell, batches) = taker();
        let line = vec![b'x'; 64 << 10];
        // One batch may be with the thread already; the rest of this is beyond what is kept.
        for _ in 0..3 * (MAX_PENDING / line.len()) {
            lines.write_all(&line).expect("it takes everything");
        }
        for _ in 0..100 {
            tell.send(()).expect("it listens");
        }
        lines.drain();
        let text: Vec<u8> = batches.try_iter().flatten().collect();
        assert!(text.len() <= 2 * MAX_PENDING + 100, "{}", text.len());
        assert!(String::from_utf8_lossy(&text).contains(" log lines were dropped"));
    }
}
