//! One line a request.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind::TimedOut};
use std::net::SocketAddr;
use std::time::Duration;

use log::kv::{self, Source, Value, VisitSource};
use log::{Level, Record};
use oci::authority::MAX_AUTHORITY;
use oci::error::Refusal;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::context::{Cached, ClientRequest, Context, MAX_METHOD};
use super::fail::Trouble;
use super::measure;
use super::registry_error::RegistryError;
use super::trace::Trace;
use crate::answer::MAX_CORRELATION;
use crate::logger::{self, Rest, Word};
use crate::metrics::labels::Kind;
use crate::peer::Peer;

#[cfg(feature = "otlp")]
mod span;

/// The longest path that is a pull has a name, an endpoint and a digest.
const MAX_PATH: usize = 1024;
/// The id of a trace has 32 digits.
const MAX_TRACE: usize = 32;
/// The reason of a failure: a sentence of ours, which may quote two of a server's.
const MAX_ERROR: usize = 1024;

/// `logging`: who, what, outcome, how long.
pub(crate) fn line(session: &Session, error: Option<&Error>, context: &mut Context) {
    let client_request = context.take_client_request();
    #[cfg(feature = "otlp")]
    let begun = context.take_span();
    let request = session.req_header();
    let line = Line {
        method: request.method.as_str(),
        path: request.uri.path(),
        status: session.response_written().map_or(0, |response| response.status.as_u16()),
        sent: session.body_bytes_sent(),
        client: client_request.and_then(|request| request.client),
        peer: session.digest().and_then(Peer::of),
        outcome: Outcome::of(error, context),
        ..Line::of(context)
    };
    #[cfg(feature = "otlp")]
    if let Some(begun) = begun {
        span::end(begun, &line, Some(request));
    }
    line.write();
}

/// A request that is dropped before its end, as at the end of a drain, has its line, too.
impl Drop for Context {
    fn drop(&mut self) {
        if let Some(ClientRequest { method, uri, client }) = self.take_client_request() {
            measure::cut_off(self);
            #[cfg(feature = "otlp")]
            let begun = self.take_span();
            let (method, path) = (method.as_str(), uri.path());
            let line = Line { method, path, client, outcome: Outcome::CutOff, ..Line::of(self) };
            #[cfg(feature = "otlp")]
            if let Some(begun) = begun {
                span::end(begun, &line, None);
            }
            line.write();
        }
    }
}

/// The same for bytes that were refused before they became a request: method and path are not known, and nothing was asked
/// of a registry. The log has so many such lines a second.
pub(crate) fn refused_header(client: Option<SocketAddr>, peer: Option<&Peer>, refusal: &Refusal, elapsed: Duration) {
    let (status, sent) = (refusal.status().as_u16(), refusal.body().len());
    let outcome = Outcome::Refused(refusal.message());
    let line = Line { status, sent, elapsed, client, peer, outcome, ..Line::EMPTY };
    line.write_if_there_is_room();
}

/// The same of one that is answered without a body.
pub(crate) fn refused_bodiless(client: Option<SocketAddr>, peer: Option<&Peer>, refusal: &Refusal) {
    let outcome = Outcome::Refused(refusal.message());
    let line = Line { status: refusal.status().as_u16(), client, peer, outcome, ..Line::EMPTY };
    line.write_if_there_is_room();
}

/// The same where no answer was possible, as in a TLS handshake.
pub(crate) fn no_answer(client: Option<SocketAddr>, error: &str, elapsed: Duration) {
    let line = Line { elapsed, client, outcome: Outcome::Refused(error), ..Line::EMPTY };
    line.write_if_there_is_room();
}

impl<'a> Line<'a> {
    /// Of nothing.
    const EMPTY: Self = Self {
        method: "",
        path: "",
        status: 0,
        sent: 0,
        elapsed: Duration::ZERO,
        client: None,
        repository: "",
        upstream: None,
        tries: 0,
        route: "",
        kind: "",
        first_byte: None,
        asking: None,
        cached: None,
        storage: None,
        trace: None,
        correlation: None,
        peer: None,
        sampled: 1,
        outcome: Outcome::Answered,
    };

    /// Gives it to the log; of successes as many as `log.sample` says.
    fn write(mut self) {
        let level = self.outcome.level();
        if level > log::max_level() {
            return;
        }
        if self.is_success() {
            let (is_taken, of) = logger::sample();
            if !is_taken {
                return;
            }
            self.sampled = of;
        }
        let logger = log::logger();
        let mut record = Record::builder();
        record.level(level).target("access").key_values(&self);
        logger.log(&record.args(format_args!("{self}")).build());
    }

    /// The same of what is no request, of which there may be any number.
    fn write_if_there_is_room(self) {
        if self.outcome.level() <= log::max_level() && logger::has_room() {
            self.write();
        }
    }

    fn is_success(&self) -> bool {
        matches!(self.outcome, Outcome::Answered) && (1..400).contains(&self.status)
    }

