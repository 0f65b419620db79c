//! Each failure has its row in the documentation, and is told as that of its hop.

use super::*;

/// The rows of the table in docs/troubleshooting.md: whose, when, status and code, `Retry-After`.
fn table() -> Vec<[&'static str; 4]> {
    let page = include_str!("../../../docs/troubleshooting.md");
    let section = page.split("\n## What a client gets\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let rows = section.expect("the table").trim().lines().skip(2);
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("four cells: {line}"))
    };
    rows.map(row).collect()
}

/// How the rows for a failure begin in their second cell.
fn rows(trouble: &Trouble) -> &'static [&'static str] {
    match trouble {
        Trouble::Busy => &["More requests are under way"],
        Trouble::Denied(denial) => match denial {
            Denial::Network(_) => &["`access` does not let"],
            Denial::Certificate { .. } => &["`access.certificates` does not have"],
            Denial::Connections(_) => &["`limits.connections_per_client`"],
            Denial::Requests(_) => &["`limits.concurrent_requests_per_client`"],
            Denial::Rate(..) => &["`limits.requests_per_second_per_client`"],
        },
        Trouble::Malformed => &["`Connection` lists what it may not"],
        Trouble::NoToken(_) => &["There is no token for the registry", "The same for the registry's two calls"],
        Trouble::Unresolved => &["The registry's name has never been resolved"],
        Trouble::Egress(_) => &["No tunnel to the registry"],
        Trouble::Unauthorized(_) => &["401 to a fresh token"],
        Trouble::Down(cause) => match **cause {
            Trouble::Silent => &["It is known to be down, because it did not answer"],
            Trouble::Failing(_) => &["It is known to be down, because it answered 5xx"],
            _ => &["It is known to be down, because there was no connection"],
        },
        Trouble::Failing(_) => &[],
        Trouble::Limited(status, _) => match status.as_u16() {
            429 => &["It has answered 429"],
            _ => &["It has answered 503"],
        },
        Trouble::Held(HeldBy::Queue, _) => &["Requests to the registry are under way"],
        Trouble::Held(HeldBy::Budget, _) => &["`limits.registry_reads_per_minute`"],
        Trouble::Unreachable(_) => {
            &["No connection (three tries, each to all addresses)", "An answer that is not HTTP"]
        }
        Trouble::Silent => &["Connected, but no answer in time"],
        Trouble::Broken(_) => &["An answer that is not whole"],
        Trouble::Page(_) => &["A page for people"],
        Trouble::Storage(_) => &[
            "Its name is not resolved",
            "No connection to it",
            "It answers the registry's redirect with another error",
        ],
        Trouble::StorageSays { status, .. } => match status.as_u16() {
            429 => &["Its 429"],
            503 => &["Its 503"],
            _ => &["Its 400 or 501 to several ranges"],
        },
        Trouble::StorageSilent(_) => &["Connected to it, but no answer in time"],
        Trouble::Internal(_) => &["A fault in the proxy"],
    }
}

/// The rows that say what another part answers, or the registry.
const OTHERS: [&str; 5] = [
    "A request that is not a pull",
    "A registry without a route",
    "429 for a manifest",
    "Any other answer",
    "A body that breaks off",
];

