//! What no log may hold.

use acr_emulator::Recorded;

use crate::client::CREDENTIALS;
use testkit::{SECRET, TENANT};

/// What marks a secret wherever it is: every JWT begins so, and so does the signature in an address of blob storage or of
/// a data endpoint.
const MARKS: [&str; 6] = ["eyJ", "sig=", "&s=", SECRET, CREDENTIALS, "Bearer e"];
/// Form fields and headers that carry one, though it may be no JWT.
const FIELDS: [&str; 5] = ["client_secret", "client_assertion", "access_token", "refresh_token", "code"];
const HEADERS: [&str; 2] = ["authorization", "x-identity-header"];

/// The first secret in a log: one that is known by its look, or one that was on the wire.
pub(crate) fn in_log(log: &str, requests: &[Recorded]) -> Option<String> {
    let fields = requests.iter().flat_map(|request| request.body.split('&')).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        FIELDS.contains(&name).then_some(value)
    });
    let headers =
        requests.iter().flat_map(|request| &request.headers).filter(|(name, _)| HEADERS.contains(&name.as_str()));
    let headers = headers.map(|(_, value)| value.rsplit(' ').next().unwrap_or(value));
    let found =
        MARKS.into_iter().chain(fields).chain(headers).find(|secret| !secret.is_empty() && log.contains(secret));
    found.map(str::to_owned)
}

#[test]
fn a_secret_in_a_log_is_found() {
    let request = |headers: &[(&str, &str)], body: &str| Recorded {
        server: acr_emulator::Server::Entra,
        hop: acr_emulator::Hop::Entra,
        connection: 1,
        method: "POST".to_owned(),
        target: format!("/{TENANT}/oauth2/v2.0/token"),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.to_owned(),
        status: 200,
    };
    for (log, headers, body, found) in [
        ("all is well", &[][..], "access_token=opaque", None),
        ("sent opaque to the registry", &[][..], "service=x&access_token=opaque", Some("opaque")),
        ("got x-1234", &[("x-identity-header", "x-1234")][..], "", Some("x-1234")),
        ("Authorization: Bearer abc", &[("authorization", "Bearer abc")][..], "", Some("abc")),
        ("location=https://blob/x?se=1&sig=abc", &[][..], "", Some("sig=")),
        ("location=https://data/?t=1&p=2&s=abc&v=1", &[][..], "", Some("&s=")),
        ("token eyJhbGciOi", &[][..], "", Some("eyJ")),
    ] {
        assert_eq!(in_log(log, &[request(headers, body)]).as_deref(), found, "{log}");
    }
}