    /// What the context knows by itself.
    fn of(context: &'a Context) -> Self {
        let admitted = context.if_admitted();
        let attempts = admitted.map(|admitted| &admitted.attempts);
        let flown = context.flown();
        let asking = context.asking();
        Self {
            status: context.status(),
            sent: context.body_bytes(),
            elapsed: context.elapsed(),
            repository: admitted.map_or("", |admitted| admitted.target.repository()),
            upstream: attempts.and_then(|attempts| attempts.address()).or(flown.and_then(|trip| trip.address)),
            tries: context.tries(),
            route: admitted.map_or("", |admitted| admitted.destination.route.as_str()),
            kind: measure::kind(context).map_or("", Kind::name),
            first_byte: context.first_byte(),
            asking: (!asking.is_zero()).then_some(asking),
            cached: context.cached(),
            trace: context.trace().map(Trace::id),
            storage: (attempts.and_then(|attempts| attempts.storage()).map(|storage| storage.host()))
                .or(flown.and_then(|trip| trip.storage.as_deref())),
            correlation: context.correlation(context.trouble()).map(|value| String::from_utf8_lossy(value.as_bytes())),
            ..Self::EMPTY
        }
    }
}

/// The fields are an allow-list: no header of either side but ACR's correlation id, and no query, which in a redirect
/// contains a signature. Every field that others can choose is a bounded word; the error, which is free text, comes last.
struct Line<'a> {
    method: &'a str,
    path: &'a str,
    /// 0 if nothing was sent.
    status: u16,
    sent: usize,
    elapsed: Duration,
    client: Option<SocketAddr>,
    repository: &'a str,
    upstream: Option<SocketAddr>,
    tries: usize,
    /// The source of the route, and what of it is asked for; empty if the request did not get that far.
    route: &'a str,
    kind: &'static str,
    /// To the header of the answer.
    first_byte: Option<Duration>,
    /// What of `elapsed` the registry took to answer; `None` if it was not asked.
    asking: Option<Duration>,
    cached: Option<Cached>,
    storage: Option<&'a str>,
    trace: Option<&'a str>,
    correlation: Option<Cow<'a, str>>,
    /// How many successes it stands for.
    sampled: u32,
    peer: Option<&'a Peer>,
    outcome: Outcome<'a>,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {}B {}ms client={} repository={} upstream={} tries={} route={} kind={} ttfb={} registry={}",
            Word(self.method, MAX_METHOD),
            Word(self.path, MAX_PATH),
            self.status,
            self.sent,
            self.elapsed.as_millis(),
            Address(self.client),
            Word(self.repository, MAX_PATH),
            Address(self.upstream),
            self.tries,
            Word(self.route, MAX_AUTHORITY),
            Word(self.kind, MAX_METHOD),
            Milliseconds(self.first_byte),
            Milliseconds(self.asking),
        )?;
        if let Some((prefix, name)) = self.cache() {
            write!(f, " cache={prefix}{name}")?;
        }
        if let Some(storage) = self.storage {
            write!(f, " storage={}", Word(storage, MAX_AUTHORITY))?;
        }
        if let Some(trace) = self.trace {
            write!(f, " trace={}", Word(trace, MAX_TRACE))?;
        }
        if self.sampled > 1 {
            write!(f, " sampled={}", self.sampled)?;
        }
        if let Some(correlation) = &self.correlation {
            write!(f, " correlation={}", Word(correlation, MAX_CORRELATION))?;
        }
        if let Some(peer) = self.peer {
            write!(f, " tls={}", peer.version)?;
            if let Some(name) = peer.names.first() {
                write!(f, " certificate={}", Word(name.as_str(), MAX_AUTHORITY))?;
            }
        }
        self.outcome.fmt(f)
    }
}

impl Line<'_> {
    /// What the cache did.
    fn cache(&self) -> Option<(&'static str, &'static str)> {
        match self.cached? {
            Cached::Here(how) => Some(("", how.name())),
            Cached::Passed(reason) => Some(("pass:", reason.name())),
        }
    }
}

/// The same fields as keys and values, for JSON; one that has nothing is left out. Times are in milliseconds, to the
/// microsecond. The format bounds and escapes the texts.
impl Source for Line<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        let text = |text: &'kvs str| Some(Value::from(text)).filter(|_| !text.is_empty());
        let address = |address: &'kvs Option<SocketAddr>| address.as_ref().map(Value::from_display);
        let milliseconds = |time: Duration| Value::from(time.as_micros() as f64 / 1000.0);
        let cache = self.cached.map(|cached| match cached {
            Cached::Here(how) => Value::from(how.name()),
            Cached::Passed(_) => Value::from("pass"),
        });
        let reason = match self.cached {
            Some(Cached::Passed(reason)) => Some(Value::from(reason.name())),
            _ => None,
        };
        let certificate = self.peer.and_then(|peer| peer.names.first()).map(|name| name.as_str());
        for (key, value) in [
            ("method", text(self.method)),
            ("path", text(self.path)),
            ("status", Some(Value::from(self.status))),
            ("bytes", Some(Value::from(self.sent))),
            ("elapsed_ms", Some(milliseconds(self.elapsed))),
            ("ttfb_ms", self.first_byte.map(milliseconds)),
            ("registry_ms", self.asking.map(milliseconds)),
            ("client", address(&self.client)),
            ("route", text(self.route)),
            ("kind", text(self.kind)),
            ("repository", text(self.repository)),
            ("upstream", address(&self.upstream)),
            ("tries", Some(Value::from(self.tries))),
            ("cache", cache),
            ("cache_reason", reason),
            ("storage", self.storage.map(Value::from)),
            ("trace", self.trace.map(Value::from)),
            ("sampled", (self.sampled > 1).then(|| Value::from(self.sampled))),
            ("correlation", self.correlation.as_deref().map(Value::from)),
            ("tls", self.peer.map(|peer| Value::from(peer.version))),
            ("certificate", certificate.map(Value::from)),
            ("error", self.outcome.error()),
        ] {
            if let Some(value) = value {
                visitor.visit_pair(key.into(), value)?;
            }
        }
        Ok(())
    }
}

