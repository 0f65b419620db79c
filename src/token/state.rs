//! What the tokens of one registry are now: one value, published whole.
//!
//! The background task is the only writer. Requests that find no token, `/readyz` and the log read the same value, so
//! they agree.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::backoff::WAITED_OUT;
use crate::failure::Failure;
use crate::secret::Secret;

/// A failing call whose repetition has been due for this long is made no more: its request has gone.
const ABANDONED: Duration = Duration::from_secs(60);

/// The sign-in to one registry, and how the calls for access tokens go. Tokens that requests hold are valid until their
/// own end, whatever the state is.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// There is no refresh token, so no access token can be asked for.
    SignedOut {
        /// The failing sign-in; `None` while the first one is under way, at the start or after the registry has refused
        /// the last refresh token.
        failing: Option<Arc<Failing>>,
        access: Access,
    },
    /// There is a refresh token.
    SignedIn {
        login: Arc<Login>,
        /// The renewal of the refresh token fails. Requests do not notice while the present one is valid.
        failing: Option<Arc<Failing>>,
        access: Access,
    },
}

/// How the calls for access tokens go. What concerns a single repository is in that repository's slot.
#[derive(Clone, Debug, Default)]
pub(super) enum Access {
    /// The last call succeeded, or none has been made.
    #[default]
    Working,
    /// The calls fail.
    Failing(Arc<Failing>),
    /// The registry wants fewer calls, whatever their scope: none is made before [`Failing::next`].
    Limited(Arc<Failing>),
}

/// The refresh token, which a sign-in gives.
#[derive(Debug)]
pub(super) struct Login {
    pub token: Secret,
    /// When it was asked for.
    pub asked: Instant,
    pub ends: Instant,
}

/// A failing call: its last failure, since when it fails, and when it is repeated.
#[derive(Debug)]
pub(super) struct Failing {
    pub failure: Arc<Failure>,
    pub since: Instant,
    /// `since` by this host's clock, for people.
    pub since_time: SystemTime,
    pub next: Instant,
}

impl Default for State {
    fn default() -> Self {
        Self::SignedOut { failing: None, access: Access::default() }
    }
}

impl State {
    /// A sign-in has succeeded.
    pub(crate) fn signed_in(&self, login: Login) -> Self {
        Self::SignedIn { login: Arc::new(login), failing: None, access: self.access().clone() }
    }

    /// There is this refresh token, and nothing else is known.
    pub(crate) fn of_login(login: &Arc<Login>) -> Self {
        Self::SignedIn { login: Arc::clone(login), failing: None, access: Access::default() }
    }

    /// A sign-in has failed. A refresh token that is still valid stays in use.
    pub(crate) fn sign_in_failed(&self, failing: Failing) -> Self {
        let mut state = self.clone();
        let (Self::SignedOut { failing: old, .. } | Self::SignedIn { failing: old, .. }) = &mut state;
        *old = Some(Arc::new(failing));
        state
    }

    /// The refresh token has ended, or the registry has refused it. What its renewal said is what requests are told now.
    pub(crate) fn signed_out(&self) -> Self {
        Self::SignedOut { failing: self.sign_in_failing().cloned(), access: self.access().clone() }
    }

    /// The calls for access tokens go differently now.
    pub(crate) fn with_access(&self, new: Access) -> Self {
        let mut state = self.clone();
        let (Self::SignedOut { access, .. } | Self::SignedIn { access, .. }) = &mut state;
        *access = new;
        state
    }

    /// The refresh token, which may have ended a moment ago.
    pub(crate) fn login(&self) -> Option<&Arc<Login>> {
        match self {
            Self::SignedOut { .. } => None,
            Self::SignedIn { login, .. } => Some(login),
        }
    }

    pub(crate) fn access(&self) -> &Access {
        let (Self::SignedOut { access, .. } | Self::SignedIn { access, .. }) = self;
        access
    }

    /// The failing sign-in, or the failing renewal of the refresh token.
    pub(crate) fn sign_in_failing(&self) -> Option<&Arc<Failing>> {
        let (Self::SignedOut { failing, .. } | Self::SignedIn { failing, .. }) = self;
        failing.as_ref()
    }

