//! What the end of a call changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::{Asked, CallResult, Refresher};
use crate::failure::{Failure, Hop};
use crate::token::WILDCARD;
use crate::token::slot::Bearer;
use crate::token::state::{Access, Failing, Login};

/// `iat`, `exp` and `Date` are whole seconds, so up to one may have passed; and a request that goes out with a token has
/// to arrive before the token's end.
const MARGIN: Duration = Duration::from_millis(1500);
/// A refresh token younger than this that is refused is not refused for its age: a new sign-in would not help.
const FRESH_LOGIN: Duration = Duration::from_secs(30);

impl Refresher<'_> {
    /// A sign-in that started at `asked` has ended.
    pub(super) fn on_login(&mut self, asked: Instant, result: CallResult) {
        self.login.in_flight = false;
        let state = self.state();
        match result {
            Ok(granted) => {
                if granted.per_repository {
                    self.tokens.go_per_repository("the registry is in ABAC mode");
                }
                self.login.renew(granted.lifetime);
                self.publish(state.signed_in(Login { token: granted.token, asked, ends: asked + granted.lifetime }));
            }
            Err(failure) => {
                self.login.repeat(&failure);
                let earlier = state.sign_in_failing().map(AsRef::as_ref);
                let failing = Failing::again(earlier, &Arc::new(failure), self.login.due);
                self.publish(state.sign_in_failed(failing));
            }
        }
        self.wake_all();
    }

    /// There is no refresh token any more.
    pub(super) fn sign_out(&mut self) {
        let state = self.state().signed_out();
        self.publish(state);
        self.wake_all();
    }

    /// A call for an access token has ended.
    pub(super) fn on_access(&mut self, asked: &Asked, result: CallResult) {
        self.first_calls -= usize::from(asked.is_first);
        // A repository that was evicted meanwhile needs no token.
        let Some(scope) = self.scopes.get_mut(&asked.repository) else { return };
        scope.schedule.in_flight = false;
        let result = result.and_then(|granted| match granted.token.to_bearer() {
            Some(header) => Ok((granted, header)),
            None => {
                let message = "registry token holds a character that no header may carry";
                Err(Failure::new(Hop::Token, message.to_owned()))
            }
        });
        match result {
            Ok((granted, _)) if granted.per_repository && *asked.repository == *WILDCARD => {
                self.tokens.go_per_repository("the registry is in ABAC mode");
            }
            Ok((granted, header)) => self.granted(asked, granted.lifetime, header),
            Err(failure) => self.not_granted(asked, failure),
        }
    }

    fn granted(&mut self, asked: &Asked, lifetime: Duration, header: HeaderValue) {
        let (now, repository) = (Instant::now(), &asked.repository);
        self.last_number += 1;
        self.limits.reset();
        self.outage = None;
        self.access_works(now);
        if asked.is_first {
            self.admit(repository);
        }
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.schedule.renew(lifetime);
        if scope.slot.refused.load(Ordering::Acquire) > asked.refused {
            // A 401 that became known while this call was under way.
            scope.schedule.due = now;
        }
        self.next_due = self.next_due.min(scope.schedule.due);
        let earlier = scope.slot.bearer.load_full();
        let (slot, found_no_place) = (Arc::clone(&scope.slot), scope.is_pending);
        slot.granted(Bearer {
            header,
            expires: asked.at + lifetime.saturating_sub(MARGIN),
            asked: asked.at,
            issued: self.tokens.clock(),
            number: self.last_number,
            replaces: asked.refused,
            forced: asked.refused > earlier.as_ref().map_or(0, |bearer| bearer.replaces),
            own: **repository != *WILDCARD,
            accepted: AtomicBool::new(earlier.is_some_and(|bearer| bearer.accepted.load(Ordering::Relaxed))),
            rejected: AtomicBool::new(false),
            sieve: OnceLock::new(),
        });
        self.report.granted(repository);
        if found_no_place {
            // Every token in the table is in use. The waiting requests have theirs, and the next ones ask anew.
            self.evict(repository);
        }
    }

    fn not_granted(&mut self, asked: &Asked, failure: Failure) {
        let (now, repository) = (Instant::now(), &asked.repository);
        let Some(scope) = self.scopes.get_mut(repository) else { return };
        scope.schedule.repeat(&failure);
        let login_refused = failure.token_refused && asked.at.duration_since(asked.login) > FRESH_LOGIN;
        if login_refused {
            // The call is made again as soon as there is a new refresh token.
            scope.schedule.due = now;
        }
        let (slot, due) = (Arc::clone(&scope.slot), scope.schedule.due);
        self.next_due = self.next_due.min(due);
        let failure = Arc::new(failure);
        if !failure.permanent {
            let earlier = self.outage.take().filter(|earlier| earlier.is_repeated(now));
            self.outage = Some(Failing::again(earlier.as_ref(), &failure, due));
        }
        // One repository that is refused says nothing about the others.
        if **repository == *WILDCARD || failure.limited {
            self.access_fails(&failure, now, due);
        }
        if login_refused {
            slot.failing.store(None);
            self.login_refused(asked.login, now);
        } else {
            // The first call for a repository during an outage does not begin that outage.
            let own = slot.failing.load_full();
            let earlier = own.as_deref().or(self.outage.as_ref().filter(|_| !failure.permanent));
            slot.failed(Failing::again(earlier, &failure, due));
        }
        self.report.not_granted(repository, &failure);
        if asked.is_first {
            self.evict_one_of_too_many_failed();
        }
    }

    /// The registry refuses the refresh token that was asked for at `login`. Of several calls that are refused together the
    /// first ends the sign-in.
    fn login_refused(&mut self, login: Instant, now: Instant) {
        if self.state().login().is_some_and(|current| current.asked == login) {
            if self.login.backoff.is_clear() {
                self.login.due = now;
            }
            self.sign_out();
        }
    }

    /// The calls for access tokens succeed. A call that was under way before a limit does not end it.
    pub(super) fn access_works(&mut self, now: Instant) {
        let state = self.state();
        if !matches!(state.access(), Access::Working) && state.access().limited(now).is_none() {
            self.publish(state.with_access(Access::Working));
        }
    }

    /// The calls for access tokens fail, or are limited. Calls that are refused together are one refusal.
    fn access_fails(&mut self, failure: &Arc<Failure>, now: Instant, due: Instant) {
        let state = self.state();
        if state.access().limited(now).is_some() {
            return;
        }
        let earlier = state.access().failing().filter(|earlier| earlier.is_repeated(now)).map(AsRef::as_ref);
        if failure.limited {
            let until = now + self.limits.next(failure);
            self.publish(state.with_access(Access::Limited(Arc::new(Failing::again(earlier, failure, until)))));
            self.wake_all();
        } else {
            self.publish(state.with_access(Access::Failing(Arc::new(Failing::again(earlier, failure, due)))));
        }
    }
}
