//! What the log says of failing calls: each failure once, however often the call is repeated, and once that it is over.

use std::collections::HashMap;
use std::sync::Arc;

use log::{info, warn};

use super::state::State;
use crate::failure::Failure;

/// The failures that have been logged and are not over. The sign-in and each scope fail and recover apart: a refresh
/// token outlasts the sign-in that gave it, and a registry may refuse one repository and serve another.
#[derive(Default)]
pub(super) struct Report {
    sign_in: Option<String>,
    scopes: HashMap<Arc<str>, String>,
}

impl Report {
    /// Logs how the sign-in goes, if that has changed.
    pub(crate) fn sign_in(&mut self, state: &State) {
        match state.sign_in_failing() {
            Some(failing) => {
                let fingerprint = fingerprint(&failing.failure.message);
                if self.sign_in.as_ref() != Some(&fingerprint) {
                    warn!("{}", failing.failure);
                    self.sign_in = Some(fingerprint);
                }
            }
            None if self.sign_in.take().is_some() => info!("registry token: signed in again"),
            None => {}
        }
    }

    /// A call for this scope's access token has failed. The same failure of another scope is not logged again.
    pub(crate) fn not_granted(&mut self, scope: &Arc<str>, failure: &Failure) {
        let fingerprint = fingerprint(&failure.message);
        if !self.scopes.values().any(|known| *known == fingerprint) {
            warn!("{failure}");
        }
        self.scopes.insert(Arc::clone(scope), fingerprint);
    }

    /// There is a new access token for this scope.
    pub(crate) fn granted(&mut self, scope: &str) {
        if self.scopes.remove(scope).is_some() && self.scopes.is_empty() {
            info!("registry token: granted again");
        }
    }

    /// No call is made for this scope any more.
    pub(crate) fn forget(&mut self, scope: &str) {
        self.scopes.remove(scope);
    }
}

/// A message without the parts that differ from one call to the next: Azure's correlation ids and times.
fn fingerprint(message: &str) -> String {
    let differs = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = word.len() == 36 && word.matches('-').count() == 4;
        let is_time = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(['-', ':']);
        is_id || is_time
    };
    let words: Vec<_> = message.split_whitespace().filter(|word| !differs(word)).collect();
    words.join(" ")
}
