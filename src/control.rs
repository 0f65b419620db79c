//! The control socket: by it `acr-cache-proxy reload` asks a running proxy to read its settings again, and hears what came of
//! it. A signal could ask, too, but brings no answer. By another request it tells which variables it was started with, no value of them.
//!
//! It is an abstract Unix socket (unix(7)) with the process's id in its name: it needs no directory, leaves no file behind, and
//! is closed when the process begins to end: one that drains takes no settings any more, and whoever looks for the proxy finds
//! the one in its place. Only root and the proxy's own user get an answer. The request is one line. The answer begins with a line
//! that says whether it was done; the rest is for people.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{error, info, warn};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect as connect_to, getsockopt, shutdown, socket,
    sockopt::PeerCredentials,
};
use nix::unistd::geteuid;

use crate::logger;
use crate::service_variables::{self, Values};

mod found;
mod owner;
mod variables;

use owner::{Owner, Unasked, WithoutSocket};

/// What the name of each process's socket begins with.
const PREFIX: &str = "acr-cache-proxy/control/";
/// Read the settings again. The other request asks for the variables of its start.
const REQUEST: &[u8] = b"reload\n";
/// A longer one is another one.
const MAX_REQUEST: usize = 16;
/// The first line of an answer.
const DONE: &str = "done\n";
const REFUSED: &str = "refused\n";
/// A request comes at once, and an answer is taken at once. [`NO_ANSWER`] names it.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Settings are read within this: each of a few files has 5 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// An answer comes within milliseconds. Whoever waits longer is told so.
const SILENCE: Duration = Duration::from_secs(3);
/// Whoever is named by its id, and is no proxy as far as can be told, has less time to answer. Settings are read in
/// milliseconds, unless a file of them hangs.
const STRANGER_LIMIT: Duration = Duration::from_secs(5);
/// Another process may have the name of this one's socket. It is tried again this often, and at SIGHUP.
const RETRY: Duration = Duration::from_secs(60);
/// Without a free file descriptor nobody is accepted, and who waits for it stays in the queue: to try again at once would only take time
/// from the requests that could free one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The file of variables of the service.
const SERVICE_VARIABLES: &str = "/etc/acr-cache-proxy/environment";
/// Why what a process sends is no answer.
const NOT_ITS: &str = "its answer is not one of acr-cache-proxy's";
/// Why there is no answer at all.
const MAY_NOT_ASK: &str = "it gives no answer: only root and the user that it runs as may ask";
const NO_ANSWER: &str = "it has closed the connection without an answer, because it is ending, or because the request took more than 2 s \
to arrive: ask again";
/// Read at once.
const PART: usize = 4 << 10;
/// All mistakes of a file fit in.
const MAX_ANSWER: usize = 1 << 20;

/// What came of a request, in sentences.
pub(crate) type Outcome = Result<String, String>;

fn name(pid: u32) -> String {
    format!("{PREFIX}{pid}")
}

fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name(pid))
}

/// The socket of this process, until it is closed.
#[derive(Clone)]
pub(crate) struct Control(Arc<Socket>);

struct Socket {
    stage: Mutex<Stage>,
    /// It is tried again, or closed.
    wake: Condvar,
}

enum Stage {
    /// Another process has the name.
    Taken,
    Open(UnixListener),
    Closed,
}

impl Control {
    /// Nobody finds this process from now on. An answer that is being given is given.
    pub(crate) fn close(&self) {
        let before = std::mem::replace(&mut *self.0.stage(), Stage::Closed);
        self.0.wake.notify_all();
        if let Stage::Open(listener) = before {
            // Wakes the thread that waits for requests, which closes its own copy. An error means that there is none.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
    }

    /// If another process had the name, tries again whether it is free.
    pub(crate) fn retry(&self) {
        self.0.wake.notify_all();
    }
}

impl Socket {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it, and returns the copy to wait at.
    fn open(&self, stage: &mut Stage) -> io::Result<UnixListener> {
        let listener = UnixListener::bind_addr(&address(std::process::id())?)?;
        let copy = listener.try_clone()?;
        *stage = Stage::Open(listener);
        Ok(copy)
    }

