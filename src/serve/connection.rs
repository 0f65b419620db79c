//! A client's connection, as Pingora wants it: bytes, with buffers of our own size.
//!
//! Pingora's own type fills a read buffer of 64 KiB with zeros for each connection, of which dockerd opens one a request;
//! it writes what is longer than 1,460 bytes in two pieces, header and manifest, and so wakes the client twice; and it
//! asks the clock on each read and write that has to wait.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream, ReadBuf};
use tokio::net::TcpStream;

/// A request's header has less than 1 KiB, and its body, if it has one, is not read.
const READ_BUFFER: usize = 4 << 10;
/// A header and the manifest behind it leave together; layers, which come in larger pieces, pass it by.
const WRITE_BUFFER: usize = 16 << 10;
/// HTTP/2's preface, the longest that is looked at before it is read (RFC 9113 section 3.4).
const MAX_PEEK: usize = 24;

/// A TCP connection that was accepted.
#[derive(Debug)]
pub struct Connection {
    stream: BufStream<TcpStream>,
    /// Looked at already, and still to be read: the last `peeked` bytes.
    front: [u8; MAX_PEEK],
    peeked: usize,
    digest: Arc<SocketDigest>,
    established: SystemTime,
}

impl Connection {
    /// Of a listener whose connections are without delay; see [`super::listener`].
    pub fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // Known already, which saves asking the kernel; nobody else has set it.
        let _ = digest.peer_addr.set(Some(peer.into()));
        Self {
            stream: BufStream::with_capacity(READ_BUFFER, WRITE_BUFFER, stream),
            front: [0; MAX_PEEK],
            peeked: 0,
            digest: Arc::new(digest),
            established: SystemTime::now(),
        }
    }
}

impl AsyncRead for Connection {
    /// What was looked at comes first, with what is there behind it: half a header would only be parsed twice.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.peeked == 0 {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let first = MAX_PEEK - self.peeked;
        let length = self.peeked.min(buffer.remaining());
        // `peeked` is at most MAX_PEEK, and `length` at most `peeked`.
        buffer.put_slice(self.front.get(first..first + length).unwrap_or_default());
        self.peeked -= length;
        if buffer.remaining() > 0 {
            // An error is told again by the next read.
            let _ = Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        Poll::Ready(Ok(()))
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

#[async_trait]
impl Peek for Connection {
    /// Waits for as many bytes as `bytes` holds, [`MAX_PEEK`] at most, and leaves them to be read.
    async fn try_peek(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        if bytes.len() > MAX_PEEK {
            return Ok(false);
        }
        self.read_exact(bytes).await?;
        // What was read may have been looked at before, and its rest is still in front.
        let rest = self.peeked;
        let Some(first) = MAX_PEEK.checked_sub(rest + bytes.len()) else {
            return Ok(false);
        };
        if let Some(front) = self.front.get_mut(first..first + bytes.len()) {
            front.copy_from_slice(bytes);
            self.peeked = rest + bytes.len();
        }
        Ok(true)
    }
}

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
        let _ = Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().as_raw_fd()
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

    #[tokio::test]
    async fn what_was_looked_at_is_read_once_and_in_order() {
        let text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more";
        for looks in [&[3][..], &[24], &[3, 24], &[24, 3], &[3, 3, 24]] {
            for step in [1, 2, 3, 5, 24, 100] {
                let (mut connection, mut client) = pair().await;
                client.write_all(text).await.expect("written");
                client.shutdown().await.expect("ended");
                for length in looks {
                    let mut seen = vec![0; *length];
                    assert!(connection.try_peek(&mut seen).await.expect("enough is there"));
                    assert_eq!(seen, text[..*length]);
                }
                let (mut whole, mut part) = (Vec::new(), vec![0; step]);
                loop {
                    let length = connection.read(&mut part).await.expect("readable");
                    if length == 0 {
                        break;
                    }
                    whole.extend_from_slice(&part[..length]);
                }
                assert_eq!(whole, text, "{looks:?} {step}");
            }
        }
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
