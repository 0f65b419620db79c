//! The write side of a connection, next to its socket and below TLS: small pieces leave together, at the pace of the client.
//!
//! Pingora's own stream writes whatever is longer than 1,460 bytes in two pieces, header and manifest, and so wakes the
//! client twice; and it writes headers and the end of a body without a time limit.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::pace::Paced;

/// A header and the manifest behind it leave together; layers, which come in larger pieces, bypass the buffer.
const WRITE_BUFFER: usize = 16 << 10;

/// What waits in the buffer for more goes without it after this, as storage may pause in the middle of a layer. The rest of a manifest
/// comes sooner.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// Room for a header and a small manifest, so that most answers allocate once.
const FIRST_ROOM: usize = 4 << 10;

/// A socket with a write buffer, which takes memory only while it holds something: most connections are idle. What is left in
/// the buffer is written, as far as the kernel takes it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket<S: AsyncWrite + Unpin> {
    stream: Paced<S>,
    /// Not written yet; never longer than [`WRITE_BUFFER`].
    buffer: BytesMut,
    /// When that goes whether or not more comes, since somebody has waited for the client with something in it.
    overdue: Option<Pin<Box<Sleep>>>,
    /// Read already, and to be read again.
    unread: BytesMut,
}

impl<S: AsyncWrite + AsFd + Unpin> Socket<S> {
    /// The client has to take so many bytes of its answers a second; `None` is any.
    pub(crate) fn new(stream: S, rate: Option<NonZeroU32>) -> Self {
        Self::of(Paced::new(stream, rate))
    }
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    fn of(stream: Paced<S>) -> Self {
        Self { stream, buffer: BytesMut::new(), overdue: None, unread: BytesMut::new() }
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
        self.overdue = None;
        Poll::Ready(Ok(()))
    }

    /// Writes the buffer once it has waited long enough. Whoever reads has nothing to write at the moment.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let overdue = self.overdue.get_or_insert_with(|| Box::pin(sleep(FLUSH_AFTER)));
        if overdue.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        match self.poll_empty(context) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
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
        let read = Pin::new(self.stream.get_mut()).poll_read(context, buffer);
        if read.is_pending() && !self.buffer.is_empty() {
            self.poll_overdue(context)?;
        }
        read
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
        self.stream.get_ref().as_raw_fd()
    }
}

impl<S: AsyncWrite + Unpin> Drop for Socket<S> {
    /// Sends what the buffer still has of an answer that broke off: clients resume where it ended.
    fn drop(&mut self) {
        self.stream.set_dropped();
        let _ = self.poll_empty(&mut Context::from_waker(Waker::noop()));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::tests::tcp;
    use super::*;

    fn over<S: AsyncWrite + Unpin>(stream: S) -> Socket<S> {
        Socket::of(Paced::unmeasured(stream, None))
    }

    #[tokio::test]
    async fn a_socket_with_nothing_to_write_holds_no_buffer() {
        let (server, mut client) = tokio::io::duplex(64 << 10);
        let mut socket = over(server);
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
            let mut socket = over(server);
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

    /// The client saw no header for as long as storage paused behind it.
    #[tokio::test(start_paused = true)]
    async fn what_waits_in_the_buffer_goes_without_the_rest_after_a_while() {
        let (server, mut client) = tokio::io::duplex(64);
        let mut socket = over(server);
        socket.write_all(b"header").await.expect("buffered");
        let mut seen = [0; 6];
        let begun = tokio::time::Instant::now();
        tokio::select! {
            read = socket.read_u8() => panic!("nothing was sent: {read:?}"),
            all = client.read_exact(&mut seen) => assert_eq!(all.expect("sent"), 6),
            () = sleep(10 * FLUSH_AFTER) => panic!("it waits"),
        }
        assert!(begun.elapsed() >= FLUSH_AFTER && socket.overdue.is_none(), "what follows at once goes with it");
    }

    async fn the_buffer_is_sent(server: impl AsyncWrite + Unpin, mut client: impl AsyncRead + Unpin) {
        let mut socket = over(server);
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
        let mut socket = over(server);
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
