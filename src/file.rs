//! Files that belong to a sign-in or to TLS trust: read within limits of time and size, and only regular ones.
//!
//! `open` and `read` on a mount whose server is gone do not return, and nothing can interrupt them. So a file is read
//! on a thread of its own: who waits for it gives up in time, and the thread stays behind.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A local file is read in microseconds, one on a healthy network mount in milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// The content of a regular file, `max` bytes at most; symbolic links are followed, as Kubernetes and systemd make them.
/// This blocks: call it from [`Reader::run`] or [`at_start`].
pub fn read(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    // Without O_NONBLOCK the open of a FIFO waits for a writer. It means nothing to a regular file.
    let open = OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path);
    let file = match open {
        Ok(file) => file,
        Err(cause) => {
            // A socket cannot be opened, and its error says "No such device or address".
            let kind = std::fs::metadata(path).ok().and_then(|metadata| irregular(&metadata));
            return Err(kind.map_or_else(|| cause.to_string(), not_regular));
        }
    };
    let metadata = file.metadata().map_err(|cause| cause.to_string())?;
    if let Some(kind) = irregular(&metadata) {
        return Err(not_regular(kind));
    }
    read_open(file, metadata.len(), max)
}

fn read_open(file: File, size: u64, max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let too_large = || Err(format!("it has more than the {max} bytes that such a file may have"));
    if size > max {
        return too_large();
    }
    // Room for all of it at once: a buffer that grows leaves copies of a secret behind. Files of /proc have no size.
    let room = if size == 0 { max } else { size };
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default() + 1));
    file.take(max + 1).read_to_end(&mut content).map_err(|cause| cause.to_string())?;
    if content.len() as u64 > max {
        return too_large();
    }
    Ok(content)
}

/// What it is, if it is not a regular file.
fn irregular(metadata: &std::fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_fifo() => Some("a FIFO"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

fn not_regular(kind: &str) -> String {
    format!("it is {kind}: name a regular file")
}

/// What is said of a file that is not read in time.
pub fn hangs() -> String {
    format!("not read within {} s: its file system does not answer", LIMIT.as_secs())
}

/// Runs file accesses off the runtime, one at a time: while one hangs, the next waits for it and is given up as well.
/// So however often a sign-in is repeated, a reader leaves one thread behind at most.
#[derive(Debug)]
pub struct Reader {
    one: Arc<Semaphore>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { one: Arc::new(Semaphore::new(1)) }
    }
}

impl Reader {
    /// What `work` gives, or an error if that takes longer than 5 s. Dropping the future does not stop `work`.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let answer = async {
            let permit = Arc::clone(&self.one).acquire_owned().await.map_err(|cause| cause.to_string())?;
            let (sender, receiver) = oneshot::channel();
            spawn(move || {
                // Nobody may wait for it any more.
                let _ = sender.send(work());
                drop(permit);
            })?;
            receiver.await.map_err(|_| "reading it failed".to_owned())?
        };
        timeout(LIMIT, answer).await.unwrap_or_else(|_| Err(hangs()))
    }
}

/// The same before there is a runtime: blocks for 5 s at most.
pub fn at_start<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    spawn(move || {
        // Nobody may wait for it any more.
        let _ = sender.send(work());
    })?;
    match receiver.recv_timeout(LIMIT) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(hangs()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("reading it failed".to_owned()),
    }
}

/// A thread and not the runtime's pool: that one is waited for at the end of the process, and DNS needs it.
fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    thread::Builder::new()
        .name("file".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|cause| format!("no thread to read it with: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "secret").expect("written");
        std::fs::create_dir(path("directory")).expect("made");
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        let _socket = UnixListener::bind(path("socket")).expect("bound");
        for name in ["file", "directory", "fifo"] {
            std::os::unix::fs::symlink(path(name), path(&format!("link to {name}"))).expect("linked");
        }
        for (name, max, expected) in [
            ("file", 6, Ok("secret")),
            ("link to file", 6, Ok("secret")),
            ("file", 5, Err("it has more than the 5 bytes that such a file may have")),
            ("directory", 6, Err("it is a directory: name a regular file")),
            ("link to directory", 6, Err("it is a directory: name a regular file")),
            ("fifo", 6, Err("it is a FIFO: name a regular file")),
            ("link to fifo", 6, Err("it is a FIFO: name a regular file")),
            ("socket", 6, Err("it is a socket: name a regular file")),
            ("nothing", 6, Err("No such file or directory (os error 2)")),
        ] {
            let content = read(&path(name), max);
            let content = content.as_ref().map(|content| content.as_slice()).map_err(String::as_str);
            assert_eq!(content, expected.map(str::as_bytes), "{name}");
        }
        assert_eq!(read(Path::new("/dev/null"), 6), Err("it is a device: name a regular file".to_owned()));
        // Its size is said to be 0.
        assert!(read(Path::new("/proc/self/status"), 1 << 20).is_ok_and(|content| !content.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_file_holds_one_thread_however_often_it_is_tried() {
        let reader = Reader::default();
        let (hold, held) = mpsc::channel::<()>();
        let begun = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let hang = {
            let begun = Arc::clone(&begun);
            move || {
                begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = held.recv();
                Ok("stale")
            }
        };
        assert_eq!(reader.run(hang).await, Err(hangs()));
        for _ in 0..3 {
            let begun = Arc::clone(&begun);
            let try_again = move || {
                begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Ok("never")
            };
            assert_eq!(reader.run(try_again).await, Err(hangs()));
        }
        // Another reader is not held up, and this one works again as soon as the file does.
        tokio::time::resume();
        assert_eq!(Reader::default().run(|| Ok("other")).await, Ok("other"));
        drop(hold);
        assert_eq!(reader.run(|| Ok("fresh")).await, Ok("fresh"));
        assert_eq!(begun.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
