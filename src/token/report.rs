//! What the log says of failing calls: each failure once, however often the call is repeated and others come in between, and
//! once that it is over.

use std::collections::HashSet;
use std::sync::Arc;

use log::{info, warn};
use oci::quote::fingerprint;

use super::state::State;
use crate::failure::Failure;

/// The failures that have been logged and are not over. The sign-in and each scope fail and recover apart: a refresh
/// token outlasts the sign-in that gave it, and a registry may refuse one repository and serve another.
#[derive(Default)]
pub(super) struct Report {
    sign_in: Told,
    scopes: HashSet<Arc<str>>,
    told: Told,
}

/// What was logged since the calls have failed.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    /// Of more different failures the log says no more: their words are a server's, which may find others for ever.
    const MAX: usize = 64;

    /// True if it has to be logged.
    fn add(&mut self, fingerprint: &str) -> bool {
        let is_new = self.0.len() < Self::MAX && self.0.iter().all(|told| told != fingerprint);
        if is_new {
            self.0.push(fingerprint.to_owned());
        }
        is_new
    }

    /// They succeed again. False if they did before.
    fn end(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }
}

impl Report {
    /// Logs how the sign-in goes, if that has changed.
    pub(crate) fn sign_in(&mut self, state: &State) {
        match state.sign_in_failing() {
            Some(failing) if self.sign_in.add(&fingerprint(&failing.failure.message)) => {
                warn!("{}", failing.failure);
            }
            Some(_) => {}
            None if self.sign_in.end() => info!("registry token: signed in again"),
            None => {}
        }
    }

    /// A call for this scope's access token has failed. The same failure of another scope is not logged again.
    pub(crate) fn not_granted(&mut self, scope: &Arc<str>, failure: &Failure) {
        if self.told.add(&fingerprint(&failure.message)) {
            warn!("{failure}");
        }
        self.scopes.insert(Arc::clone(scope));
    }

    /// There is a new access token for this scope.
    pub(crate) fn granted(&mut self, scope: &str) {
        if self.scopes.remove(scope) && self.scopes.is_empty() && self.told.end() {
            info!("registry token: granted again");
        }
    }

    /// No call is made for this scope any more.
    pub(crate) fn forget(&mut self, scope: &str) {
        self.scopes.remove(scope);
        if self.scopes.is_empty() {
            self.told.end();
        }
    }
}
