//! Who may pull, and how much of this proxy one client may have. What a client is refused here costs next to nothing, is asked
//! of no registry, and is counted by its reason.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use oci::error::Code;

mod bounds;
mod certificate;
mod client;
mod connected;
mod network;
mod rate;
mod refusals;
mod share;
mod turns;

use connected::Connected;
use rate::Rates;

pub(crate) use bounds::Bounds;
pub(crate) use certificate::{Certificates, MAX_NAME, Name, NamePattern};
pub(crate) use client::Client;
pub(crate) use connected::{Handshaking, Place, UnderWay};
pub(crate) use network::{Network, Networks};
pub(crate) use rate::Rate;
pub(crate) use refusals::{Reason, Refusals};
pub(crate) use share::Share;
pub(crate) use turns::Turns;

/// Connections that are refused, by these rules or because there are too many in all, and are given the time to read why; further
/// ones are closed at once.
const MAX_ANSWERS: usize = 64;
/// Requests that are refused and wait until their client takes the words for it; further ones get status and header alone. Over HTTP/2
/// a client may keep its window closed, and each that waits has its memory.
const MAX_TOLD: usize = 256;

/// Which clients may pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// The networks that may; none are all.
    pub allow: Networks,
    /// The networks that may not, even within an allowed one.
    pub deny: Networks,
    /// The certificates that may, wherever they come from; none are all, and clients that have none.
    pub certificates: Certificates,
}

impl Access {
    /// Whether a client needs a certificate with a name that is allowed.
    pub(crate) fn asks_for_names(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Whether a client of this address may pull, as far as that depends on it.
    pub(crate) fn lets_in(&self, address: IpAddr) -> bool {
        self.check(address).is_ok()
    }

    fn check(&self, address: IpAddr) -> Result<(), Denial> {
        let is_allowed = self.allow.is_empty() || self.allow.contains(address);
        if is_allowed && !self.deny.contains(address) { Ok(()) } else { Err(Denial::Network(address)) }
    }

    fn check_certificate(&self, address: Option<IpAddr>, names: Option<&[Name]>) -> Result<(), Denial> {
        if !self.asks_for_names() || (address.is_none() && names.is_none()) {
            return Ok(());
        }
        let names = names.unwrap_or_default();
        if self.certificates.have_one_of(names) {
            Ok(())
        } else {
            Err(Denial::Certificate { is_shown: !names.is_empty() })
        }
    }
}

/// What one client may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerClient {
    /// Connections at once; `None` is no limit.
    pub connections: Option<NonZeroUsize>,
    /// Requests under way at once.
    pub share: Share,
    /// Requests; `None` is no limit.
    pub requests: Option<Rate>,
}

/// The settings of [`Gate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Who may pull.
    pub access: Access,
    /// How much of it.
    pub per_client: PerClient,
    /// What everybody keeps to.
    pub bounds: Bounds,
}

/// What every client passes, by its true address: at the begin of a connection, and with each request.
#[derive(Debug)]
pub(crate) struct Gate {
    rules: ArcSwap<Rules>,
    connected: Arc<Connected>,
    rates: Rates,
    refusals: Refusals,
    answers: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

/// Why a client does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// Its address may not pull.
    Network(IpAddr),
    /// It has shown no certificate, or none that may pull.
    Certificate {
        /// It has shown one.
        is_shown: bool,
    },
    /// It has as many connections as one client may have.
    Connections(IpAddr),
    /// It has as many requests under way as one client may have.
    Requests(IpAddr),
    /// It has made as many requests as one client may, and may make the next one after this.
    Rate(IpAddr, Duration),
}

