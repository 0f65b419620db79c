//! The write side of a connection, next to its socket and below TLS: small pieces leave together, and a client that takes
//! nothing is given up.
//!
//! Pingora's own stream writes whatever is longer than 1,460 bytes in two pieces, header and manifest, and so wakes the
//! client twice; and it writes headers and the end of a body without a time limit.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::CLIENT_WRITE_LIMIT;

/// A header and the manifest behind it leave together; layers, which come in larger pieces, bypass the buffer.
const WRITE_BUFFER: usize = 16 << 10;

/// Room for a header and a small manifest, so that most answers allocate once.
const FIRST_ROOM: usize = 4 << 10;

/// A socket with a write buffer, which takes memory only while it holds something: most connections are idle. What is left in
/// the buffer is written, as far as the kernel takes it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket<S: AsyncWrite + Unpin> {
    stream: WriteLimit<S>,
    /// Not written yet; never longer than [`WRITE_BUFFER`].
    buffer: BytesMut,
    /// Read already, and to be read again.
    unread: BytesMut,
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    pub(crate) fn new(stream: S) -> Self {
        let stream = WriteLimit { stream, stall: None, is_stalled: false, is_dropped: false };
        Self { stream, buffer: BytesMut::new(), unread: BytesMut::new() }
    }

    /// Gives back what was read, once: the next reads find it again.
    pub(crate) fn unread(&mut self, bytes: BytesMut) {
        self.unread = bytes;
    }

    /// Appends what is there room for, and tells how much that was.
    fn append(&mut self, bytes: &[u8]) -> usize {
        if self.buffer.is_empty() {
            self.buffer.reserve(FIRST_ROOM);
        }
        let room = WRITE_BUFFER.saturating_sub(self.buffer.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        taken.len()
    }

    /// Writes the buffer to its end and gives its memory back.
    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.buffer))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.buffer.advance(written),
            }
        }
        self.buffer = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            if self.unread.is_empty() {
                self.unread = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.buffer.len() + bytes.len() > WRITE_BUFFER {
            ready!(self.poll_empty(context))?;
        }
        if bytes.len() >= WRITE_BUFFER {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        Poll::Ready(Ok(self.append(bytes)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        if self.buffer.len().saturating_add(length) > WRITE_BUFFER {
            ready!(self.poll_empty(context))?;
        }
        if length >= WRITE_BUFFER {
            return Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        }
        Poll::Ready(Ok(parts.iter().map(|part| self.append(part)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncWrite + AsRawFd + Unpin> AsRawFd for Socket<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.stream.as_raw_fd()
    }
}

impl<S: AsyncWrite + Unpin> Drop for Socket<S> {
    /// Sends what the buffer still has of an answer that broke off: clients resume where it ended.
    fn drop(&mut self) {
        self.stream.is_dropped = true;
        let _ = self.poll_empty(&mut Context::from_waker(Waker::noop()));
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

    #[tokio::test]
    async fn a_socket_with_nothing_to_write_holds_no_buffer() {
        let (server, mut client) = tokio::io::duplex(64 << 10);
        let mut socket = Socket::new(server);
        assert_eq!(socket.buffer.capacity(), 0);
        socket.write_all(b"an answer").await.expect("buffered");
        assert!(socket.buffer.capacity() > 0);
        socket.flush().await.expect("sent");
        assert_eq!(socket.buffer.capacity(), 0);
        let mut seen = [0; 9];
        client.read_exact(&mut seen).await.expect("readable");
        assert_eq!(&seen, b"an answer");
    }

    /// Pieces of all sizes, over a stream that takes 7 bytes at a time.
    #[tokio::test]
    async fn pieces_of_every_size_arrive_in_their_order() {
        let (server, mut client) = tokio::io::duplex(7);
        let sizes = [1, WRITE_BUFFER - 1, WRITE_BUFFER, 2, WRITE_BUFFER + 1, 3 * WRITE_BUFFER, 5];
        let pieces = || sizes.iter().zip(0_u8..).flat_map(|(size, byte)| std::iter::repeat_n(byte, *size));
        let written = async {
            let mut socket = Socket::new(server);
            for (size, byte) in sizes.iter().zip(0_u8..) {
                let piece = vec![byte; *size];
                let (first, rest) = piece.split_at(size / 2);
                let length = socket.write_vectored(&[io::IoSlice::new(first), io::IoSlice::new(rest)]).await;
                socket
                    .write_all(piece.get(length.expect("written")..).expect("no more than that"))
                    .await
                    .expect("written");
            }
            socket.flush().await.expect("sent");
        };
        let read = async {
            let mut seen = Vec::new();
            client.read_to_end(&mut seen).await.expect("readable");
            seen
        };
        let ((), seen) = tokio::join!(written, read);
        assert!(seen.into_iter().eq(pieces()));
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
    async fn what_was_given_back_is_read_before_the_rest() {
        let (server, mut client) = UnixStream::pair().expect("a pair");
        let mut socket = Socket::new(server);
        client.write_all(b"first rest").await.expect("sent");
        let mut first = [0; 6];
        socket.read_exact(&mut first).await.expect("six bytes");
        socket.unread(BytesMut::from(&first[..]));
        drop(client);
        let mut all = Vec::new();
        // In pieces, so that it is given out more than once.
        while let Ok(byte) = socket.read_u8().await {
            all.push(byte);
        }
        assert_eq!(all, b"first rest");
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
