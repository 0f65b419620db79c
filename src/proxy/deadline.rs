//! When to wait no longer for the header of a response: at its deadline, over the whole of it, or once the registry is known to
//! be down.
//!
//! Pingora's limit is per read, so a registry that sends a byte every three seconds, or interim responses without end,
//! would keep a client waiting for minutes. Pingora has no hook to end a request from outside. But a socket can be shut down
//! by its number, and then the read that waits on it fails like that of a broken connection.
//!
//! [`watched`] polls a request and then its watch, which [`begin`] and [`end`] set from the request's phases. A header that
//! arrives in one piece costs no timer: Pingora's own limit bounds the first read, so the watch of a registry's response
//! starts a timer only once its request was woken and still waits. That the registry is down wakes the request, and a response
//! that takes long has it probed, by one of Pingora's timers, which cost next to nothing.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use pingora_core::{Error, ErrorType};
use tokio::time::{Instant, Sleep, sleep_until};

use super::destination::Destination;
use super::fail::Trouble;

/// A response that takes longer than this gives cause for a probe. ACR takes as long for what it has not imported yet, and then
/// the probe finds it well.
pub(super) const SLOW: Duration = Duration::from_secs(3);

tokio::task_local! {
    static WATCH: Watch;
}

/// What a request waits for.
#[derive(Default)]
struct Watch(RefCell<State>);

#[derive(Default)]
enum State {
    /// For no header.
    #[default]
    Idle,
    Header(Header),
    /// For Pingora to notice that the connection has been shut down.
    ShutDown(Why),
}

/// A header that has to arrive on this connection by `until`.
struct Header {
    socket: RawFd,
    until: Instant,
    has_timer: bool,
    /// It has not been waited for yet.
    is_new: bool,
    registry: Option<Registry>,
}

/// A registry that is asked: nobody waits for it once it is known to be down.
pub(crate) struct Registry {
    pub destination: Arc<Destination>,
    /// Called once a response takes longer than [`SLOW`].
    pub when_slow: fn(&Destination),
}

/// Why a connection has been shut down.
pub(crate) enum Why {
    /// The header was late.
    Late,
    /// The registry is known to be down, by this cause.
    Down(Arc<Trouble>),
}

impl Why {
    /// The error that the request ends with, or is tried again after.
    pub(crate) fn into_error(self) -> Box<Error> {
        match self {
            Self::Late => late(),
            Self::Down(cause) => Trouble::Down(cause).into_error(),
        }
    }
}

/// The header of a response was not whole at its deadline.
pub(crate) fn late() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the header was not whole in time").into_up()
}

/// Runs a request with a watch of its own.
pub(crate) async fn watched<F: Future>(request: F) -> F::Output {
    let mut request = pin!(request);
    let (mut timer, mut down) = (pin!(None), pin!(None));
    let both = poll_fn(|context| {
        let polled = request.as_mut().poll(context);
        if polled.is_pending() {
            WATCH.with(|watch| watch.poll(timer.as_mut(), down.as_mut(), until_down, context));
        }
        polled
    });
    WATCH.scope(Watch::default(), both).await
}

/// Waits until the registry is known to be down.
async fn until_down(Registry { destination, when_slow }: Registry) -> Arc<Trouble> {
    let mut down = pin!(destination.upstream.health.until_down());
    match pingora_timeout::timeout(SLOW, &mut down).await {
        Ok(cause) => cause,
        Err(_) => {
            when_slow(&destination);
            down.await
        }
    }
}

/// A request is about to be sent on this connection; the header of its response has to be whole by `until`. `first_read`
/// says that Pingora's limit for the first read ends no later than that. `registry` is the one that is asked, if nobody waits
/// for it while it is known to be down.
///
/// `socket` must be that of the connection which Pingora holds for the request. Pingora holds it until it has given the
/// final header to `upstream_response_filter`, or until it calls `error_while_proxy`; it does not wait in between. Both
/// call [`end`], and a request that is dropped takes its watch along. The watch is polled by the request's own task, never
/// beside it. So the number cannot have been closed and given to another connection when it is used.
pub(crate) fn begin(socket: RawFd, until: Instant, first_read: bool, registry: Option<Registry>) {
    let header = State::Header(Header { socket, until, has_timer: !first_read, is_new: true, registry });
    // Without a watch, as in unit tests, Pingora's limits are all there is.
    let _ = WATCH.try_with(|watch| watch.0.replace(header));
}

