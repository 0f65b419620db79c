//! The write side of a connection, next to its socket and below TLS: small pieces leave together, and a client that takes
//! nothing is given up.
//!
//! Pingora's own stream writes whatever is longer than 1,460 bytes in two pieces, header and manifest, and so wakes the
//! client twice; and it writes headers and the end of a body without a time limit.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::CLIENT_WRITE_LIMIT;

/// A header and the manifest behind it leave together; layers, which come in larger pieces, bypass the buffer.
const WRITE_BUFFER: usize = 16 << 10;

/// A socket with a write buffer. What is left in the buffer is written, as far as the kernel takes it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket<S: AsyncWrite + Unpin>(BufWriter<WriteLimit<S>>);

impl<S: AsyncWrite + Unpin> Socket<S> {
    pub(crate) fn new(stream: S) -> Self {
        let stream = WriteLimit { stream, stall: None, is_stalled: false, is_dropped: false };
        Self(BufWriter::with_capacity(WRITE_BUFFER, stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl<S: AsyncWrite + AsRawFd + Unpin> AsRawFd for Socket<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.get_ref().stream.as_raw_fd()
    }
}

impl<S: AsyncWrite + Unpin> Drop for Socket<S> {
    /// Sends what the buffer still has of an answer that broke off: clients resume where it ended.
    fn drop(&mut self) {
        self.0.get_mut().is_dropped = true;
        let _ = Pin::new(&mut self.0).poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

/// A stream on which a write fails when the client takes nothing for [`CLIENT_WRITE_LIMIT`], whoever writes what.
#[derive(Debug)]
struct WriteLimit<S> {
    stream: S,
    /// Made at the first write that has to wait.
    stall: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
    /// The runtime may have ended, and its clock with it: no timer is made any more.
    is_dropped: bool,
}

impl<S> WriteLimit<S> {
    fn limit<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.is_dropped {
            self.is_stalled = false;
            return written;
        }
        let deadline = || Instant::now() + CLIENT_WRITE_LIMIT;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep_until(deadline())));
        if !self.is_stalled {
            stall.as_mut().reset(deadline());
            self.is_stalled = true;
        }
        stall.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteLimit<S> {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        (listener.accept().await.expect("accepted").0, client)
    }

    async fn a_write_times_out<S: AsyncWrite + Unpin>(stream: S) {
        let mut socket = Socket::new(stream);
        // Paused time advances by itself while all tasks wait; it ran while the connection was made.
        tokio::time::pause();
        let written = async {
            loop {
                socket.write_all(&[0; 64 << 10]).await?;
            }
        };
        let failed: io::Result<()> = tokio::time::timeout(CLIENT_WRITE_LIMIT * 2, written).await.expect("it times out");
        assert_eq!(failed.expect_err("it fails").kind(), io::ErrorKind::TimedOut);
        tokio::time::resume();
    }

    #[tokio::test]
    async fn a_write_fails_when_the_client_stops_reading() {
        let (server, _client) = tcp().await;
        a_write_times_out(server).await;
        let (server, _client) = UnixStream::pair().expect("a pair");
        a_write_times_out(server).await;
    }

    async fn the_buffer_is_sent(server: impl AsyncWrite + Unpin, mut client: impl AsyncRead + Unpin) {
        let mut socket = Socket::new(server);
        socket.write_all(b"half ").await.expect("buffered");
        socket.flush().await.expect("sent");
        socket.write_all(b"an answer").await.expect("buffered");
        drop(socket);
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.expect("readable");
        assert_eq!(seen, b"half an answer");
    }

    #[tokio::test]
    async fn a_dropped_socket_sends_what_its_buffer_holds() {
        let (server, client) = tcp().await;
        the_buffer_is_sent(server, client).await;
        let (server, client) = UnixStream::pair().expect("a pair");
        the_buffer_is_sent(server, client).await;
        let (server, client) = tokio::io::duplex(64);
        the_buffer_is_sent(server, client).await;
    }
}
