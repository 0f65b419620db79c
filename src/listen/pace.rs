//! The pace at which a client takes its answer: a client that takes next to nothing is given up, whoever writes what.
//!
//! Only the time counts in which something waits to be sent, so a slow registry is no fault of the client's. What the client has
//! taken is what its kernel has acknowledged: into a large buffer of this kernel's, which empties slowly, nothing can be written
//! for longer than a minute although bytes leave all the time.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use pingora_core::protocols::l4::ext::get_tcp_info;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::CLIENT_WRITE_LIMIT;

/// A stream on which a write fails when the client takes too little in [`CLIENT_WRITE_LIMIT`] of waiting.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    /// What the kernel does for the stream, of one that is a socket.
    kernel: Option<Kernel<S>>,
    /// The fewest bytes that the client takes in that time.
    least: u64,
    /// Made at the first write that has to wait.
    period: Option<Box<Period>>,
    /// The runtime may have ended, and its clock with it: no timer is made any more.
    is_dropped: bool,
}

/// What the kernel knows and does of a socket.
#[derive(Debug)]
struct Kernel<S> {
    /// All that the other end has acknowledged; a Unix socket has no such count.
    acknowledged: fn(&S) -> Option<u64>,
    /// Has the socket's end drop what it has not sent. The kernel would keep that for minutes, megabytes of it.
    drop_unsent: fn(&S),
}

/// The time that is looked at.
#[derive(Debug)]
struct Period {
    /// Ends it, as long as a write waits.
    end: Pin<Box<Sleep>>,
    /// Since when a write waits.
    waits: Option<Instant>,
    /// How long the writes before that one have waited.
    waited: Duration,
    /// What was written in it.
    written: u64,
    /// What the client had acknowledged when it began; `None` where the kernel does not say.
    acknowledged: Option<u64>,
}

impl<S> Paced<S> {
    /// Over a stream of no socket.
    #[cfg(test)]
    pub(super) fn unmeasured(stream: S, rate: Option<NonZeroU32>) -> Self {
        Self { stream, kernel: None, least: least(rate), period: None, is_dropped: false }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// What is written from now on has no limit, and does not wait.
    pub(super) fn set_dropped(&mut self) {
        self.is_dropped = true;
    }

    fn limit(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            if let Some(period) = &mut self.period {
                period.written += result.as_ref().map_or(0, |written| *written as u64);
                if let Some(since) = period.waits.take() {
                    period.waited += since.elapsed();
                }
            }
            return Poll::Ready(result);
        }
        if self.is_dropped {
            return Poll::Pending;
        }
        let acknowledged = || self.kernel.as_ref().and_then(|kernel| (kernel.acknowledged)(&self.stream));
        let period = self.period.get_or_insert_with(|| Box::new(Period::new(acknowledged())));
        if period.waits.is_none() {
            let now = Instant::now();
            period.waits = Some(now);
            period.end.as_mut().reset(now + CLIENT_WRITE_LIMIT.saturating_sub(period.waited));
        }
        while period.end.as_mut().poll(context).is_ready() {
            if period.taken(acknowledged()) < self.least {
                if let Some(kernel) = &self.kernel {
                    (kernel.drop_unsent)(&self.stream);
                }
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            **period = Period::new(acknowledged());
            period.waits = Some(Instant::now());
        }
        Poll::Pending
    }
}

impl<S: AsFd> Paced<S> {
    /// The client has to take so many bytes a second; `None` is any.
    pub(super) fn new(stream: S, rate: Option<NonZeroU32>) -> Self {
        let kernel = Kernel { acknowledged, drop_unsent };
        Self { stream, kernel: Some(kernel), least: least(rate), period: None, is_dropped: false }
    }
}

fn least(rate: Option<NonZeroU32>) -> u64 {
    rate.map_or(1, |rate| u64::from(rate.get()) * CLIENT_WRITE_LIMIT.as_secs())
}

impl Period {
    fn new(acknowledged: Option<u64>) -> Self {
        Self {
            end: Box::pin(sleep_until(Instant::now() + CLIENT_WRITE_LIMIT)),
            waits: None,
            waited: Duration::ZERO,
            written: 0,
            acknowledged,
        }
    }