    /// Waits until the name is free, and opens it; `None` when it is closed before.
    fn wait(&self) -> Option<UnixListener> {
        let mut stage = self.stage();
        while !matches!(*stage, Stage::Closed) {
            if let Ok(copy) = self.open(&mut stage) {
                return Some(copy);
            }
            // Woken too early, it only tries once more.
            stage = self.wake.wait_timeout(stage, RETRY).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }
}

/// Opens the socket of this process, and has `handle` answer in a thread of its own. Without it the proxy serves all the same,
/// so an error is only told, and it is tried again.
pub(crate) fn listen(handle: impl Fn() -> Outcome + Send + 'static) -> Control {
    let socket = Arc::new(Socket { stage: Mutex::new(Stage::Taken), wake: Condvar::new() });
    let opened = socket.open(&mut socket.stage());
    let control = Control(Arc::clone(&socket));
    std::thread::spawn(move || {
        let listener = opened.or_else(|cause| {
            warn!(
                "control socket: {}: `acr-cache-proxy reload` does not reach this process; SIGHUP to this process, the main one, has it \
                 read its settings all the same; the name is tried again every {} s, and at SIGHUP",
                not_opened(&cause),
                RETRY.as_secs()
            );
            socket.wait().inspect(|_| info!("control socket: its name is free again: `acr-cache-proxy reload` reaches this process")).ok_or(cause)
        });
        let Ok(listener) = listener else { return };
        accept(listener.incoming(), handle, || std::thread::sleep(ACCEPT_PAUSE));
    });
    control
}

/// Answers one after another, until the socket is shut down.
fn accept(
    incoming: impl Iterator<Item = io::Result<UnixStream>>,
    handle: impl Fn() -> Outcome,
    mut pause: impl FnMut(),
) {
    for stream in incoming {
        match stream {
            // Whoever it was has left, or may not ask.
            Ok(stream) => drop(answer(stream, &handle)),
            // unix(7) does not say it: accept(2) fails so once the socket is shut down.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => return,
            Err(cause) => {
                error!("control socket: accept: {cause}");
                pause();
            }
        }
    }
}

/// Why the socket of this process is not open, with whoever has its name.
fn not_opened(cause: &io::Error) -> String {
    let is_taken = cause.kind() == io::ErrorKind::AddrInUse;
    match is_taken.then(|| owner::holder(std::process::id(), SILENCE)).flatten() {
        Some(holder) => format!("{holder} has its name"),
        None => cause.to_string(),
    }
}

fn answer(mut stream: UnixStream, handle: impl Fn() -> Outcome) -> io::Result<()> {
    if !may_ask(getsockopt(&stream, PeerCredentials)?.uid(), geteuid().as_raw()) {
        return Ok(());
    }
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    let mut line = Vec::with_capacity(MAX_REQUEST);
    while line.len() < MAX_REQUEST && !line.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let outcome = match line.as_slice() {
        REQUEST => handle(),
        variables::REQUEST => variables::told(service_variables::names(), |name| std::env::var_os(name)),
        _ => Err("unknown request".to_owned()),
    };
    let (first, rest) = match outcome {
        Ok(sentences) => (DONE, sentences),
        Err(sentences) => (REFUSED, sentences),
    };
    stream.write_all([first, &rest].concat().as_bytes())
}

/// Whether a user gets an answer of a proxy that this user runs.
fn may_ask(user: u32, of_proxy: u32) -> bool {
    user == 0 || user == of_proxy
}

/// Has the proxy with this process id read its settings again; without one, the only proxy that runs here.
pub(crate) fn reload(pid: Option<u32>) -> Outcome {
    let pid = match pid {
        Some(pid) => pid,
        None => found::only_one()?,
    };
    let (stream, owner) = Owner::of(pid, STRANGER_LIMIT).map_err(|why| match why {
        Unasked::Nobody => match WithoutSocket::of(pid) {
            Some(proxy) => proxy.to_string(),
            None => format!("no proxy with the process id {pid} runs here, or it is ending, or has no control socket"),
        },
        why => format!("process {pid}: {why}"),
    })?;
    if owner.is_another_program() && !owner.is_service {
        return Err(format!("process {owner} is not {}, and is not asked", owner::NAME));
    }
    let limit = if owner.counts(geteuid().as_raw()) { ANSWER_LIMIT } else { STRANGER_LIMIT };
    let (answered, silence) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if silence.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
            let limit = limit.as_secs();
            logger::complain(&format!("process {pid} has not answered yet, and is waited for up to {limit} s"));
        }
    });
    let outcome = exchange(stream, REQUEST, Instant::now() + limit, may_ask(geteuid().as_raw(), owner.uid));
    drop(answered);
    let said = outcome.map_err(|cause| match cause.kind() {
        io::ErrorKind::WouldBlock => format!("process {pid} does not answer within {} s", limit.as_secs()),
        _ => format!("process {pid}: {cause}"),
    })??;
    let values = |is_service| match service_variables::of_reload(pid) {
        Some(values) => values,
        None if is_service => service_variables::of_next_start(SERVICE_VARIABLES.as_ref()),
        None => Vec::new(),
    };
    Ok(match others(pid, values).as_slice() {
        [] => said,
        names => {
            let older = service_variables::older(names);
            format!("{}; {older}, and keeps it until it is started again: systemctl restart {}", said, owner::NAME)
        }
    })
}

