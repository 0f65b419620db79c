//! When tokens are renewed.

use super::*;

/// The pauses between calls, as parts of a lifetime.
fn parts(times: &[Instant], lifetime: Duration) -> Vec<f64> {
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() / lifetime.as_secs_f64()).collect()
}

#[tokio::test(start_paused = true)]
async fn renewals_fall_between_half_and_two_thirds_of_a_lifetime_and_are_spread() {
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    sleep(14 * 24 * Duration::from_secs(3600)).await;
    let logins = parts(&fake.login_times.lock().expect("lock"), LOGIN_LIFE);
    let accesses = parts(&fake.access_times.lock().expect("lock"), ACCESS_LIFE);
    for parts in [logins, accesses] {
        assert!(parts.len() > 150, "{}", parts.len());
        // The call itself takes its time, too.
        assert!(parts.iter().all(|part| (0.5..0.667).contains(part)), "{parts:?}");
        for (low, high) in [(0.5, 0.54), (0.56, 0.61), (0.63, 0.667)] {
            assert!(parts.iter().any(|part| (low..high).contains(part)), "none between {low} and {high}: {parts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_succeeds_forgets_the_failures_before() {
    let (tokens, fake) = store(Fake { access_fails: Mutex::new(Some(failure(false))), ..Fake::default() });
    sleep(Duration::from_secs(300)).await;
    fake.break_access(None);
    sleep(Duration::from_secs(40)).await;
    text(&tokens, "hub/x").await;
    fake.break_access(Some(failure(false)));
    fake.access_times.lock().expect("lock").clear();
    sleep(ACCESS_LIFE.mul_f64(0.7)).await;
    let times = fake.access_times.lock().expect("lock").clone();
    // Half a second, then at most a second, and so on: not the half minute that it had come to.
    assert!(times[1] - times[0] <= Duration::from_millis(600), "{:?}", times[1] - times[0]);
}
