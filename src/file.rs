//! Files that somebody else writes, as of a sign-in or of TLS trust: read within limits of time and size, and only regular ones.
//!
//! `open` and `read` on a mount whose server is gone do not return, and nothing can interrupt them. So a file is read on a
//! thread of its own: the caller gives up in time, and the thread stays behind.

use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::AccessFlags;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// A local file is read in microseconds, one on a healthy network mount in milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// Why a file cannot be read. Displays as a sentence about the file, whose name goes before it.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The system says so.
    Io(io::Error),
    /// It is something else than a regular file.
    NotRegular(&'static str),
    /// It has more bytes than this.
    TooLarge(u64),
    /// It is not read within [`LIMIT`].
    Hangs,
    /// There is no thread to read it with.
    Thread(io::Error),
    /// That thread has ended without an answer.
    Crashed,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => cause.fmt(f),
            Self::NotRegular(kind) => write!(f, "it is {kind}: name a regular file"),
            Self::TooLarge(max) => write!(f, "it has more than the {max} bytes that such a file may have"),
            Self::Hangs => write!(f, "not read within {} s: its file system does not answer", LIMIT.as_secs()),
            Self::Thread(cause) => write!(f, "no thread to read it with: {cause}"),
            Self::Crashed => f.write_str("reading it failed"),
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(cause) | Self::Thread(cause) => Some(cause),
            Self::NotRegular(_) | Self::TooLarge(_) | Self::Hangs | Self::Crashed => None,
        }
    }
}

/// The content of a regular file, `max` bytes at most; symbolic links are followed, as Kubernetes and systemd make them.
/// This blocks: call it from [`Reader::run`] or [`at_start`].
pub(crate) fn read(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (file, length) = open(path)?;
    read_open(file, length, max)
}

/// A regular file and its length.
fn open(path: &Path) -> Result<(File, u64), FileError> {
    // Before it is opened, which does something to a device: a watchdog's timer starts. A socket cannot be opened.
    if let Some(kind) = irregular(&std::fs::metadata(path).map_err(FileError::Io)?) {
        return Err(FileError::NotRegular(kind));
    }
    // Something else may have come since. Without O_NONBLOCK the open of a FIFO waits for a writer; it means nothing to a regular file.
    let open = OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path);
    let file = open.map_err(FileError::Io)?;
    let metadata = file.metadata().map_err(FileError::Io)?;
    match irregular(&metadata) {
        Some(kind) => Err(FileError::NotRegular(kind)),
        None => Ok((file, metadata.len())),
    }
}

/// Reads the begin of a regular file, which is at least as long. This blocks: call it from [`at_start`].
pub(crate) fn begin(path: &Path, begin: &mut [u8]) -> Result<(), FileError> {
    open(path)?.0.read_exact(begin).map_err(FileError::Io)
}

/// Whether this process can read a regular file there. The file is looked at and not opened; on a mount whose server is gone that ends
/// within [`LIMIT`].
pub(crate) fn access(path: &Path) -> Result<(), FileError> {
    let path = path.to_owned();
    at_start(move || {
        if let Some(kind) = irregular(&std::fs::metadata(&path).map_err(FileError::Io)?) {
            return Err(FileError::NotRegular(kind));
        }
        nix::unistd::access(&path, AccessFlags::R_OK).map_err(|cause| FileError::Io(cause.into()))
    })
    .flatten()
}

fn read_open(file: File, size: u64, max: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    if size > max {
        return Err(FileError::TooLarge(max));
    }
    // Room for all of it at once: a buffer that grows leaves copies of a secret behind. Files of /proc have no size.
    let room = if size == 0 { max } else { size };
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default() + 1));
    file.take(max + 1).read_to_end(&mut content).map_err(FileError::Io)?;
    if content.len() as u64 > max {
        return Err(FileError::TooLarge(max));
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

/// Runs file accesses off the runtime, one at a time: while one hangs, the next waits for it and is given up as well.
/// However often a sign-in is repeated, a reader leaves one thread behind at most.
#[derive(Debug)]
pub(crate) struct Reader {
    one: Arc<Semaphore>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { one: Arc::new(Semaphore::new(1)) }
    }
}

impl Reader {
    /// What `work` gives, or an error if that takes longer than 5 s. Dropping the future does not stop `work`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, FileError> {
        let answer = async {
            let permit = Arc::clone(&self.one).acquire_owned().await.map_err(|_| FileError::Crashed)?;
            let (sender, receiver) = oneshot::channel();
            spawn(move || {
                // The caller may have given up.
                let _ = sender.send(work());
                drop(permit);
            })?;
            receiver.await.map_err(|_| FileError::Crashed)
        };
        timeout(LIMIT, answer).await.unwrap_or(Err(FileError::Hangs))
    }
}

/// The same before there is a runtime: blocks for 5 s at most.
pub(crate) fn at_start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FileError> {
    let (sender, receiver) = mpsc::channel();
    spawn(move || {
        // The caller may have given up.
        let _ = sender.send(work());
    })?;
    receiver.recv_timeout(LIMIT).map_err(|cause| match cause {
        mpsc::RecvTimeoutError::Timeout => FileError::Hangs,
        mpsc::RecvTimeoutError::Disconnected => FileError::Crashed,
    })
}

/// On a thread of its own and not in the runtime's pool: the end of the process waits for the pool, and DNS needs it.
fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), FileError> {
    thread::Builder::new().name("file".to_owned()).spawn(work).map(drop).map_err(FileError::Thread)
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
            let content = content.as_ref().map(|content| content.as_slice()).map_err(ToString::to_string);
            assert_eq!(content, expected.map(str::as_bytes).map_err(str::to_owned), "{name}");
        }
        assert!(matches!(read(Path::new("/dev/null"), 6), Err(FileError::NotRegular("a device"))));
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
                "stale"
            }
        };
        assert!(matches!(reader.run(hang).await, Err(FileError::Hangs)));
        for _ in 0..3 {
            let begun = Arc::clone(&begun);
            let try_again = move || {
                begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                "never"
            };
            assert!(matches!(reader.run(try_again).await, Err(FileError::Hangs)));
        }
        // Another reader is not held up, and this one works again as soon as the file does.
        tokio::time::resume();
        assert_eq!(Reader::default().run(|| "other").await.expect("in time"), "other");
        drop(hold);
        assert_eq!(reader.run(|| "fresh").await.expect("in time"), "fresh");
        assert_eq!(begun.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
