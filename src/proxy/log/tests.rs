//! What a line says, and that nothing in it can be forged.

use std::sync::Arc;

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::access::Name;
use crate::cache::Reason;
use crate::failure::{Failure, Hop};
use crate::load::Limit;
use crate::token::Unavailable;

const LABELS: [&str; 16] = [
    "client",
    "repository",
    "upstream",
    "tries",
    "route",
    "kind",
    "ttfb",
    "registry",
    "cache",
    "storage",
    "trace",
    "sampled",
    "correlation",
    "tls",
    "certificate",
    "error",
];

fn peer(name: &str) -> Peer {
    Peer { version: "TLSv1.3", names: vec![Name::Subject(name.to_owned())] }
}

fn line<'a>(method: &'a str, path: &'a str, other: &'a str, peer: &'a Peer, outcome: Outcome<'a>) -> Line<'a> {
    Line {
        method,
        path,
        status: 502,
        sent: 0,
        elapsed: Duration::from_millis(3),
        client: Some(([192, 0, 2, 1], 443).into()),
        repository: other,
        upstream: None,
        tries: 1,
        route: other,
        kind: "tags",
        first_byte: Some(Duration::from_micros(2750)),
        asking: None,
        cached: Some(Cached::Passed(Reason::Kind)),
        storage: Some(other),
        trace: Some(other),
        correlation: Some(other.into()),
        sampled: 10,
        peer: Some(peer),
        outcome,
    }
}

#[test]
fn the_reason_is_the_last_field_of_a_line() {
    let trouble = Trouble::Unreachable("a b\nerror=c".to_owned());
    for (outcome, level, says) in [
        (Outcome::Answered, Level::Info, ""),
        (Outcome::Refused("no route for x: ask it"), Level::Info, " error=no route for x: ask it"),
        (Outcome::Left("client left"), Level::Info, " error=client left"),
        (Outcome::Failed(&trouble), Level::Warn, " error=the registry is not reachable: a b\\u{a}error\\u{3d}c"),
    ] {
        assert_eq!(outcome.level(), level, "{says}");
        let line = line("GET", "/v2/a/tags/list", "x y", &peer("x y"), outcome).to_string();
        let other = "x\\u{20}y";
        assert_eq!(
            line,
            format!(
                "GET /v2/a/tags/list 502 0B 3ms client=192.0.2.1:443 repository={other} upstream=- tries=1 route={other} kind=tags ttfb=2ms registry=- cache=pass:kind storage={other} trace={other} sampled=10 correlation={other} tls=TLSv1.3 certificate={other}{says}"
            )
        );
    }
}

/// A request that has waited for another's flight has asked for no token itself.
#[test]
fn the_line_lacked_the_id_by_which_the_client_was_told_of_a_token_call() {
    const ID: &str = "11111111-2222-3333-4444-555555555555";
    let failure =
        Failure { correlation: Some(HeaderValue::from_static(ID)), ..Failure::new(Hop::Token, String::new()) };
    let (failure, retry_after) = (Some(Arc::new(failure)), Duration::from_secs(1));
    let mut context = Context::new(&Limit::new("requests", 1));
    context.fail(Some(Trouble::NoToken(Unavailable { failure, retry_after, is_repositorys: false })));
    assert_eq!(Line::of(&context).correlation.as_deref(), Some(ID));
}

#[test]
fn every_field_of_a_line_is_bounded() {
    let long = " ".repeat(1 << 20);
    let line = line(&long, &long, &long, &peer(&long), Outcome::Refused(&long)).to_string();
    assert!(line.len() < 6 << 10, "{}", line.len());
}

proptest! {
    /// A reader that splits lines at blanks and labels finds each label once, and behind `error=` only its text.
    #[test]
    fn no_input_makes_a_second_line_or_field(
        method in any::<String>(),
        path in any::<String>(),
        other in prop_oneof![any::<String>(), Just(" error=none\n".to_owned())],
        words in prop_oneof![any::<String>(), Just("a error=b client=c\u{2028}".to_owned())],
        fails in any::<bool>(),
    ) {
        let trouble = Trouble::Storage(words.clone());
        let outcome = if fails { Outcome::Failed(&trouble) } else { Outcome::Refused(&words) };
        let line = line(&method, &path, &other, &peer(&other), outcome).to_string();
        prop_assert_eq!(line.lines().count(), 1, "{}", line);
        prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
        for label in LABELS {
            let field = format!("{label}=");
            let found = line.split(' ').filter(|word| word.starts_with(&field)).count();
            prop_assert_eq!(found, 1, "{} in {}", field, line);
        }
        let (fields, _) = line.split_once(" error=").expect("its own");
        prop_assert_eq!(fields.split(' ').count(), 20, "{}", line);
    }
}
