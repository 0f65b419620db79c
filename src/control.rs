//! The control socket: by it `acr-cache-proxy reload` asks a running proxy to read its settings again, and hears what came of
//! it. A signal could ask, too, but brings no answer. A proxy that is replaced asks the new process by it whether that is ready.
//!
//! It is an abstract Unix socket (unix(7)) with the process's id in its name: it needs no directory, leaves no file behind, and
//! is closed when the process begins to end: one that drains takes no settings any more, and whoever looks for the proxy finds
//! the one in its place. Only root and the proxy's own user get an answer. The request is one line. The answer begins with a line
//! that says whether it was done; the rest is for people.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::warn;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect as connect_to, getsockopt, shutdown, socket,
    sockopt::PeerCredentials,
};
use nix::unistd::geteuid;

use crate::logger;

mod found;

/// What the name of each process's socket begins with.
const PREFIX: &str = "acr-cache-proxy/control/";
/// The longest request, with the end of its line.
const MAX_REQUEST: usize = 16;
/// The first line of an answer.
const DONE: &str = "done\n";
const REFUSED: &str = "refused\n";
/// A request comes at once, and an answer is taken at once.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Settings are read within this: each of a few files has 5 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// An answer comes within milliseconds. Whoever waits longer is told so.
const SILENCE: Duration = Duration::from_secs(3);
/// A process of a container has another id there.
const OF_ANOTHER: &str =
    "its control socket is another process's: a proxy in a container is asked from within it, or gets SIGHUP";
/// All mistakes of a file fit in.
const MAX_ANSWER: u64 = 1 << 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Read the settings again.
    Reload,
    /// Which registries have no token; a line for each.
    Unready,
    /// Serve clients from now on, of a process that takes another's place.
    Serve,
}

impl Request {
    const ALL: [(Self, &str); 3] = [(Self::Reload, "reload\n"), (Self::Unready, "unready\n"), (Self::Serve, "serve\n")];

    fn line(self) -> &'static str {
        Self::ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, line)| line)
    }
}

/// What came of a request, in sentences.
pub(crate) type Outcome = Result<String, String>;

fn name(pid: u32) -> String {
    format!("{PREFIX}{pid}")
}

fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name(pid))
}

/// The socket of this process, until it is closed.
pub(crate) struct Control(Mutex<Option<UnixListener>>);

impl Control {
    /// Nobody finds this process from now on. An answer that is being given is given.
    pub(crate) fn close(&self) {
        let listener = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Wakes the thread that waits for requests, which closes its own copy. An error means that there is none.
        let _ = listener.map(|listener| shutdown(listener.as_raw_fd(), Shutdown::Both));
    }
}

/// Opens the socket of this process, and has `handle` answer in a thread of its own. Without it the proxy serves all the same,
/// so an error is only told.
pub(crate) fn listen(handle: impl Fn(Request) -> Outcome + Send + 'static) -> Control {
    let listener = address(std::process::id()).and_then(|address| UnixListener::bind_addr(&address));
    let copies = listener.and_then(|listener| Ok((listener.try_clone()?, listener)));
    let (copy, listener) = match copies {
        Ok(copies) => copies,
        Err(cause) => {
            warn!("control socket: {cause}: `acr-cache-proxy reload` does not find this process, SIGHUP does the same");
            return Control(Mutex::new(None));
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // unix(7) does not say it: accept(2) fails so once the socket is shut down.
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => return,
                // Whoever it was has left, or may not ask.
                stream => drop(stream.and_then(|stream| answer(stream, &handle))),
            }
        }
    });
    Control(Mutex::new(Some(copy)))
}

fn answer(mut stream: UnixStream, handle: impl Fn(Request) -> Outcome) -> io::Result<()> {
    let uid = getsockopt(&stream, PeerCredentials)?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
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
    let outcome = match Request::ALL.into_iter().find(|(_, known)| known.as_bytes() == line) {
        Some((request, _)) => handle(request),
        None => Err("unknown request".to_owned()),
    };
    let (first, rest) = match outcome {
        Ok(sentences) => (DONE, sentences),
        Err(sentences) => (REFUSED, sentences),
    };
    stream.write_all([first, &rest].concat().as_bytes())
}

/// Has the proxy with this process id read its settings again; without one, the only proxy that runs here.
pub(crate) fn reload(pid: Option<u32>) -> Outcome {
    let pid = match pid {
        Some(pid) => pid,
        None => found::only_one()?,
    };
    let (answered, silence) = mpsc::channel::<()>();
    let limit = found::answer_limit(pid);
    std::thread::spawn(move || {
        if silence.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
            let limit = limit.as_secs();
            logger::complain(&format!("process {pid} has not answered yet, and is waited for up to {limit} s"));
        }
    });
    let outcome = ask_within(limit, pid, Request::Reload);
    drop(answered);
    outcome.map_err(|cause| match cause.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("no proxy with the process id {pid} runs here, or it is ending, or has no control socket")
        }
        io::ErrorKind::WouldBlock => format!("process {pid} does not answer within {} s", limit.as_secs()),
        _ => format!("process {pid}: {cause}"),
    })?
}

