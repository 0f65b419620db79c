//! The bytes of a connection, with or without TLS, and how it is reset.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::lock::lock;

/// Counts the flushes of a connection, so that a body which is cut on purpose is cut only after its first part has really
/// been sent.
#[derive(Default)]
pub(crate) struct Flushes {
    count: AtomicU64,
    waiting: Mutex<Option<Waker>>,
}

impl Flushes {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Ready once more than `seen` flushes are done: everything written before them has been sent.
    pub(crate) fn poll_beyond(&self, seen: u64, context: &Context<'_>) -> Poll<()> {
        *lock(&self.waiting) = Some(context.waker().clone());
        if self.count() > seen { Poll::Ready(()) } else { Poll::Pending }
    }

    fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = lock(&self.waiting).take() {
            waker.wake();
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The bytes of a connection.
pub(crate) struct Wire {
    stream: Stream,
    flushes: Arc<Flushes>,
}

impl Wire {
    pub(crate) fn plain(stream: TcpStream, flushes: Arc<Flushes>) -> Wire {
        Wire { stream: Stream::Plain(stream), flushes }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, flushes: Arc<Flushes>) -> Wire {
        Wire { stream: Stream::Tls(Box::new(stream)), flushes }
    }

    /// Ends the connection by an RST.
    pub(crate) fn reset(self) {
        match self.stream {
            Stream::Plain(stream) => reset(stream),
            Stream::Tls(stream) => reset(stream.into_inner().0),
        }
    }
}

/// Ends a connection by an RST: with a linger time of zero, closing discards what is unsent.
pub(crate) fn reset(stream: TcpStream) {
    // If the option cannot be set, the socket is still closed, by a FIN.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        if let Poll::Ready(Ok(())) = flushed {
            self.flushes.add();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