/// The header has arrived, or the try is over. Says why the connection has been shut down, if it has.
pub(crate) fn end() -> Option<Why> {
    match WATCH.try_with(|watch| watch.0.take()) {
        Ok(State::ShutDown(why)) => Some(why),
        Ok(State::Idle | State::Header(_)) | Err(_) => None,
    }
}

impl Watch {
    /// The request waits: may it? `down` is the wait that `until_down` makes for the registry.
    fn poll<D: Future<Output = Arc<Trouble>>>(
        &self,
        mut timer: Pin<&mut Option<Sleep>>,
        mut down: Pin<&mut Option<D>>,
        until_down: fn(Registry) -> D,
        context: &mut Context<'_>,
    ) {
        let mut state = self.0.borrow_mut();
        let State::Header(header) = &mut *state else {
            timer.set(None);
            down.set(None);
            return;
        };
        if std::mem::take(&mut header.is_new) {
            down.set(header.registry.take().map(until_down));
        }
        let why = if let Some(Poll::Ready(cause)) = down.as_mut().as_pin_mut().map(|down| down.poll(context)) {
            Why::Down(cause)
        } else if !std::mem::replace(&mut header.has_timer, true) {
            return;
        } else {
            if timer.as_ref().as_pin_ref().is_none_or(|timer| timer.deadline() != header.until) {
                timer.set(Some(sleep_until(header.until)));
            }
            if timer.as_mut().as_pin_mut().is_none_or(|timer| timer.poll(context).is_pending()) {
                return;
            }
            Why::Late
        };
        timer.set(None);
        down.set(None);
        // This wakes the request, whose read or write then fails. An error here means that it has failed already.
        let _ = shutdown(header.socket, Shutdown::Both);
        *state = State::ShutDown(why);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{interval, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        (client, listener.accept().await.expect("accepted").0)
    }

    /// Reads until the connection ends; the watch ends after so many bytes. What was read, and whether that was late.
    async fn read(mut client: TcpStream, first_read: bool, header: usize) -> (usize, bool) {
        watched(async move {
            begin(client.as_raw_fd(), Instant::now() + LIMIT, first_read, None);
            let (mut length, mut late) = (0, None);
            loop {
                // An error is an end as well.
                if client.read(&mut [0]).await.unwrap_or(0) == 0 {
                    return (length, late.unwrap_or_else(|| end().is_some()));
                }
                length += 1;
                if length == header {
                    late = Some(end().is_some());
                }
            }
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_arrives_byte_by_byte_is_cut_at_the_deadline_and_a_whole_one_is_not() {
        for (first_read, header, expected) in [(true, 100, true), (false, 100, true), (true, 3, false)] {
            let (client, mut server) = pair().await;
            let dripping = async {
                let mut ticks = interval(Duration::from_secs(3));
                for _ in 0..20 {
                    ticks.tick().await;
                    if server.write_all(b"x").await.is_err() {
                        break;
                    }
                }
                drop(server);
            };
            let begun = Instant::now();
            let reading = async {
                let seen = read(client, first_read, header).await;
                (seen, begun.elapsed())
            };
            let (((length, late), took), ()) = tokio::join!(reading, dripping);
            assert_eq!(late, expected, "{first_read} {header}: {length}");
            assert_eq!(took < LIMIT + Duration::from_secs(1), expected, "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_without_another_limit_is_cut_at_the_deadline() {
        let (client, _server) = pair().await;
        let begun = Instant::now();
        assert_eq!(read(client, false, 1).await, (0, true));
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_touched_after_the_end_of_its_watch() {
        let (client, mut server) = pair().await;
        let ended = watched(async {
            begin(client.as_raw_fd(), Instant::now() + LIMIT, false, None);
            sleep(Duration::from_secs(1)).await;
            let late = end().is_some();
            sleep(2 * LIMIT).await;
            late
        });
        assert!(!ended.await);
        server.write_all(b"x").await.expect("still open");
        client.readable().await.expect("still open");
    }
}