    /// What fails, even if every token is still valid. Nothing works again before the sign-in does, so it goes first.
    pub(crate) fn failing(&self, now: Instant) -> Option<&Arc<Failing>> {
        self.sign_in_failing().or_else(|| self.access().failing().filter(|failing| failing.is_repeated(now)))
    }

    /// Why no call for an access token is made now, whichever repository it is for.
    pub(crate) fn obstacle(&self, now: Instant) -> Option<&Arc<Failing>> {
        match self {
            Self::SignedOut { failing: Some(failing), .. } => Some(failing),
            Self::SignedOut { .. } | Self::SignedIn { .. } => self.access().limited(now),
        }
    }
}

impl Access {
    pub(crate) fn failing(&self) -> Option<&Arc<Failing>> {
        match self {
            Self::Working => None,
            Self::Failing(failing) | Self::Limited(failing) => Some(failing),
        }
    }

    /// The limit, while it lasts.
    pub(crate) fn limited(&self, now: Instant) -> Option<&Arc<Failing>> {
        match self {
            Self::Limited(failing) if failing.next > now => Some(failing),
            Self::Working | Self::Failing(_) | Self::Limited(_) => None,
        }
    }
}

impl Failing {
    /// One more failure of a call; `earlier` is the one before, if that failed as well.
    pub(crate) fn again(earlier: Option<&Self>, failure: &Arc<Failure>, next: Instant) -> Self {
        let (since, since_time) =
            earlier.map_or_else(|| (Instant::now(), SystemTime::now()), |earlier| (earlier.since, earlier.since_time));
        Self { failure: Arc::clone(failure), since, since_time, next }
    }

    /// Whether a request that can wait until `deadline` waits for the next call. It does for a failure that may pass by
    /// itself, as when a machine starts; one that somebody has to act on, or that has lasted, is answered at once.
    pub(crate) fn is_worth_a_wait(&self, deadline: Instant) -> bool {
        !self.failure.permanent && self.since.elapsed() < WAITED_OUT && self.next < deadline
    }

    /// The call is still being repeated, so the failure says something about now.
    pub(crate) fn is_repeated(&self, now: Instant) -> bool {
        self.next + ABANDONED > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Hop;

    fn failing(message: &str, next: Instant) -> Failing {
        Failing::again(None, &Arc::new(Failure::new(Hop::Token, message.to_owned())), next)
    }

    fn login(now: Instant) -> Login {
        Login { token: Secret::new("refresh".to_owned()), asked: now, ends: now + Duration::from_secs(3600) }
    }

    fn message(failing: Option<&Arc<Failing>>) -> Option<&str> {
        failing.map(|failing| failing.failure.message.as_str())
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_stops_requests_only_when_the_refresh_token_is_gone() {
        let now = Instant::now();
        let signed_in = State::default().signed_in(login(now)).sign_in_failed(failing("401", now));
        assert!(signed_in.login().is_some());
        assert_eq!((message(signed_in.failing(now)), message(signed_in.obstacle(now))), (Some("401"), None));
        let signed_out = signed_in.signed_out();
        assert!(signed_out.login().is_none());
        assert_eq!(message(signed_out.obstacle(now)), Some("401"));
        assert_eq!(message(signed_out.signed_in(login(now)).failing(now)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_outlasts_a_sign_in_and_ends_at_its_time() {
        let (now, pause) = (Instant::now(), Duration::from_secs(60));
        let limited = Access::Limited(Arc::new(failing("429", now + pause)));
        let state = State::default().with_access(limited).signed_in(login(now));
        assert_eq!(message(state.obstacle(now)), Some("429"));
        assert_eq!(message(state.obstacle(now + pause)), None);
        assert_eq!(message(state.failing(now + pause)), Some("429"), "until the next call has succeeded");
        assert_eq!(message(state.failing(now + pause + ABANDONED)), None, "no call follows");
    }

    #[test]
    fn the_published_state_shows_no_token() {
        let state = format!("{:?}", State::default().signed_in(login(Instant::now())));
        assert!(state.contains("Secret(***)"), "{state}");
    }
}
