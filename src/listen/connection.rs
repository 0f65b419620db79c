//! A client's connection: it gathers a request's header by itself, and gives Pingora the bytes of one request and no more.
//!
//! Pingora's own type fills a read buffer of 64 KiB with zeros for each connection, of which dockerd opens one a request;
//! it writes what is longer than 1,460 bytes in two pieces, header and manifest, and so wakes the client twice; it asks the
//! clock on each read and write that has to wait, and writes headers and the end of a body without any limit.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::Frames;
use super::header;
use crate::proxy::CLIENT_WRITE_LIMIT;

/// Real headers have less than 1 KiB and come in one read. What is unfinished takes no more room than it has bytes, doubled.
const FIRST_READ: usize = 2 << 10;
/// A header and the manifest behind it leave together; layers, which come in larger pieces, pass it by.
const WRITE_BUFFER: usize = 16 << 10;
/// A TCP connection that was accepted.
#[derive(Debug)]
pub struct Connection {
    stream: BufWriter<Socket>,
    /// Read, and not handed on yet.
    front: BytesMut,
    reading: Reading,
    digest: Arc<SocketDigest>,
    established: SystemTime,
}

/// What of the connection's bytes is to be read while a request is under way.
#[derive(Debug)]
enum Reading {
    /// None, for the request has no body: what comes is the next request, and waits. Only the client's leaving is noticed.
    End { more_waits: bool },
    /// All of them: a body, behind which nothing is served.
    Body,
    /// All of them, as frames.
    Frames(Frames),
}

impl Connection {
    /// Of a listener whose connections are without delay; see [`super::listener`].
    pub fn new(tcp: TcpStream, peer: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
        // Known already, which saves asking the kernel; nobody else has set it.
        let _ = digest.peer_addr.set(Some(peer.into()));
        let socket = Socket { tcp, stall: None, is_stalled: false, is_dropped: false };
        Self {
            stream: BufWriter::with_capacity(WRITE_BUFFER, socket),
            front: BytesMut::new(),
            reading: Reading::End { more_waits: false },
            digest: Arc::new(digest),
            established: SystemTime::now(),
        }
    }

    /// What was read and not handed on. Empty lines before a request are none of it.
    pub fn front(&mut self) -> &[u8] {
        self.front.advance(header::empty_lines(&self.front));
        &self.front
    }

    /// Waits for bytes and puts them behind [`Self::front`], which is never longer than `most`; 0 is the end of the
    /// connection. Nothing is lost if it is dropped on its way.
    pub async fn fill(&mut self, most: usize) -> io::Result<usize> {
        let tcp = &mut self.stream.get_mut().tcp;
        // A connection that is silent takes no room.
        poll_fn(|context| tcp.poll_read_ready(context)).await?;
        let length = self.front.len();
        if self.front.capacity() == length {
            self.front.reserve(length.max(FIRST_READ));
        }
        tcp.read_buf(&mut (&mut self.front).limit(most.saturating_sub(length))).await
    }

    /// Takes the header of a request, so many bytes of [`Self::front`]. Without a body, what is behind it stays here; a
    /// body is handed over as far as it is there.
    pub fn take_request(&mut self, header: usize, has_body: bool) -> BytesMut {
        self.reading = if has_body { Reading::Body } else { Reading::End { more_waits: false } };
        if has_body || header == self.front.len() {
            // Whole, and not as a part of a buffer that is shared from then on.
            return std::mem::take(&mut self.front);
        }
        self.front.split_to(header)
    }

    /// Hands on what comes as HTTP/2, beginning with `preface` bytes that are no frames.
    pub fn take_frames(&mut self, preface: usize) {
        let mut frames = Frames::new(preface);
        frames.read(&self.front);
        self.reading = Reading::Frames(frames);
    }

