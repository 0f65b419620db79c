//! What `/readyz` reports.

use super::*;

fn fails(tokens: &Tokens) -> Option<String> {
    tokens.readiness().failure.map(|failure| failure.message.clone())
}

#[tokio::test(start_paused = true)]
async fn a_failing_sign_in_and_failing_access_tokens_are_told_apart() {
    let login = Failure { message: "token exchange: 401".to_owned(), ..failure(true) };
    let access = Failure::new(Hop::Token, "access token: 500".to_owned());
    let (tokens, fake) = store(Fake::default());
    text(&tokens, "hub/x").await;
    assert_eq!(fails(&tokens), None);
    // Access tokens come and go without a word of the sign-in that fails beneath.
    fake.break_login(Some(login.clone()));
    sleep(LOGIN_LIFE.mul_f64(0.7)).await;
    let since = tokens.readiness().since;
    let renewals = fake.counts().1;
    while fake.counts().1 == renewals {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(2 * CALL).await;
    assert_eq!((fails(&tokens), tokens.readiness().since), (Some(login.message.clone()), since));
    // Nor does a sign-in that works again say anything of the access tokens.
    fake.break_access(Some(access.clone()));
    while fails(&tokens) != Some(access.message.clone()) {
        sleep(Duration::from_secs(20)).await;
        fake.break_login(None);
    }
    let since = tokens.readiness().since;
    let logins = fake.counts().0;
    while fake.counts().0 == logins {
        sleep(Duration::from_secs(20)).await;
    }
    assert_eq!((fails(&tokens), tokens.readiness().since), (Some(access.message), since));
    fake.break_access(None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(fails(&tokens), None);
}
