//! Writes log lines to standard error from a thread of its own, many at once.
//!
//! A system call for each line would cost a request a twentieth of its time, and a standard error that blocks (a pipe
//! that nobody reads, a journal that hangs) would block every pull. Here a request only appends to a buffer.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A line waits this long for others, to be written with them. A person who follows the log does not notice it.
const BATCH_DELAY: Duration = Duration::from_millis(20);
/// About ten thousand lines. When standard error blocks and this much waits, further lines are dropped and counted; pulls go on.
const MAX_PENDING: usize = 2 << 20;
/// How long the end of the process waits for the last lines to be written.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were dropped since the start of the process, which has one log.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines were dropped because standard error was not read.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A handle to the buffer of pending lines. The logger has one and appends; the writing thread has the other.
#[derive(Clone, Default)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Wakes the thread: the first line of a batch is there, or `drain` is called.
    wake: Condvar,
    /// A batch has been written.
    written: Condvar,
}

#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    dropped: u64,
    writing: bool,
    draining: bool,
}

impl Writer {
    /// Starts the thread that writes to `out`, and of its own what `notice` makes of a sentence about dropped lines. `Err` if
    /// the system gives no thread.
    pub(crate) fn start(out: impl Write + Send + 'static, notice: fn(&str) -> String) -> io::Result<Self> {
        let writer = Self::default();
        let handle = writer.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || handle.run(out, notice))?;
        Ok(writer)
    }

    /// Returns when every line logged so far is written, or after [`DRAIN_TIMEOUT`].
    pub(crate) fn drain(&self) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        let mut pending = self.pending();
        pending.draining = true;
        self.shared.wake.notify_one();
        while pending.writing || !pending.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            pending = wait(&self.shared.written, pending, left);
        }
        pending.draining = false;
    }

    /// Runs for ever: waits for a line, waits [`BATCH_DELAY`] for more, writes them all.
    fn run(&self, mut out: impl Write, notice: fn(&str) -> String) {
        let mut batch = Vec::new();
        loop {
            let mut pending = self.pending();
            while pending.lines.is_empty() {
                pending = self.shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let due = Instant::now() + BATCH_DELAY;
            while !pending.draining {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                pending = wait(&self.shared.wake, pending, left);
            }
            std::mem::swap(&mut batch, &mut pending.lines);
            let dropped = std::mem::take(&mut pending.dropped);
            pending.writing = true;
            drop(pending);
            // If standard error is closed, there is nobody left to tell.
            let _ = out.write_all(&batch);
            if dropped > 0 {
                let sentence = format!("{dropped} log lines were dropped: standard error was not read");
                let _ = out.write_all(notice(&sentence).as_bytes());
            }
            batch.clear();
            self.pending().writing = false;
            self.shared.written.notify_all();
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it holds the lock.
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(condition: &Condvar, pending: MutexGuard<'a, Pending>, limit: Duration) -> MutexGuard<'a, Pending> {
    condition.wait_timeout(pending, limit).unwrap_or_else(PoisonError::into_inner).0
}

/// `env_logger` writes a line with one call, so a line is buffered or dropped as a whole.
impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut pending = self.pending();
        if pending.lines.len() + line.len() > MAX_PENDING {
            pending.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let first = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
        drop(pending);
        if first {
            self.shared.wake.notify_one();
        }
        Ok(line.len())
    }

    /// Does nothing: `env_logger` calls it after each line, and waiting here would block the request.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// An output that accepts one batch for each permit.
    struct Gated {
        permits: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, batch: &[u8]) -> io::Result<usize> {
            self.permits.recv().map_err(io::Error::other)?;
            self.taken.send(batch.to_vec()).map_err(io::Error::other)?;
            Ok(batch.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Writer, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let (permit, permits) = mpsc::channel();
        let (taken, batches) = mpsc::channel();
        (Writer::start(Gated { permits, taken }, str::to_owned).expect("a thread"), permit, batches)
    }

    #[test]
    fn drain_returns_after_every_line_is_written_in_order() {
        let (mut writer, permit, batches) = gated();
        for _ in 0..100 {
            permit.send(()).expect("it listens");
        }
        for number in 0..1000 {
            writeln!(writer, "{number}").expect("it takes everything");
        }
        writer.drain();
        let text: Vec<u8> = batches.try_iter().flatten().collect();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&text), expected);
    }

    #[test]
    fn a_blocked_standard_error_blocks_no_logging_and_dropped_lines_are_counted() {
        let (mut writer, permit, batches) = gated();
        let line = vec![b'x'; 64 << 10];
        // One batch may be with the thread already; the rest is more than the buffer holds.
        for _ in 0..3 * (MAX_PENDING / line.len()) {
            writer.write_all(&line).expect("it takes everything");
        }
        for _ in 0..100 {
            permit.send(()).expect("it listens");
        }
        writer.drain();
        let text: Vec<u8> = batches.try_iter().flatten().collect();
        assert!(text.len() <= 2 * MAX_PENDING + 100, "{}", text.len());
        assert!(String::from_utf8_lossy(&text).contains(" log lines were dropped"));
    }
}