impl Gate {
    /// With these rules, until [`Self::replace`].
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules),
            connected: Arc::default(),
            rates: Rates::new(),
            refusals: Refusals::new(),
            answers: Arc::default(),
            told: Arc::default(),
        }
    }

    /// Other rules from now on, also for the next request on a connection that is open. What clients have used stays used.
    pub(crate) fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// Whether a client needs a certificate with a name that is allowed.
    pub(crate) fn asks_for_names(&self) -> bool {
        self.rules.load().access.asks_for_names()
    }

    /// What connections and requests keep to from now on.
    pub(crate) fn bounds(&self) -> Bounds {
        self.rules.load().bounds
    }

    /// Whether the certificate of a connection's client, whose names these are, may pull; `None` is a connection without TLS. A
    /// Unix socket's client without an address and without TLS passes here as well.
    pub(crate) fn certificate(&self, address: Option<IpAddr>, names: Option<&[Name]>) -> Result<(), Denial> {
        let rules = self.rules.load();
        rules.access.check_certificate(address, names).map_err(|denial| self.count(denial))
    }

    /// A connection begins. A Unix socket's client without an address passes: the socket's permissions have let it.
    pub(crate) fn connect(&self, address: Option<IpAddr>) -> Result<Option<Arc<Place>>, Denial> {
        let Some(address) = address else { return Ok(None) };
        let rules = self.rules.load();
        rules.access.check(address).map_err(|denial| self.count(denial))?;
        match self.connected.enter(address.into(), rules.per_client.connections) {
            Some(place) => Ok(Some(place)),
            None => Err(self.count(Denial::Connections(address))),
        }
    }

    /// A handshake of TLS begins on a connection that has this place, and so many more could be under way. `None` if its client has
    /// its part of all. The part does not depend on `limits`: handshakes are over within milliseconds, also of many hosts that
    /// are one client.
    pub(crate) fn shake_hands(place: &Place, left: usize) -> Option<Handshaking> {
        let (handshaking, own) = place.shake_hands();
        Share::Fair.covers(own, left).then_some(handshaking)
    }

    /// A request comes, whose header was read at `now`. `names` looks up those of its client's certificate. `place` is its
    /// connection's, of a client with an address; so many places for requests are left for everybody. It is under way as long
    /// as what is returned.
    pub(crate) fn request<'a>(
        &self,
        address: Option<IpAddr>,
        names: impl FnOnce() -> Option<&'a [Name]>,
        (place, left): (Option<Arc<Place>>, usize),
        now: Instant,
    ) -> Result<Option<UnderWay>, Denial> {
        let rules = self.rules.load();
        // Its names are looked up only where they count.
        if rules.access.asks_for_names() {
            rules.access.check_certificate(address, names()).map_err(|denial| self.count(denial))?;
        }
        let Some(address) = address else { return Ok(None) };
        rules.access.check(address).map_err(|denial| self.count(denial))?;
        let begun = place.map(Place::begin);
        if let Some((_, own)) = begun
            && !rules.per_client.share.covers(own, left)
        {
            return Err(self.count(Denial::Requests(address)));
        }
        if let Some(rate) = rules.per_client.requests {
            (self.rates.take(address.into(), rate, now)).map_err(|left| self.count(Denial::Rate(address, left)))?;
        }
        Ok(begun.map(|(under_way, _)| under_way))
    }

    /// A place among those who are told why they are refused, until it is dropped; `None` if there are as many as may be.
    pub(crate) fn answer(&self) -> Option<Answer> {
        Answer::within(MAX_ANSWERS, &self.answers)
    }

    /// The same among the requests that are refused.
    pub(crate) fn tell(&self) -> Option<Answer> {
        Answer::within(MAX_TOLD, &self.told)
    }

    /// What clients were refused.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether the refusal of this client may have a line in the log.
    pub(crate) fn may_be_logged(&self, address: Option<IpAddr>, now: Instant) -> bool {
        self.refusals.may_be_logged(address.map(Client::from), now)
    }

    fn count(&self, denial: Denial) -> Denial {
        self.refusals.count(denial.reason());
        denial
    }
}

/// Held while a client reads why it is refused.
#[derive(Debug)]
pub(crate) struct Answer(Arc<AtomicUsize>);

