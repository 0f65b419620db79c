//! A client's connection: it reads a request's header by itself, and gives Pingora the bytes of one request and no more.
//!
//! Pingora's own stream fills a read buffer of 64 KiB with zeros for each connection, of which dockerd opens one a request,
//! and asks the clock on each read and write that has to wait.
//!
//! A connection is generic over its stream: TCP or a Unix socket, as [`super::socket::Socket`], or TLS over one of these; the
//! write buffer is below TLS.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frames::Frames;
use super::header;
use crate::peer::Peer;

/// Read at once into the connection's buffer. Real headers have less than 1 KiB.
const READ_SIZE: usize = 2 << 10;

/// What a connection can be made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + AsRawFd + Unpin + fmt::Debug + Send + Sync + 'static {}

impl<T: AsyncRead + AsyncWrite + AsRawFd + Unpin + fmt::Debug + Send + Sync + 'static> Stream for T {}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    /// Read from the stream and not handed on yet.
    buffer: BytesMut,
    readable: Readable,
    digest: Arc<SocketDigest>,
    established: SystemTime,
    /// What TLS has told about the client.
    peer: Option<Arc<ProxyDigest>>,
}

/// What Pingora may read of the connection while a request is under way.
#[derive(Debug)]
enum Readable {
    /// Only the end of the connection, for the request has no body: other bytes are the next request's, and wait in the
    /// buffer.
    End,
    /// All bytes: a body, behind which nothing is served.
    Body,
    /// All bytes, as frames.
    Frames(Frames),
}

