//! An answer before it is sent, and the bodies that carry it, honest or faulty.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode, Version};
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep};

use crate::connection::Connection;
use crate::gzip::Stored;
use crate::script;

/// Time between two bytes of a dripping body.
const DRIP: Duration = Duration::from_millis(250);
/// A body is handed over in parts of this size: hyper would make a copy of a larger one.
const PART: usize = 64 * 1024;
/// Size of a body that no client should read to its end.
const HUGE: u64 = 256 * 1024 * 1024;

/// Status, headers and body, as the servers decide them.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Sent in chunks, without a `Content-Length`.
    pub(crate) chunked: bool,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Bytes::new(), chunked: false }
    }

    pub(crate) fn json(status: u16, value: &Value) -> Answer {
        Answer::new(status).header("Content-Type", "application/json; charset=utf-8").body(value.to_string())
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Answer {
        self.body = body.into();
        self
    }

    pub(crate) fn chunked(mut self) -> Answer {
        self.chunked = true;
        self
    }

    /// Packs the body, if there is one.
    pub(crate) fn gzip(mut self) -> Answer {
        if self.body.is_empty() {
            return self;
        }
        let mut packed = Stored::new();
        packed.write(&self.body);
        self.body = packed.finish().into();
        self.header("Content-Encoding", "gzip")
    }

    /// Replaces a header, or adds it.
    pub(crate) fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// The head of the answer as HTTP/1.1 has it, after which the connection ends.
    pub(crate) fn head(&self) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!(
            "HTTP/1.1 {} {}\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            reason.unwrap_or_default(),
            headers.collect::<String>(),
            self.body.len(),
        )
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name))
    }

    /// The response with a body that behaves as `delivery` says.
    pub(crate) fn into_response(mut self, delivery: Delivery, connection: &Arc<Connection>) -> Response<Payload> {
        let bodiless = self.status == 204 || self.status == 304;
        if !self.chunked && !bodiless && !matches!(delivery, Delivery::Huge) && !self.has("content-length") {
            let length = self.body.len().to_string();
            self.headers.push(("Content-Length".to_owned(), length));
        }
        let mut response = Response::new(Payload::new(self.body, delivery, connection));
        if delivery == Delivery::UntilClose {
            *response.version_mut() = Version::HTTP_10;
        }
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// As HTTP/1.0 does: the end of the connection is that of the body.
    UntilClose,
    /// Ends by a FIN after so many bytes.
    Cut(u64),
    /// Ends by an RST after half of it.
    Reset,
    Drip,
    /// Is silent for so long after half of it.
    Pause(Duration),
    /// Ignores the body for an enormous one.
    Huge,
    /// Not by hyper.
    Script(script::Kind),
}

/// A body on its way.
pub(crate) struct Payload {
    rest: Bytes,
    kind: Kind,
}

enum Kind {
    Whole,
    Broken {
        connection: Arc<Connection>,
        flushes: u64,
        reset: bool,
    },
    Drip(Pin<Box<Sleep>>),
    /// So much of the rest comes before the pause.
    Pause {
        half: usize,
        pause: Pin<Box<Sleep>>,
        length: Duration,
    },
    Huge(u64),
}

impl Payload {
    fn new(body: Bytes, delivery: Delivery, connection: &Arc<Connection>) -> Payload {
        let broken = |length: u64, reset| {
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(body.len());
            let connection = Arc::clone(connection);
            let flushes = connection.flushes();
            (body.slice(..length), Kind::Broken { connection, flushes, reset })
        };
        let (rest, kind) = match delivery {
            Delivery::Whole | Delivery::UntilClose | Delivery::Script(_) => (body, Kind::Whole),
            Delivery::Pause(pause) => {
                let half = body.len() / 2;
                (body, Kind::Pause { half, pause: Box::pin(sleep(pause)), length: pause })
            }
            Delivery::Cut(after) if after >= body.len() as u64 => (body, Kind::Whole),
            Delivery::Cut(after) => broken(after, false),
            Delivery::Reset => broken(body.len() as u64 / 2, true),
            Delivery::Drip => (body, Kind::Drip(Box::pin(sleep(DRIP)))),
            Delivery::Huge => (Bytes::new(), Kind::Huge(HUGE)),
        };
        Payload { rest, kind }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Payload { rest, kind } = &mut *self;
        let next = match kind {
            Kind::Whole => rest.split_to(rest.len().min(PART)),
            Kind::Broken { connection, flushes, reset } => {
                if rest.is_empty() {
                    ready!(connection.poll_flushed(*flushes, context));
                    if *reset {
                        connection.reset.notify_one();
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Err(io::Error::other("cut by a fault"))));
                }
                *flushes = connection.flushes();
                std::mem::take(rest)
            }
            Kind::Drip(timer) => {
                if rest.is_empty() {
                    return Poll::Ready(None);
                }
                ready!(timer.as_mut().poll(context));
                timer.as_mut().reset(Instant::now() + DRIP);
                rest.split_to(1)
            }
            Kind::Pause { half, pause, length } => {
                if *half > 0 {
                    let part = rest.split_to((*half).min(PART));
                    *half -= part.len();
                    // It begins once the half is handed over.
                    pause.as_mut().reset(Instant::now() + *length);
                    part
                } else {
                    ready!(pause.as_mut().poll(context));
                    rest.split_to(rest.len().min(PART))
                }
            }
            Kind::Huge(left) => {
                static BLANK: [u8; 64 * 1024] = [b' '; 64 * 1024];
                let length = (*left).min(BLANK.len() as u64);
                *left -= length;
                Bytes::from_static(&BLANK[..length as usize])
            }
        };
        Poll::Ready(if next.is_empty() { None } else { Some(Ok(Frame::data(next))) })
    }

    fn is_end_stream(&self) -> bool {
        match self.kind {
            Kind::Whole | Kind::Drip(_) | Kind::Pause { .. } => self.rest.is_empty(),
            Kind::Broken { .. } => false,
            Kind::Huge(left) => left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // The length is in a header of the answer, or left out on purpose.
        SizeHint::default()
    }
}