impl Answer {
    fn within(most: usize, count: &Arc<AtomicUsize>) -> Option<Self> {
        let answer = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::AcqRel) < most).then_some(answer)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Denial {
    /// What it counts as.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Network(_) => Reason::Network,
            Self::Certificate { .. } => Reason::Certificate,
            Self::Connections(_) => Reason::Connections,
            Self::Requests(_) => Reason::Requests,
            Self::Rate(..) => Reason::Rate,
        }
    }

    /// Status, code, and how long the client should wait.
    pub(crate) fn answer(self) -> (StatusCode, Code, Option<Duration>) {
        match self {
            Self::Network(_) | Self::Certificate { .. } => (StatusCode::FORBIDDEN, Code::Denied, None),
            Self::Connections(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, Some(Duration::from_secs(1))),
            Self::Requests(_) => (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, Some(Duration::from_secs(1))),
            Self::Rate(_, left) => (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, Some(left)),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Network(address) => write!(
                f,
                "{} may not pull here: whoever runs this proxy decides that by access.allow and access.deny",
                address.to_canonical()
            ),
            Self::Certificate { is_shown: true } => f.write_str(
                "the client's certificate may not pull here: whoever runs this proxy decides that by access.certificates",
            ),
            Self::Certificate { is_shown: false } => f.write_str(
                "the client shows no certificate with a name, and may not pull here without one of access.certificates",
            ),
            Self::Connections(address) => {
                let client = Client::from(address);
                write!(f, "{client} has too many connections open: limits.connections_per_client is the most")
            }
            Self::Requests(address) => {
                let client = Client::from(address);
                write!(
                    f,
                    "{client} has too many requests under way: limits.concurrent_requests_per_client says how many one client may have"
                )
            }
            Self::Rate(address, _) => {
                let client = Client::from(address);
                write!(f, "{client} asks too often: limits.requests_per_second_per_client is the most")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|text| Network::parse(text).expect("a network")).collect())
    }

    #[test]
    fn deny_wins_and_no_allow_is_everybody() {
        for (allow, deny, address, passes) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "192.0.2.1", false),
            (&["10.0.0.0/8"], &[], "::1", false),
            (&["10.0.0.0/8"], &["10.9.0.0/16"], "10.9.0.1", false),
            (&["10.9.0.1"], &["10.0.0.0/8"], "10.9.0.1", false),
            (&[], &["10.0.0.0/8"], "::ffff:10.1.2.3", false),
            (&[], &["10.0.0.0/8"], "192.0.2.1", true),
            (&["0.0.0.0/0"], &[], "fd00::1", false),
            (&["0.0.0.0/0", "::/0"], &[], "fd00::1", true),
        ] {
            let access = Access { allow: networks(allow), deny: networks(deny), ..Access::default() };
            let gate = Gate::new(Rules { access, ..Rules::default() });
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(
                gate.request(Some(address), || None, (None, 8), Instant::now()).is_ok(),
                passes,
                "{allow:?} {deny:?} {address}"
            );
            assert_eq!(gate.connect(Some(address)).is_ok(), passes, "{allow:?} {deny:?} {address}");
            assert_eq!(gate.refusals().get(Reason::Network), if passes { 0 } else { 2 });
            assert!(gate.connect(None).is_ok(), "a Unix socket's permissions decide");
        }
    }

    #[test]
    fn other_rules_count_for_the_next_request() {
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let gate = Gate::new(Rules::default());
        assert!(gate.request(address, || None, (None, 8), Instant::now()).is_ok());
        gate.replace(Rules {
            access: Access { deny: networks(&["192.0.2.0/24"]), ..Access::default() },
            ..Rules::default()
        });
        assert!(gate.request(address, || None, (None, 8), Instant::now()).is_err());
    }

    #[test]
    fn few_are_told_at_once_why_they_are_refused() {
        let gate = Gate::new(Rules::default());
        let told: Vec<_> = (0..MAX_ANSWERS + 9).map_while(|_| gate.answer()).collect();
        assert_eq!(told.len(), MAX_ANSWERS);
        assert!(gate.answer().is_none());
        drop(told);
        assert!(gate.answer().is_some(), "and there is room again");
    }
}