/// How a request went, as far as there is something to say.
enum Outcome<'a> {
    Answered,
    /// The request was not admitted, and the client was told why.
    Refused(&'a str),
    /// The client may not pull, or not that often, or its request is malformed, and it was told so.
    Denied(&'a Trouble),
    /// The client did not take its answer, as engines often do when they have what they need.
    Left(&'static str),
    Failed(&'a Trouble),
    /// The registry's own error was the answer.
    Registry(&'a RegistryError),
    /// The process ended first.
    CutOff,
    /// An error without a row in the table of failures.
    Broken(&'a Error),
}

impl<'a> Outcome<'a> {
    fn of(error: Option<&'a Error>, context: &'a Context) -> Self {
        match (context.trouble(), error, context.refusal()) {
            (Some(Trouble::Malformed), Some(error), _) => Self::Left(left(error)),
            (Some(trouble), ..) if trouble.is_clients() => Self::Denied(trouble),
            (Some(trouble), ..) => Self::Failed(trouble),
            (None, Some(error), _) if *error.esource() == ErrorSource::Downstream => Self::Left(left(error)),
            (None, Some(error), _) => Self::Broken(error),
            (None, None, Some(refusal)) => Self::Refused(refusal.message()),
            (None, None, None) => context.registry_error().map_or(Self::Answered, Self::Registry),
        }
    }

    /// What clients do is not a warning: nobody has to act on it. Nor is what the registry has said to one of them.
    fn level(&self) -> Level {
        match self {
            Self::Answered | Self::Refused(_) | Self::Denied(_) | Self::Left(_) | Self::Registry(_) => Level::Info,
            Self::Failed(_) | Self::CutOff | Self::Broken(_) => Level::Warn,
        }
    }
}

impl Outcome<'_> {
    /// The `error` of JSON, if there is one.
    fn error(&self) -> Option<Value<'_>> {
        match self {
            Self::Answered => None,
            Self::Refused(why) => Some(Value::from(*why)),
            Self::Denied(trouble) => Some(Value::from_display(*trouble)),
            Self::Left(how) => Some(Value::from(*how)),
            Self::Failed(trouble) => Some(Value::from_display(*trouble)),
            Self::Registry(error) => Some(Value::from_display(*error)),
            Self::CutOff => Some(Value::from("cut off")),
            Self::Broken(error) => Some(Value::from(error.etype().as_str())),
        }
    }
}

/// The whole `error` field, or nothing.
impl Display for Outcome<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => Ok(()),
            Self::Refused(why) => write!(f, " error={}", Rest(why, MAX_ERROR)),
            Self::Denied(trouble) => write!(f, " error={}", Rest(trouble, MAX_ERROR)),
            Self::Left(how) => write!(f, " error={how}"),
            Self::Failed(trouble) => write!(f, " error={}", Rest(trouble, MAX_ERROR)),
            Self::Registry(error) => write!(f, " error={}", Rest(error, MAX_ERROR)),
            Self::CutOff => f.write_str(" error=cut off"),
            Self::Broken(error) => write!(f, " error={} {}", error.esource().as_str(), error.etype().as_str()),
        }
    }
}

/// Whether the client has taken too little of its answer in the time that it has for that.
pub(crate) fn is_slow_reader(error: &Error) -> bool {
    let is_late = || error.root_cause().downcast_ref().is_some_and(|cause: &io::Error| cause.kind() == TimedOut);
    *error.esource() == ErrorSource::Downstream
        && match error.etype() {
            ErrorType::WriteTimedout => true,
            ErrorType::WriteError => is_late(),
            _ => false,
        }
}

/// What the client did.
fn left(error: &Error) -> &'static str {
    if is_slow_reader(error) {
        return "client takes its answer too slowly: limits.slow_reader_bytes_per_second is the least";
    }
    match error.etype() {
        ErrorType::ReadTimedout => "client sent half a request",
        ErrorType::InvalidHTTPHeader => "client sent no valid HTTP",
        _ => "client left",
    }
}

/// A time, or a dash.
struct Milliseconds(Option<Duration>);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{}ms", time.as_millis()),
            None => f.write_str("-"),
        }
    }
}

/// An address, which needs no escaping, or a dash.
struct Address(Option<SocketAddr>);

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests;
