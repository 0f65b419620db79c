//! How a proxy asks the process that is to take its place whether it is ready, and has it serve: by a pair of sockets of which only these
//! two have an end. A socket with a name could be any user's, who takes the name before.
//!
//! Each request and each answer is one packet, so that neither has to say where it ends.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

/// The longest answer: a name for each of some thousand registries. The kernel takes so much at once.
const MAX_ANSWER: usize = 128 << 10;
/// Each answer ends so, because a packet without a byte is what the end of the other process looks like.
const END: &str = "\n";

/// What the new process is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Which registries have no token; a line for each.
    Unready,
    /// Which registries do not answer it now; a line for each.
    Unreached,
    /// Serve clients from now on.
    Serve,
}

impl Request {
    const ALL: [(Self, &str); 3] = [(Self::Unready, "unready"), (Self::Unreached, "unreached"), (Self::Serve, "serve")];
    /// One that is longer is none of them.
    const MAX: usize = 16;

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(known, _)| *known == self).map_or("", |(_, word)| word)
    }
}

/// The end of the process that asks.
pub(super) struct Asking(UnixStream);

/// An answer is waited for up to `step` at a time. The other end is for the new process.
pub(super) fn pair(step: Duration) -> io::Result<(Asking, OwnedFd)> {
    let (own, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let own = UnixStream::from(own);
    own.set_read_timeout(Some(step))?;
    // The other process may not read yet.
    own.set_write_timeout(Some(step))?;
    Ok((Asking(own), other))
}

impl Asking {
    /// Its answer is that of [`Self::answer`]. `InvalidData` if there is one before the question, which says nothing about it.
    pub(super) fn send(&self, request: Request) -> io::Result<()> {
        let there = recv(self.0.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK);
        if there.is_ok_and(|length| length > 0) {
            return Err(io::Error::new(ErrorKind::InvalidData, "it answers before it is asked"));
        }
        (&self.0).write_all(request.word().as_bytes())
    }

    /// The answer, if there is one by now.
    pub(super) fn answer(&self) -> io::Result<Option<String>> {
        let mut answer = vec![0; MAX_ANSWER];
        match (&self.0).read(&mut answer) {
            Ok(length) => {
                let answer = str::from_utf8(answer.get(..length).unwrap_or_default()).ok();
                let answer = answer.and_then(|answer| answer.strip_suffix(END));
                answer.map(|answer| Some(answer.to_owned())).ok_or_else(|| ErrorKind::UnexpectedEof.into())
            }
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(cause) => Err(cause),
        }
    }
}

/// Answers until the process that asks closes its end, with its own end at the latest.
pub(super) fn answer(mut asking: UnixStream, handle: impl Fn(Request) -> String) {
    let mut word = [0; Request::MAX];
    loop {
        let length = match asking.read(&mut word) {
            Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let known = Request::ALL.into_iter().find(|(_, known)| word.get(..length) == Some(known.as_bytes()));
        // Another version's process may ask for what this one does not know: it hears nothing, and gives up.
        let Some((request, _)) = known else { continue };
        if asking.write_all([&handle(request), END].concat().as_bytes()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_answer_and_the_end_of_either_process_is_noticed() {
        let (asking, other) = pair(Duration::from_secs(30)).expect("a pair");
        let answering = std::thread::spawn(move || {
            answer(other.into(), |request| match request {
                Request::Unready => "a:443\nb:443".to_owned(),
                Request::Unreached => "b:443".to_owned(),
                Request::Serve => String::new(),
            });
        });
        for _ in 0..2 {
            asking.send(Request::Unready).expect("sent");
            assert_eq!(asking.answer().expect("an answer").as_deref(), Some("a:443\nb:443"));
            asking.send(Request::Unreached).expect("sent");
            assert_eq!(asking.answer().expect("an answer").as_deref(), Some("b:443"));
            asking.send(Request::Serve).expect("sent");
            assert_eq!(asking.answer().expect("an answer").as_deref(), Some(""));
        }
        drop(asking);
        answering.join().expect("it ends");
        let (asking, other) = pair(Duration::from_millis(1)).expect("a pair");
        assert_eq!(asking.answer().expect("no answer yet"), None);
        UnixStream::from(other).write_all(END.as_bytes()).expect("sent");
        let unasked = asking.send(Request::Serve).expect_err("an answer to nothing");
        assert_eq!(unasked.kind(), ErrorKind::InvalidData);
        assert!(asking.answer().is_ok() && asking.answer().is_err() && asking.send(Request::Serve).is_err());
    }
}
