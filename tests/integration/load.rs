//! How much the proxy has taken on, as `/readyz` reports it, and what reached the registry.

use std::time::{Duration, Instant};

use acr_emulator::{Hop, Recorded};
use serde_json::Value;

use crate::admin::admin;
use crate::wire;
use testkit::{PATIENCE, Proxy};

/// `load` of `/readyz`, asked on a connection of its own.
pub(crate) fn load(proxy: &Proxy) -> Value {
    let answer = wire::ask(admin(proxy), "GET /readyz", "");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["load"].clone()
}

/// Waits until the proxy's counts satisfy the condition.
pub(crate) fn wait_for_load(proxy: &Proxy, what: &str, condition: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = load(proxy);
        if condition(&seen) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} never came: {seen}");
        // Nothing depends on the step.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many requests reached the registry's data plane.
pub(crate) fn sent_to_registry(requests: &[Recorded]) -> usize {
    requests.iter().filter(|request| request.hop == Hop::Data).count()
}