/// The names of the variables with another value of which the process was started than this file of the service gives by now; none where it
/// does not tell.
pub(crate) fn older_variables(pid: u32, file: &Path) -> Vec<&'static str> {
    others(pid, |is_service| match is_service {
        true => service_variables::of_next_start(file),
        false => service_variables::of_file(file),
    })
}

/// The names of the variables of a process that are others than these. `values` is told whether it is the process of the host's service.
fn others(pid: u32, values: impl FnOnce(bool) -> Values<'static>) -> Vec<&'static str> {
    let asked = Owner::of(pid, SILENCE).ok().filter(|(_, owner)| !owner.is_another_program());
    let told = asked.and_then(|(stream, owner)| {
        let is_answered = may_ask(geteuid().as_raw(), owner.uid);
        let told = exchange(stream, variables::REQUEST, Instant::now() + SILENCE, is_answered).ok()?.ok()?;
        variables::others(&told, &values(owner.is_service))
    });
    told.unwrap_or_default()
}

/// Connects to the socket of this name. Whoever has it may take no connection, so that is not waited for without a limit; not at
/// all where there is none.
fn connect(pid: u32, limit: Option<Duration>) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    match limit {
        Some(limit) => stream.set_write_timeout(Some(limit))?,
        None => stream.set_nonblocking(true)?,
    }
    connect_to(stream.as_raw_fd(), &UnixAddr::new_abstract(name(pid).as_bytes())?)?;
    Ok(stream)
}

/// The answer, if it is whole by then. `is_answered` says whether the caller is one of those who get any.
fn exchange(mut stream: UnixStream, request: &[u8], until: Instant, is_answered: bool) -> io::Result<Outcome> {
    let mut answer = Vec::new();
    let asked = stream.write_all(request);
    match asked.and_then(|()| read_whole(stream, &mut answer, until)) {
        // It closes the connection of whoever may not ask, before or after the request has arrived.
        Err(cause) if !matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Err(cause);
        }
        Ok(()) | Err(_) => {}
    }
    if answer.is_empty() {
        return Err(io::Error::other(if is_answered { NO_ANSWER } else { MAY_NOT_ASK }));
    }
    let answer = String::from_utf8(answer).map_err(|_| io::Error::other(NOT_ITS))?;
    match (answer.strip_prefix(DONE), answer.strip_prefix(REFUSED)) {
        (Some(sentences), _) => Ok(Ok(sentences.to_owned())),
        (_, Some(sentences)) => Ok(Err(sentences.to_owned())),
        _ => Err(io::Error::other(NOT_ITS)),
    }
}

