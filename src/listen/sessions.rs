//! TLS sessions that clients may resume, none of them for longer than its client's certificate goes on: rustls looks at that in a
//! whole handshake alone.
//!
//! A session of a certificate that has ended is not found, so its client gets a whole handshake, in which it shows the one that it
//! has by now. Go's clients offer a session of TLS 1.2 again and again, and would be refused each time.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// A second, from the epoch, in front of each session.
const END: usize = size_of::<u64>();

/// The sessions of a listener as one handshake sees them. Whose certificate they are for is known when it is over, so it keeps
/// what it adds until then.
#[derive(Debug)]
pub(super) struct Sessions {
    kept: Arc<dyn StoresServerSessions>,
    added: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Sessions {
    /// Room for so many.
    pub(super) fn room(sessions: usize) -> Arc<dyn StoresServerSessions> {
        ServerSessionMemoryCache::new(sessions)
    }

    /// The sessions of these settings for one handshake, and the settings that it has.
    pub(super) fn of_handshake(config: &ServerConfig) -> (Arc<Self>, Arc<ServerConfig>) {
        let sessions = Arc::new(Self { kept: Arc::clone(&config.session_storage), added: Mutex::default() });
        let mut config = config.clone();
        config.session_storage = Arc::clone(&sessions) as _;
        (sessions, Arc::new(config))
    }

    /// The handshake has ended well. Its client's certificate, if it has shown one, ends after this time.
    pub(super) fn keep(&self, left: Option<Duration>) {
        let end = left.map_or(u64::MAX, |left| (now() + left).as_secs());
        // Nothing panics while it holds the lock.
        for (key, session) in mem::take(&mut *self.added.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.kept.put(key, [&end.to_be_bytes()[..], &session].concat());
        }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push((key, session));
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.get(key).and_then(lasting)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.take(key).and_then(lasting)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// The session, if its end has not come.
fn lasting(mut kept: Vec<u8>) -> Option<Vec<u8>> {
    let end = u64::from_be_bytes(*kept.first_chunk()?);
    (now().as_secs() < end).then(|| kept.split_off(END))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_from_the_end_of_its_handshake_to_that_of_its_certificate() {
        let kept = Sessions::room(8);
        let sessions = Sessions { kept: Arc::clone(&kept), added: Mutex::default() };
        let found = |key: &[u8]| sessions.get(key);
        for (key, left, is_found) in [
            (b"none", None, true),
            (b"year", Some(Duration::from_secs(365 * 24 * 3600)), true),
            (b"over", Some(Duration::ZERO), false),
        ] {
            sessions.put(key.to_vec(), b"a session".to_vec());
            assert_eq!(found(key), None, "the handshake may still fail");
            sessions.keep(left);
            assert_eq!(found(key).is_some_and(|session| session == b"a session"), is_found, "{left:?}");
            assert_eq!((sessions.take(key).is_some(), found(key)), (is_found, None), "{left:?}");
        }
    }
}