    /// What the client has taken since it began.
    fn taken(&self, acknowledged: Option<u64>) -> u64 {
        match self.acknowledged.zip(acknowledged) {
            Some((before, now)) => now.saturating_sub(before),
            None => self.written,
        }
    }
}

fn acknowledged(socket: &impl AsFd) -> Option<u64> {
    get_tcp_info(socket.as_fd().as_raw_fd()).ok().map(|info| info.tcpi_bytes_acked)
}

fn drop_unsent(socket: &impl AsFd) {
    // It cannot fail on a socket that is open.
    let _ = setsockopt(socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.limit(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::net::UnixStream;
    use tokio::time::{sleep, timeout};

    use super::super::tests::tcp;
    use super::*;

    const RATE: Option<NonZeroU32> = NonZeroU32::new(512);

    /// Writes without end; the time until that failed.
    async fn until_it_fails(mut paced: Paced<impl AsyncWrite + Unpin>, most: Duration) -> Option<Duration> {
        let begun = Instant::now();
        let written = async {
            loop {
                if let Err(cause) = paced.write_all(&[0; 4 << 10]).await {
                    return cause;
                }
            }
        };
        let cause = timeout(most, written).await.ok()?;
        assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
        Some(begun.elapsed())
    }

    /// A client that takes so many bytes at once, again and again after a pause.
    async fn takes(mut client: DuplexStream, bytes: usize, pause: Duration) {
        let mut part = vec![0; bytes];
        while client.read_exact(&mut part).await.is_ok() {
            sleep(pause).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_too_little_in_a_minute_is_given_up_and_who_takes_enough_is_not() {
        const HOUR: Duration = Duration::from_secs(3600);
        for (rate, bytes, pause, is_given_up) in [
            // A byte a minute or a second, half of the rate, a little more than the rate.
            (RATE, 1, 50, true),
            (RATE, 1, 1, true),
            (RATE, 256, 1, true),
            (RATE, 600, 1, false),
            // In a burst, with pauses that are nearly as long as may be.
            (RATE, 64 << 10, 55, false),
            // Any progress is enough.
            (None, 1, 50, false),
            (None, 1, 121, true),
        ] {
            let (server, client) = tokio::io::duplex(1 << 10);
            let client = tokio::spawn(takes(client, bytes, Duration::from_secs(pause)));
            let failed = until_it_fails(Paced::unmeasured(server, rate), HOUR).await;
            assert_eq!(failed.is_some(), is_given_up, "{rate:?} {bytes} {pause}: {failed:?}");
            assert!(failed.is_none_or(|after| after <= 2 * CLIENT_WRITE_LIMIT), "{rate:?} {bytes} {pause}: {failed:?}");
            client.abort();
        }
    }

    /// A registry that brings little is no fault of the client's.
    #[tokio::test(start_paused = true)]
    async fn only_the_time_in_which_something_waits_counts() {
        let (server, mut client) = tokio::io::duplex(64);
        let mut paced = Paced::unmeasured(server, RATE);
        let reading = tokio::spawn(async move { while client.read_exact(&mut [0; 65]).await.is_ok() {} });
        for _ in 0..600 {
            // One byte more than there is room for, so that each of them waits for a moment.
            paced.write_all(&[0; 65]).await.expect("taken at once");
            sleep(Duration::from_secs(10)).await;
        }
        drop(paced);
        reading.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_write_fails_when_the_client_stops_reading() {
        let (server, _client) = tcp().await;
        let (unix, _other) = UnixStream::pair().expect("a pair");
        // Paused time advances by itself while all tasks wait; it ran while the connection was made.
        tokio::time::pause();
        let most = 3 * CLIENT_WRITE_LIMIT;
        assert!(until_it_fails(Paced::new(server, RATE), most).await.is_some());
        assert!(until_it_fails(Paced::new(unix, None), most).await.is_some());
    }

    #[tokio::test]
    async fn what_the_other_end_of_a_tcp_socket_has_taken_is_known() {
        let (mut server, mut client) = tcp().await;
        let before = acknowledged(&server).expect("the kernel tells");
        server.write_all(&[0; 1000]).await.expect("sent");
        client.read_exact(&mut [0; 1000]).await.expect("read");
        let acknowledge = async {
            while acknowledged(&server) < Some(before + 1000) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), acknowledge).await.expect("acknowledged");
        let (unix, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(acknowledged(&unix), None);
    }
}
