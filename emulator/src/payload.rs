//! An answer on its way through hyper: how its body is sent, whole or as a fault has it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode, Version};
use tokio::time::{Instant, Sleep, sleep};

use crate::answer::Answer;
use crate::connection::Connection;
use crate::script;

/// Time between two bytes of a dripping body.
const DRIP: Duration = Duration::from_millis(250);
/// A body is handed over in parts of this size: hyper would copy a larger one.
const PART: usize = 64 * 1024;
/// Size of a body that no client should read to its end.
const HUGE: u64 = 256 * 1024 * 1024;

/// The response for hyper, with a body that is sent as `delivery` says.
pub(crate) fn response(mut answer: Answer, delivery: Delivery, connection: &Arc<Connection>) -> Response<Payload> {
    let bodiless = answer.status == 204 || answer.status == 304;
    if !answer.chunked && !bodiless && !matches!(delivery, Delivery::Huge) && !answer.has("content-length") {
        let length = answer.body.len().to_string();
        answer.headers.push(("Content-Length".to_owned(), length));
    }
    let is_last = delivery == Delivery::UntilClose;
    let mut response = Response::new(Payload::new(answer.body, delivery, connection));
    if is_last {
        *response.version_mut() = Version::HTTP_10;
    }
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// How a body is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// As in HTTP/1.0: the body ends with the connection.
    UntilClose,
    /// The connection is closed (FIN) after this many bytes.
    Cut(u64),
    /// The connection is reset (RST) after half of the body.
    Reset,
    /// One byte at a time.
    Drip,
    /// Pauses for this long after half of the body.
    Pause(Duration),
    /// A body of [`HUGE`] bytes in place of the answer's own.
    Huge,
    /// Not by hyper: written by `script`.
    Script(script::Kind),
}

/// A body being sent.
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
    /// `half` bytes are left before the pause.
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
            let flushes = connection.flushes.count();
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
                    ready!(connection.flushes.poll_beyond(*flushes, context));
                    if *reset {
                        connection.reset.notify_one();
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Err(io::Error::other("cut by a fault"))));
                }
                *flushes = connection.flushes.count();
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
                    // The pause begins once the first half is handed over.
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
        // The answer has a header with the length, or leaves it out on purpose.
        SizeHint::default()
    }
}