    /// The socket itself, between requests, when nothing is left to be written.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream.get_mut().tcp
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if let Reading::End { more_waits } = &mut me.reading {
            // Nobody is woken: the next request is read when this one has ended.
            if *more_waits || !me.front.is_empty() {
                return Poll::Pending;
            }
            let mut byte = [0];
            let length = ready!(me.stream.get_ref().tcp.poll_peek(context, &mut ReadBuf::new(&mut byte)))?;
            *more_waits = length > 0;
            return if *more_waits { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        if !me.front.is_empty() {
            let length = me.front.len().min(buffer.remaining());
            buffer.put_slice(&me.front.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let state = Pin::new(&mut me.stream.get_mut().tcp).poll_read(context, buffer);
        if let Reading::Frames(frames) = &mut me.reading {
            frames.read(buffer.filled().get(before..).unwrap_or_default());
            if state.is_pending() && frames.poll_overdue(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        state
    }
}

impl AsyncWrite for Connection {
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

    /// No half of a connection is ever closed: Pingora drops it right after this, and the kernel's close says the rest.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

/// The socket, of which a write fails when the client takes nothing for [`CLIENT_WRITE_LIMIT`], whoever writes what.
#[derive(Debug)]
struct Socket {
    tcp: TcpStream,
    /// Made at the first write that has to wait.
    stall: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
    /// There may be no runtime any more, and so no clock.
    is_dropped: bool,
}

impl Socket {
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
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

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// Nothing is looked at before it is read: which protocol it is has been found out before Pingora has the connection.
impl Peek for Connection {}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // A client that has gone needs no last bytes.
        let _ = self.flush().await;
    }
}

impl Drop for Connection {
    /// What there is of an answer that broke off: clients go on from where they got.
    fn drop(&mut self) {
        self.stream.get_mut().is_dropped = true;
        let _ = Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().tcp.as_raw_fd()
    }
}

impl Ssl for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.established, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (stream, peer) = listener.accept().await.expect("accepted");
        (Connection::new(stream, peer), client)
    }

    /// Whether a read waits, as Pingora's does while a request is under way.
    async fn read_waits(connection: &mut Connection) -> bool {
        let mut byte = [0];
        let read =
            poll_fn(|context| Poll::Ready(Pin::new(&mut *connection).poll_read(context, &mut ReadBuf::new(&mut byte))));
        read.await.is_pending()
    }

    #[tokio::test]
    async fn the_next_request_waits_for_the_end_of_the_one_before() {
        for at_once in [true, false] {
            let (mut connection, mut client) = pair().await;
            client.write_all(if at_once { b"first\r\nnext" } else { b"first" }).await.expect("written");
            connection.fill(usize::MAX).await.expect("bytes");
            assert_eq!(connection.take_request(5, false), b"first"[..]);
            assert!(read_waits(&mut connection).await);
            if !at_once {
                client.write_all(b"\r\nnext").await.expect("written");
                connection.stream.get_ref().tcp.readable().await.expect("bytes");
            }
            assert!(read_waits(&mut connection).await && read_waits(&mut connection).await);
            while connection.front().len() < 4 {
                connection.fill(usize::MAX).await.expect("bytes");
            }
            assert_eq!(connection.front(), b"next");
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_while_its_request_is_under_way_is_noticed() {
        let (mut connection, mut client) = pair().await;
        client.write_all(b"first").await.expect("written");
        connection.fill(usize::MAX).await.expect("bytes");
        connection.take_request(5, false);
        drop(client);
        assert_eq!(connection.read(&mut [0; 8]).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn a_body_and_frames_are_handed_on_whole() {
        for step in [1, 3, 100] {
            let (mut connection, mut client) = pair().await;
            client.write_all(b"preface, and then").await.expect("written");
            connection.fill(usize::MAX).await.expect("bytes");
            connection.take_frames(1000);
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
    async fn what_is_gathered_has_a_cap_and_takes_little_room() {
        let (mut connection, mut client) = pair().await;
        client.write_all(&[b'x'; 10_000]).await.expect("written");
        while connection.front().len() < 5000 {
            connection.fill(5000).await.expect("bytes");
            assert!(connection.front.capacity() <= 4 * FIRST_READ, "{}", connection.front.capacity());
        }
        assert_eq!(connection.front().len(), 5000);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut connection, _client) = pair().await;
        // Time goes by itself where all wait; it stood still while the connection was made.
        tokio::time::pause();
        let written = async {
            loop {
                connection.write_all(&[0; 64 << 10]).await?;
            }
        };
        let failed: io::Result<()> = tokio::time::timeout(CLIENT_WRITE_LIMIT * 2, written).await.expect("not for ever");
        assert_eq!(failed.expect_err("no end").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_is_left_of_an_answer_leaves_when_the_connection_is_dropped() {
        let (mut connection, mut client) = pair().await;
        connection.write_all(b"half an answer").await.expect("buffered");
        drop(connection);
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.expect("an end");
        assert_eq!(seen, b"half an answer");
    }
}