/// Reads to the end. A limit of each read alone would be none: a byte now and then would begin it anew.
fn read_whole(mut stream: UnixStream, answer: &mut Vec<u8>, until: Instant) -> io::Result<()> {
    let mut part = [0; PART];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::other(NOT_ITS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that opens the socket of this process.
    #[test]
    fn a_request_gets_its_answer_and_nothing_else_is_done() {
        let control = listen(|| Err("line 1\nline 2".to_owned()));
        let this = std::process::id();
        assert_eq!(reload(Some(this)), Err("line 1\nline 2".to_owned()));
        let mut other = UnixStream::connect_addr(&address(this).expect("a name")).expect("it listens");
        other.write_all(b"remove\n").expect("sent");
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "refused\nunknown request");
        // The one before does not hold up the next.
        let _silent = UnixStream::connect_addr(&address(this).expect("a name")).expect("it listens");
        assert_eq!(reload(Some(this)), Err("line 1\nline 2".to_owned()));
        // Whoever names another process is none: a user's socket kept root from a reload without --pid.
        let _other = UnixListener::bind_addr(&address(99_999_999).expect("a name")).expect("bound");
        let sockets = || owner::sockets().expect("readable");
        let found = found::running(&sockets());
        assert!(found.contains(&this) && !found.contains(&99_999_999), "{found:?}");
        // The table of sockets was read anew for each process that was found: half a second for 3,000 of them.
        for (inode, is_its) in
            [(sockets().into_iter().find(|(pid, _)| *pid == this).expect("its own").1, true), (1, false)]
        {
            let owner = Owner::among(&[(this, inode)], this, None);
            assert_eq!(owner.is_ok(), is_its, "what was read goes: {owner:?}");
        }
        control.close();
        assert!(reload(Some(this)).is_err_and(|sentence| sentence.starts_with("no proxy with the process id")));
        // Its thread has been woken, and closes its copy.
        while found::running(&sockets()).contains(&this) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_without_a_socket_and_one_whose_name_another_has_are_told_with_the_holder() {
        // Above what a process id can be.
        let nobody = reload(Some(1 << 30)).expect_err("no such process");
        assert!(nobody.starts_with("no proxy with the process id"), "{nobody}");
        let _other = UnixListener::bind_addr(&address(1 << 29).expect("a name")).expect("bound");
        let other = reload(Some(1 << 29)).expect_err("this process's");
        let holder = format!("its control socket is another process's: {} (", std::process::id());
        assert!(other.contains(&holder) && other.contains(&format!(", user {})", geteuid())), "{other}");
        assert!(other.ends_with("if process 536870912 is your proxy, SIGHUP has it read its settings: `systemctl kill -s HUP --kill-whom=main acr-cache-proxy`"), "{other}");
    }

    /// Without a free file descriptor it took the time of a processor.
    #[test]
    fn where_nobody_can_be_accepted_it_was_tried_again_without_a_pause() {
        let full = || Err(io::Error::from(nix::errno::Errno::EMFILE));
        let (stream, mut other) = UnixStream::pair().expect("a pair");
        other.write_all(REQUEST).expect("sent");
        let shut = Err(io::ErrorKind::InvalidInput.into());
        let mut pauses = 0;
        accept([full(), full(), Ok(stream), full(), shut, full()].into_iter(), || Ok(String::new()), || pauses += 1);
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("an answer");
        assert_eq!((pauses, answer.as_str()), (3, DONE));
    }

    #[test]
    fn whoever_may_not_ask_is_told_so_however_soon_the_connection_is_closed() {
        let refused = |stream, is_answered, expected| {
            let cause = exchange(stream, REQUEST, Instant::now() + SILENCE, is_answered).expect_err("no answer");
            assert_eq!(cause.to_string(), expected);
        };
        // Root was told so, too.
        for (is_answered, expected) in [(false, MAY_NOT_ASK), (true, NO_ANSWER)] {
            let (stream, other) = UnixStream::pair().expect("a pair");
            drop(other);
            refused(stream, is_answered, expected);
        }
        let (stream, mut other) = UnixStream::pair().expect("a pair");
        let closing = std::thread::spawn(move || {
            // One byte of the request is read, so what is left of it resets the connection.
            other.read_exact(&mut [0]).expect("a request");
        });
        refused(stream, false, MAY_NOT_ASK);
        closing.join().expect("closed");
    }

    #[test]
    fn a_byte_now_and_then_held_a_reload_for_ever_and_what_is_no_answer_was_said_to_be_a_matter_of_rights() {
        let (stream, mut other) = UnixStream::pair().expect("a pair");
        let drip = std::thread::spawn(move || {
            while other.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let (begun, limit) = (Instant::now(), Duration::from_millis(500));
        let late = exchange(stream, REQUEST, begun + limit, true).expect_err("no end");
        assert_eq!(late.kind(), io::ErrorKind::WouldBlock);
        assert!(begun.elapsed() >= limit && begun.elapsed() < SILENCE, "{:?}", begun.elapsed());
        drip.join().expect("it ends");
        for other in [&b"hello\n"[..], b"done", b"done\n\xff", &[b'x'; MAX_ANSWER + 1]] {
            let (stream, mut liar) = UnixStream::pair().expect("a pair");
            let other = other.to_vec();
            let lies = std::thread::spawn(move || {
                liar.read_exact(&mut [0; 7]).expect("a request");
                // Whoever has read enough may be gone.
                let _ = liar.write_all(&other);
            });
            let cause = exchange(stream, REQUEST, Instant::now() + ANSWER_LIMIT, true).expect_err("no answer");
            assert_eq!(cause.to_string(), NOT_ITS);
            lies.join().expect("it ends");
        }
    }
}
