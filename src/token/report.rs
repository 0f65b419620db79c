//! What is said of failures: each state once, however often the call is tried.

use std::collections::HashMap;
use std::sync::Arc;

use log::{info, warn};

use crate::failure::Failure;

/// What fails now and what was said of it. The sign-in and each scope fail and mend apart: a refresh token outlasts the
/// sign-in that gave it, and one repository's refusal is not another's.
#[derive(Default)]
pub struct News {
    login: Option<String>,
    scopes: HashMap<Arc<str>, String>,
}

impl News {
    /// The sign-in failed.
    pub fn not_signed_in(&mut self, failure: &Failure) {
        let gist = gist(&failure.message);
        if self.login.as_ref() != Some(&gist) {
            warn!("{failure}");
            self.login = Some(gist);
        }
    }

    /// The sign-in works.
    pub fn signed_in(&mut self) {
        if self.login.take().is_some() {
            info!("registry token: signed in again");
        }
    }

    /// There is no new access token for this scope. What was said of another is not said again.
    pub fn not_granted(&mut self, scope: &Arc<str>, failure: &Failure) {
        let gist = gist(&failure.message);
        if !self.scopes.values().any(|known| *known == gist) {
            warn!("{failure}");
        }
        self.scopes.insert(Arc::clone(scope), gist);
    }

    /// There is a new access token for this scope.
    pub fn granted(&mut self, scope: &str) {
        if self.scopes.remove(scope).is_some() && self.scopes.is_empty() {
            info!("registry token: granted again");
        }
    }

    /// Nobody asks for this scope any more.
    pub fn forget(&mut self, scope: &str) {
        self.scopes.remove(scope);
    }
}

/// A message without what differs from one try to the next: Azure's correlation ids and times.
fn gist(message: &str) -> String {
    let differs = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = word.len() == 36 && word.matches('-').count() == 4;
        let is_time = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(['-', ':']);
        is_id || is_time
    };
    let words: Vec<_> = message.split_whitespace().filter(|word| !differs(word)).collect();
    words.join(" ")
}