/// Asks the process with this id. An error means that there is no answer.
pub(crate) fn ask(pid: u32, request: Request) -> io::Result<Outcome> {
    ask_within(ANSWER_LIMIT, pid, request)
}

fn ask_within(limit: Duration, pid: u32, request: Request) -> io::Result<Outcome> {
    let stream = connect(pid, limit)?;
    // Any user can open a socket of that name.
    if u32::try_from(getsockopt(&stream, PeerCredentials)?.pid()) != Ok(pid) {
        return Err(io::Error::other(OF_ANOTHER));
    }
    stream.set_read_timeout(Some(limit))?;
    exchange(stream, request)
}

/// Connects to the socket of this name. Whoever has it may take no connection, so that is not waited for without a limit.
fn connect(pid: u32, limit: Duration) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(limit))?;
    connect_to(stream.as_raw_fd(), &UnixAddr::new_abstract(name(pid).as_bytes())?)?;
    Ok(stream)
}

fn exchange(mut stream: UnixStream, request: Request) -> io::Result<Outcome> {
    let mut answer = String::new();
    let asked = stream.write_all(request.line().as_bytes());
    match asked.and_then(|()| stream.take(MAX_ANSWER).read_to_string(&mut answer)) {
        // It closes the connection of whoever may not ask, before or after the request has arrived.
        Err(cause) if !matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Err(cause);
        }
        Ok(_) | Err(_) => {}
    }
    match (answer.strip_prefix(DONE), answer.strip_prefix(REFUSED)) {
        (Some(sentences), _) => Ok(Ok(sentences.to_owned())),
        (_, Some(sentences)) => Ok(Err(sentences.to_owned())),
        _ => Err(io::Error::other("it gives no answer: only root and the user that it runs as may ask")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that opens the socket of this process.
    #[test]
    fn a_request_gets_its_answer_and_nothing_else_is_done() {
        let control = listen(|request| match request {
            Request::Reload => Err("line 1\nline 2".to_owned()),
            other => Ok(other.line().to_owned()),
        });
        let this = std::process::id();
        assert_eq!(reload(Some(this)), Err("line 1\nline 2".to_owned()));
        for request in [Request::Unready, Request::Serve] {
            assert_eq!(ask(this, request).expect("an answer"), Ok(request.line().to_owned()));
        }
        let mut other = UnixStream::connect_addr(&address(this).expect("a name")).expect("it listens");
        other.write_all(b"remove\n").expect("sent");
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "refused\nunknown request");
        // The one before does not hold up the next.
        let _silent = UnixStream::connect_addr(&address(this).expect("a name")).expect("it listens");
        assert!(ask(this, Request::Serve).is_ok());
        // Whoever names another process is none: a user's socket kept root from a reload without --pid.
        let _other = UnixListener::bind_addr(&address(99_999_999).expect("a name")).expect("bound");
        let found = found::running().expect("readable");
        assert!(found.contains(&this) && !found.contains(&99_999_999), "{found:?}");
        control.close();
        assert!(reload(Some(this)).is_err_and(|sentence| sentence.starts_with("no proxy with the process id")));
        // Its thread has been woken, and closes its copy.
        while found::running().expect("readable").contains(&this) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_without_a_socket_and_one_that_is_not_what_its_name_says_are_told() {
        // Above what a process id can be.
        let nobody = reload(Some(1 << 30)).expect_err("no such process");
        assert!(nobody.starts_with("no proxy with the process id"), "{nobody}");
        let _other = UnixListener::bind_addr(&address(1 << 29).expect("a name")).expect("bound");
        let other = reload(Some(1 << 29)).expect_err("this process's");
        assert!(other.contains("its control socket is another process's: a proxy in a container"), "{other}");
    }

    #[test]
    fn whoever_may_not_ask_is_told_so_however_soon_the_connection_is_closed() {
        let refused = |stream| {
            let cause = exchange(stream, Request::Reload).expect_err("no answer").to_string();
            assert!(cause.ends_with("only root and the user that it runs as may ask"), "{cause}");
        };
        let (stream, other) = UnixStream::pair().expect("a pair");
        drop(other);
        refused(stream);
        let (stream, mut other) = UnixStream::pair().expect("a pair");
        let closing = std::thread::spawn(move || {
            // One byte of the request is read, so what is left of it resets the connection.
            other.read_exact(&mut [0]).expect("a request");
        });
        refused(stream);
        closing.join().expect("closed");
    }
}