impl<S: Stream> Connection<S> {
    /// `peer` is the client's address.
    pub(crate) fn new(stream: S, peer: impl Into<SocketAddr>) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // Pingora would ask the kernel for it. Nobody else has set it yet, so this does not fail.
        let _ = digest.peer_addr.set(Some(peer.into()));
        Self {
            stream,
            buffer: BytesMut::new(),
            readable: Readable::End,
            digest: Arc::new(digest),
            established: SystemTime::now(),
            peer: None,
        }
    }

    /// The same of a TLS stream, which has told this about the client.
    pub(crate) fn secured(stream: S, client: impl Into<SocketAddr>, peer: Peer) -> Self {
        Self { peer: peer.into_digest(), ..Self::new(stream, client) }
    }

    /// Whether its stream is TLS.
    pub(crate) fn is_secured(&self) -> bool {
        self.peer.is_some()
    }

    /// The same as [`Self::peer`], for whom the connection is given away meanwhile.
    pub(crate) fn peer_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.peer.clone()
    }

    /// What TLS has told about the client.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_deref().and_then(Peer::in_digest)
    }

    /// The client's IP address, of a connection that has one.
    pub(crate) fn client(&self) -> Option<std::net::SocketAddr> {
        self.digest.peer_addr().and_then(SocketAddr::as_inet).copied()
    }

    /// What was read and not handed on. Empty lines before a request are skipped.
    pub(crate) fn buffer(&mut self) -> &[u8] {
        self.buffer.advance(header::empty_lines(&self.buffer));
        &self.buffer
    }

    /// Waits for bytes and appends them to [`Self::buffer`], which is never longer than `max`. 0 is the end of the
    /// connection. Cancel safe.
    pub(crate) async fn fill(&mut self, max: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_fill(context, max)).await
    }

    /// Reads by way of the stack, so that a silent connection takes no memory.
    fn poll_fill(&mut self, context: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_SIZE];
        let room = max.saturating_sub(self.buffer.len()).min(READ_SIZE);
        let mut bytes = ReadBuf::uninit(space.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut bytes))?;
        self.buffer.extend_from_slice(bytes.filled());
        Poll::Ready(Ok(bytes.filled().len()))
    }

    /// Takes the request at the front of [`Self::buffer`], whose header has this length. What follows the header stays in the
    /// buffer, unless it is a body: that is taken, too.
    pub(crate) fn take_request(&mut self, header: usize, has_body: bool) -> BytesMut {
        self.readable = if has_body { Readable::Body } else { Readable::End };
        if has_body || header == self.buffer.len() {
            // The whole buffer: `split_to` would make it a shared one.
            return std::mem::take(&mut self.buffer);
        }
        self.buffer.split_to(header)
    }

    /// From now on what comes is HTTP/2: first `preface` bytes that are no frame, then frames, each within `limit`.
    pub(crate) fn start_frames(&mut self, preface: usize, limit: Duration) {
        let mut frames = Frames::new(preface, limit);
        let length = frames.read(&self.buffer);
        self.buffer.truncate(length);
        self.readable = Readable::Frames(frames);
    }

    /// The stream itself, for an answer outside Pingora.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: Stream> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if let Readable::End = me.readable {
            // Bytes of the next request wake nobody: they are read when this request has ended.
            if me.buffer.is_empty() && ready!(me.poll_fill(context, READ_SIZE))? == 0 {
                return Poll::Ready(Ok(()));
            }
            return Poll::Pending;
        }
        if !me.buffer.is_empty() {
            let length = me.buffer.len().min(out.remaining());
            out.put_slice(&me.buffer.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        if let Readable::Frames(frames) = &mut me.readable
            && let Some(end) = frames.last()
        {
            ready!(end.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let state = Pin::new(&mut me.stream).poll_read(context, out);
        if let Readable::Frames(frames) = &mut me.readable {
            let length = frames.read(out.filled().get(before..).unwrap_or_default());
            out.set_filled(before + length);
            if frames.is_refused() {
                return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
            }
            if state.is_pending() && frames.poll_overdue(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        state
    }
}

impl<S: Stream> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Only flushes: Pingora drops the connection right after this, which closes it in both directions. TLS has an end of its
    /// own, without which a client takes an answer that ends with the connection for a broken one.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_secured() {
            return Pin::new(&mut self.stream).poll_shutdown(context);
        }
        self.poll_flush(context)
    }
}

impl<S: AsRawFd> AsRawFd for Connection<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Pingora looks at nothing in advance: the protocol is known before it gets the connection.
impl<S: Stream> Peek for Connection<S> {}

#[async_trait]
impl<S: Stream> Shutdown for Connection<S> {
    async fn shutdown(&mut self) {
        // It fails if the client has left, and then nobody misses the last bytes.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl<S: Stream> UniqueID for Connection<S> {
    fn id(&self) -> UniqueIDType {
        self.as_raw_fd()
    }
}

impl<S: Stream> Ssl for Connection<S> {}

impl<S: Stream> GetTimingDigest for Connection<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.established, ..TimingDigest::default() })]
    }
}

impl<S: Stream> GetProxyDigest for Connection<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.peer.clone()
    }
}

