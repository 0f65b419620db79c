//! The connections of this proxy's own calls, kept from one call to the next.
//!
//! Pingora's connector keeps connections, too, but watches each by a task of its own, with a timer, from every call to the
//! next. Here a connection just lies in a list; whoever takes it looks whether it still stands.

use std::collections::{HashMap, VecDeque};
use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use pingora_core::Result;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use tokio::io::AsyncReadExt as _;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};

/// How often connections are looked through for those that have been idle for too long.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);

/// Opens connections, and keeps those that are idle.
pub(crate) struct Connections {
    transport: TransportConnector,
    idle: Arc<Mutex<Idle>>,
    /// So many may be idle. More are closed.
    max_idle: usize,
}

/// The idle connections.
#[derive(Default)]
struct Idle {
    /// By `Peer::reuse_hash`; the one that was used last is the last one.
    by_peer: HashMap<u64, VecDeque<Lying>>,
    count: usize,
    /// A task looks through them.
    is_swept: bool,
}

struct Lying {
    stream: Stream,
    until: Instant,
}

impl Connections {
    /// None yet. `options` are for new ones.
    pub(crate) fn new(options: Option<ConnectorOptions>, max_idle: usize) -> Self {
        Self { transport: TransportConnector::new(options), idle: Arc::default(), max_idle }
    }

    /// One that is idle and still stands.
    pub(crate) fn kept(&self, peer: &HttpPeer) -> Option<HttpSession> {
        let key = peer.reuse_hash();
        loop {
            let mut stream = lock(&self.idle).take(key)?;
            if stands(&mut stream) {
                return Some(HttpSession::new_with_options(stream, peer));
            }
        }
    }

    /// A new one.
    pub(crate) async fn open(&self, peer: &HttpPeer) -> Result<HttpSession> {
        let stream = self.transport.new_stream(peer).await?;
        Ok(HttpSession::new_with_options(stream, peer))
    }

    /// Keeps a connection for the next call to this peer, if it can have another one. The whole response has been read.
    pub(crate) async fn keep(&self, mut session: HttpSession, peer: &HttpPeer) {
        session.respect_keepalive();
        let for_long = peer.options.idle_timeout.filter(|timeout| !timeout.is_zero());
        let (Some(stream), Some(for_long)) = (session.reuse().await, for_long) else { return };
        let until = Instant::now() + for_long;
        let begins = lock(&self.idle).put(peer.reuse_hash(), Lying { stream, until }, self.max_idle);
        if begins {
            tokio::spawn(sweep(Arc::downgrade(&self.idle)));
        }
    }
}

impl Idle {
    fn take(&mut self, key: u64) -> Option<Stream> {
        let lying = self.by_peer.get_mut(&key)?.pop_back()?;
        self.count -= 1;
        Some(lying.stream)
    }

    /// True if a task has to begin to look through them.
    fn put(&mut self, key: u64, lying: Lying, max: usize) -> bool {
        if self.count >= max {
            return false;
        }
        self.by_peer.entry(key).or_default().push_back(lying);
        self.count += 1;
        !std::mem::replace(&mut self.is_swept, true)
    }

    /// Those that have been idle for too long, to be closed, and whether that were the last ones.
    fn ended(&mut self, now: Instant) -> (Vec<Lying>, bool) {
        let mut ended = Vec::new();
        self.by_peer.retain(|_, lying| {
            while lying.front().is_some_and(|first| first.until <= now) {
                ended.extend(lying.pop_front());
            }
            !lying.is_empty()
        });
        self.count -= ended.len();
        self.is_swept = self.count > 0;
        (ended, !self.is_swept)
    }
}

/// Closes what has been idle for too long, until nothing is idle.
async fn sweep(idle: Weak<Mutex<Idle>>) {
    loop {
        sleep(SWEEP_PAUSE).await;
        let Some(idle) = idle.upgrade() else { return };
        let (ended, is_last) = lock(&idle).ended(Instant::now());
        // Closed without the lock.
        drop(ended);
        if is_last {
            return;
        }
    }
}

/// A server that has closed an idle connection has sent its end; one that has sent anything else cannot be understood.
fn stands(stream: &mut Stream) -> bool {
    let mut byte = [0];
    // A task that has done much is otherwise told to wait, which is no sign of life.
    let mut read = pin!(unconstrained(stream.read(&mut byte)));
    read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// No panic leaves the lists half changed.
fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::fd::AsRawFd as _;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(90);

    fn peer(group: u64) -> HttpPeer {
        let mut peer = HttpPeer::new(SocketAddr::from(([127, 0, 0, 1], 443)), true, "example.azurecr.io".to_owned());
        peer.group_key = group;
        peer
    }

    fn put(connections: &Connections, peer: &HttpPeer, stream: TcpStream) -> bool {
        let stream: Stream = Box::new(pingora_core::protocols::l4::stream::Stream::from(stream));
        lock(&connections.idle).put(
            peer.reuse_hash(),
            Lying { stream, until: Instant::now() + LIMIT },
            connections.max_idle,
        )
    }

    /// Both ends of so many connections.
    async fn pairs(number: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..number {
            ours.push(TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection"));
            theirs.push(listener.accept().await.expect("a connection").0);
        }
        (ours, theirs)
    }

    #[tokio::test]
    async fn what_the_server_has_closed_or_spoken_on_is_passed_over_and_the_newest_that_stands_is_taken() {
        let (mut ours, mut theirs) = pairs(4).await;
        let connections = Connections::new(None, 10);
        let newest_that_stands = ours[1].as_raw_fd();
        let (closed, spoken) = (theirs.remove(3), &mut theirs[2]);
        drop(closed);
        spoken.write_all(b"HTTP/1.1 408 \r\n\r\n").await.expect("sent");
        for stream in &ours[2..] {
            stream.readable().await.expect("it has come");
        }
        let last = peer(1);
        for stream in ours.drain(..) {
            put(&connections, &last, stream);
        }
        assert!(connections.kept(&peer(2)).is_none(), "of another epoch");
        let kept = connections.kept(&last).expect("one stands");
        assert_eq!(kept.into_inner().id(), newest_that_stands);
        assert_eq!(lock(&connections.idle).count, 1);
    }

    #[tokio::test]
    async fn no_more_are_idle_than_may_be_and_none_for_longer_than_its_time() {
        let (ours, _theirs) = pairs(3).await;
        tokio::time::pause();
        let connections = Connections::new(None, 2);
        let last = peer(1);
        let begins: Vec<_> = ours.into_iter().map(|stream| put(&connections, &last, stream)).collect();
        assert_eq!(begins, [true, false, false], "one task looks through them");
        assert_eq!(lock(&connections.idle).count, 2);
        let sweeping = tokio::spawn(sweep(Arc::downgrade(&connections.idle)));
        sleep(LIMIT - Duration::from_secs(1)).await;
        assert_eq!(lock(&connections.idle).count, 2);
        sleep(SWEEP_PAUSE).await;
        assert_eq!(lock(&connections.idle).count, 0);
        assert!(lock(&connections.idle).by_peer.is_empty());
        sweeping.await.expect("nothing is left to look through");
        assert!(!lock(&connections.idle).is_swept);
    }
}