#[test]
fn the_documentation_has_the_table_of_failures() {
    let table = table();
    let found = |begin: &str| {
        let rows: Vec<_> = table.iter().filter(|row| row[1].starts_with(begin)).collect();
        assert_eq!(rows.len(), 1, "{begin}");
        rows[0]
    };
    let says = |status| Trouble::StorageSays { host: String::new(), status, retry_after: None };
    let no_token = Unavailable { retry_after: Duration::ZERO, failure: None, is_repositorys: false };
    let client = [192, 0, 2, 1].into();
    let mut seen = OTHERS.len();
    for trouble in [
        Trouble::Busy,
        Trouble::Denied(Denial::Network(client)),
        Trouble::Denied(Denial::Certificate { is_shown: true }),
        Trouble::Denied(Denial::Connections(client)),
        Trouble::Denied(Denial::Requests(client)),
        Trouble::Denied(Denial::Rate(client, Duration::from_secs(1))),
        Trouble::Malformed,
        Trouble::NoToken(no_token),
        Trouble::Unresolved,
        Trouble::Egress(Arc::new(NoTunnel::example())),
        Trouble::Unauthorized(Refused::Unclear),
        Trouble::Down(Arc::new(Trouble::Silent)),
        Trouble::Down(Arc::new(Trouble::Failing(StatusCode::INTERNAL_SERVER_ERROR))),
        Trouble::Down(Arc::new(Trouble::Unreachable(String::new()))),
        Trouble::Limited(StatusCode::TOO_MANY_REQUESTS, Instant::now()),
        Trouble::Limited(StatusCode::SERVICE_UNAVAILABLE, Instant::now()),
        Trouble::Held(HeldBy::Queue, Duration::from_secs(5)),
        Trouble::Held(HeldBy::Budget, Duration::from_secs(1)),
        Trouble::Unreachable(String::new()),
        Trouble::Silent,
        Trouble::Broken(""),
        Trouble::Page(""),
        Trouble::Storage(String::new()),
        says(StatusCode::TOO_MANY_REQUESTS),
        says(StatusCode::SERVICE_UNAVAILABLE),
        says(StatusCode::BAD_REQUEST),
        Trouble::StorageSilent(String::new()),
        Trouble::Internal(String::new()),
    ] {
        let (status, code, seconds) = trouble.answer();
        for begin in rows(&trouble) {
            let row = found(begin);
            let told = format!("{} `{}`", status.as_u16(), code.as_str());
            // For a manifest as that of the registry, see below.
            let is_as_passed = matches!(trouble, Trouble::Limited(StatusCode::TOO_MANY_REQUESTS, _))
                && row[2] == found("429 for a manifest")[2];
            assert!(row[2] == told || is_as_passed || row[2].starts_with("400 or 501 `UNSUPPORTED`"), "{row:?}");
            let said = match trouble {
                Trouble::StorageSays { .. } if code != Code::Unsupported => "the storage's".to_owned(),
                Trouble::Limited(..) => "what is left of it".to_owned(),
                Trouble::Held(HeldBy::Budget, _) | Trouble::Denied(Denial::Rate(..)) => {
                    "until there is room".to_owned()
                }
                _ => seconds.map_or_else(String::new, |seconds| format!("{seconds} s")),
            };
            assert!(row[3] == said || matches!(trouble, Trouble::NoToken(_)), "{row:?}");
            seen += 1;
        }
    }
    assert!(found("There is no token for the registry")[3].starts_with("1 s; "));
    assert_eq!(seen, table.len(), "a row for each, and no other: {table:#?}");

    let refusal = super::super::admit::no_route("gcr.io");
    let row = found("A registry without a route");
    assert_eq!(row[2], format!("{} `{}`", refusal.status().as_u16(), refusal.code().as_str()));
    let limited = StatusCode::TOO_MANY_REQUESTS;
    let as_told =
        [OnFailure::Fallback, OnFailure::Closed].map(|route| passed_on(limited, Endpoint::Manifest, route).as_u16());
    assert_eq!(found("429 for a manifest")[2], format!("{} or {} `TOOMANYREQUESTS`", as_told[0], as_told[1]));
    for (status, endpoint) in [
        (limited, Endpoint::Blob),
        (StatusCode::NOT_FOUND, Endpoint::Manifest),
        (StatusCode::FAILED_DEPENDENCY, Endpoint::Blob),
    ] {
        assert_eq!(passed_on(status, endpoint, OnFailure::Fallback), status, "{endpoint:?}");
    }
    assert_eq!(found("Any other answer")[2], "the registry's own");
}

#[test]
fn a_failure_is_told_as_that_of_the_hop_that_failed() {
    let host = "x.blob.core.windows.net";
    for (kind, status, of_registry, of_storage) in [
        (
            ErrorType::ConnectTimedout,
            502,
            "not reachable: no connection in time",
            "not reachable: no connection in time",
        ),
        (ErrorType::TLSHandshakeTimedout, 502, "no connection in time", "no connection in time"),
        (ErrorType::ConnectRefused, 502, "connection refused", "connection refused"),
        (ErrorType::InvalidCert, 502, "its certificate is not trusted", "its certificate is not trusted"),
        (ErrorType::TLSHandshakeFailure, 502, "TLS handshake failed", "TLS handshake failed"),
        (ErrorType::InvalidHTTPHeader, 502, "its answer is not valid HTTP", "its answer is not valid HTTP"),
        (ErrorType::ReadTimedout, 504, "the registry does not answer", "does not answer in time"),
        (ErrorType::InternalError, 500, "this proxy failed", "this proxy failed"),
    ] {
        let error = Error::explain(kind.clone(), "secret words").into_up();
        for (storage, words) in [(None, of_registry), (Some(host), of_storage)] {
            let trouble = Trouble::of(&error, storage).expect("not the client's");
            let said = trouble.to_string();
            assert_eq!(trouble.answer().0.as_u16(), status, "{kind:?}");
            assert!(said.contains(words) && !said.contains("secret words"), "{kind:?}: {said}");
            let is_storages = storage.is_some() && status != 500;
            assert_eq!(
                (said.contains(host), said.contains("registry")),
                (is_storages, !is_storages && status != 500),
                "{said}"
            );
        }
    }
    let words = "TLS connect() failed: invalid peer certificate: UnknownIssuer, SNI: secret words";
    let error = Error::explain(ErrorType::TLSHandshakeFailure, words).into_up();
    let told = Trouble::of(&error, None).map(|trouble| trouble.to_string());
    let says =
        "the registry is not reachable: its certificate is not trusted: a private CA goes into ca_file: unknown issuer";
    assert_eq!(told.as_deref(), Some(says));
    let error = Error::explain(ErrorType::WriteError, "gone").into_down();
    assert!(Trouble::of(&error, None).is_none());
}

#[test]
fn a_trouble_that_a_phase_gives_as_its_error_is_the_one_that_is_told() {
    let error = Trouble::Unauthorized(Refused::Right).into_error();
    assert!(!error.retry() && matches!(error.etype(), ErrorType::HTTPStatus(403)));
    assert!(matches!(Trouble::of(&error, None), Some(Trouble::Unauthorized(Refused::Right))));
}