impl<S: Stream> GetSocketDigest for Connection<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsFd;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpStream, UnixStream};

    use super::super::socket::Socket;
    use super::super::tests;
    use super::*;

    /// A connection over this server side, as of a client at this address.
    fn over<S: Stream + AsFd>(stream: S) -> Connection<Socket<S>> {
        Connection::new(Socket::new(stream, None), std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }

    async fn tcp() -> (Connection<Socket<TcpStream>>, TcpStream) {
        let (server, client) = tests::tcp().await;
        (over(server), client)
    }

    fn unix() -> (Connection<Socket<UnixStream>>, UnixStream) {
        let (server, client) = UnixStream::pair().expect("a pair");
        (over(server), client)
    }

    /// A connection whose stream is another connection: any stream will do.
    fn nested() -> (Connection<Connection<Socket<UnixStream>>>, UnixStream) {
        let (mut inner, client) = unix();
        inner.take_request(0, true);
        let peer = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        (Connection::new(inner, peer), client)
    }

    /// Whether a read waits, as Pingora's does while a request is under way.
    async fn read_waits(connection: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut byte = [0];
        let read =
            poll_fn(|context| Poll::Ready(Pin::new(&mut *connection).poll_read(context, &mut ReadBuf::new(&mut byte))));
        read.await.is_pending()
    }

    async fn next_request_waits<S: Stream>(
        (mut connection, mut client): (Connection<S>, impl AsyncWrite + Unpin),
        at_once: bool,
    ) {
        client.write_all(if at_once { b"first\r\nnext" } else { b"first" }).await.expect("written");
        while connection.buffer().len() < 5 {
            connection.fill(usize::MAX).await.expect("bytes");
        }
        assert_eq!(connection.take_request(5, false), b"first"[..]);
        assert!(read_waits(&mut connection).await);
        if !at_once {
            client.write_all(b"\r\nnext").await.expect("written");
            // Until the runtime has seen the bytes.
            while connection.buffer.is_empty() {
                assert!(read_waits(&mut connection).await);
                tokio::task::yield_now().await;
            }
        }
        assert!(read_waits(&mut connection).await);
        while connection.buffer().len() < 4 {
            connection.fill(usize::MAX).await.expect("bytes");
        }
        assert_eq!(connection.buffer(), b"next");
    }

    #[tokio::test]
    async fn the_next_request_waits_for_the_end_of_the_one_before() {
        for at_once in [true, false] {
            next_request_waits(tcp().await, at_once).await;
            next_request_waits(unix(), at_once).await;
            next_request_waits(nested(), at_once).await;
        }
    }

    #[tokio::test]
    async fn a_pipelining_client_fills_one_read_and_no_more() {
        let (mut connection, mut client) = tcp().await;
        client.write_all(b"first").await.expect("written");
        connection.fill(usize::MAX).await.expect("bytes");
        connection.take_request(5, false);
        client.write_all(&[b'x'; 20_000]).await.expect("written");
        while connection.buffer.is_empty() {
            assert!(read_waits(&mut connection).await);
            tokio::task::yield_now().await;
        }
        assert!(read_waits(&mut connection).await);
        assert!(connection.buffer().len() <= READ_SIZE, "{}", connection.buffer().len());
    }

    #[tokio::test]
    async fn a_client_that_leaves_while_its_request_is_under_way_is_noticed() {
        async fn end_is_read<S: Stream>((mut connection, mut client): (Connection<S>, impl AsyncWrite + Unpin)) {
            client.write_all(b"first").await.expect("written");
            connection.fill(usize::MAX).await.expect("bytes");
            connection.take_request(5, false);
            drop(client);
            assert_eq!(connection.read(&mut [0; 8]).await.expect("the end"), 0);
        }
        end_is_read(tcp().await).await;
        end_is_read(unix()).await;
        end_is_read(nested()).await;
    }

    #[tokio::test]
    async fn a_body_and_frames_are_handed_on_whole() {
        for step in [1, 3, 100] {
            let (mut connection, mut client) = tcp().await;
            client.write_all(b"preface, and then").await.expect("written");
            connection.fill(usize::MAX).await.expect("bytes");
            connection.start_frames(1000, Duration::from_secs(20));
            client.write_all(b" more").await.expect("written");
            client.shutdown().await.expect("ended");
            let (mut whole, mut part) = (Vec::new(), vec![0; step]);
            loop {
                match connection.read(&mut part).await.expect("readable") {
                    0 => break,
                    length => whole.extend_from_slice(&part[..length]),
                }
            }
            assert_eq!(whole, b"preface, and then more");
        }
    }

    #[tokio::test]
    async fn the_buffer_is_bounded_and_no_larger_than_needed() {
        let (mut connection, mut client) = tcp().await;
        client.write_all(&[b'x'; 10_000]).await.expect("written");
        while connection.buffer().len() < 5000 {
            connection.fill(5000).await.expect("bytes");
            assert!(connection.buffer.capacity() <= 4 * READ_SIZE, "{}", connection.buffer.capacity());
        }
        assert_eq!(connection.buffer().len(), 5000);
    }
}
