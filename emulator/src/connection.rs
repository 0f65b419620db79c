//! One accepted connection: its bytes, and the ways to end it rudely.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::script::Handover;

/// What a request needs to know of the connection that carries it.
pub(crate) struct Connection {
    pub(crate) id: u64,
    /// Rung by a fault that wants the connection reset.
    pub(crate) reset: Notify,
    /// Given by a fault whose answer hyper would not write.
    pub(crate) script: Handover,
    flushes: AtomicU64,
    waiting: Mutex<Option<Waker>>,
}

impl Connection {
    pub(crate) fn new(id: u64) -> Connection {
        Connection {
            id,
            reset: Notify::new(),
            script: Handover::default(),
            flushes: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    /// Ready once more than `seen` flushes are done: what was written before has left.
    pub(crate) fn poll_flushed(&self, seen: u64, context: &Context<'_>) -> Poll<()> {
        *crate::lock(&self.waiting) = Some(context.waker().clone());
        if self.flushes() > seen { Poll::Ready(()) } else { Poll::Pending }
    }

    fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = crate::lock(&self.waiting).take() {
            waker.wake();
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The bytes of a connection, with or without TLS.
///
/// It counts flushes, so that a body that is cut on purpose is cut only after its first part
/// has really been sent.
pub(crate) struct Wire {
    stream: Stream,
    connection: std::sync::Arc<Connection>,
}

impl Wire {
    pub(crate) fn plain(stream: TcpStream, connection: std::sync::Arc<Connection>) -> Wire {
        Wire { stream: Stream::Plain(stream), connection }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, connection: std::sync::Arc<Connection>) -> Wire {
        Wire { stream: Stream::Tls(Box::new(stream)), connection }
    }

    /// Ends the connection by an RST.
    pub(crate) fn reset(self) {
        match self.stream {
            Stream::Plain(stream) => reset(stream),
            Stream::Tls(stream) => reset(stream.into_inner().0),
        }
    }
}

/// Ends a connection by an RST: without lingering, closing throws away what is unsent.
pub(crate) fn reset(stream: TcpStream) {
    // A socket that cannot be told is closed all the same, by a FIN.
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
            self.connection.flushed();
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
