//! What is not asked of storage for a while, because it has failed: a host that is silent, and single configurations.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many hosts and paths at a time. Those beyond are tried again by each request.
const MAX_NAMES: usize = 256;

/// What has failed, and until when it is not tried again.
#[derive(Default)]
pub(super) struct Aside(Mutex<HashMap<Box<str>, Instant>>);

impl Aside {
    /// This has failed, and is not tried again for so long.
    pub(super) fn put(&self, name: &str, pause: Duration) {
        let now = Instant::now();
        let mut names = self.names();
        if names.len() >= MAX_NAMES {
            names.retain(|_, until| *until > now);
        }
        if names.len() < MAX_NAMES {
            names.insert(name.into(), now + pause);
        }
    }

    /// Whether that is so now.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().get(name).is_some_and(|until| *until > Instant::now())
    }

    /// A time cannot be half changed.
    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_put_aside_comes_back_and_its_number_is_bounded() {
        let (aside, pause) = (Aside::default(), Duration::from_secs(30));
        for number in 0..2 * MAX_NAMES {
            aside.put(&number.to_string(), pause);
        }
        assert!(aside.has("0") && !aside.has(&MAX_NAMES.to_string()) && aside.names().len() == MAX_NAMES);
        advance(pause).await;
        assert!(!aside.has("0"));
        aside.put("later", pause);
        assert!(aside.has("later") && aside.names().len() == 1);
    }
}
