//! Until when a blob's redirect may be used.
//!
//! The signature of a storage address ends at `se` (Azure Storage, "Create a service SAS"). One by a key that Entra ID has given ends
//! with that key as well, at `ske` ("Create a user delegation SAS"), whichever is earlier. That is compared with the answer's own
//! `Date`, so this host's clock does not matter. Addresses of data endpoints do not say when they end.

use std::time::Duration;

use http::header;
use pingora::http::ResponseHeader;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::answer;

/// A client needs the address a little longer than it takes to answer: it starts with a layer when it has time for it.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// The time from which a redirect is not used any more; `None` if its end is not known, or has come.
/// `asked` is when it was asked for: the registry's `Date` is not earlier.
pub(super) fn ends(response: &ResponseHeader, asked: Instant) -> Option<Instant> {
    let location = response.headers.get(header::LOCATION)?.to_str().ok()?;
    let left = end_of(location)?.checked_sub(answer::server_time(&response.headers)?)?;
    let left = Duration::from_secs(u64::try_from(left).ok()?).checked_sub(MARGIN).filter(|left| !left.is_zero())?;
    asked.checked_add(left)
}

/// The earlier of `se` and `ske` in an address, in seconds since 1970; `None` without `se`.
fn end_of(location: &str) -> Option<i64> {
    let query = location.split('#').next()?.split_once('?')?.1;
    let (mut signature, mut key) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let end = match &*name {
            "se" => &mut signature,
            "ske" => &mut key,
            _ => continue,
        };
        let time = OffsetDateTime::parse(&value, &Rfc3339).ok()?.unix_timestamp();
        // Two would be read differently by others.
        if end.replace(time).is_some() {
            return None;
        }
    }
    signature.map(|signature| key.map_or(signature, |key| signature.min(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_redirect_ends_five_minutes_before_its_signature() {
        let of = |location: &str| {
            let mut response = ResponseHeader::build(307, None).expect("a status");
            response.insert_header(header::DATE, "Thu, 26 Nov 2026 06:00:00 GMT").expect("a header");
            response.insert_header(header::LOCATION, location.to_owned()).expect("a header");
            ends(&response, Instant::now()).map(|end| (end - Instant::now()).as_secs())
        };
        for (location, expected) in [
            ("https://x.blob.core.windows.net/a//data?sv=1&se=2026-11-26T06%3A20%3A00Z&sig=x", Some(900)),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T06:05:01Z", Some(1)),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T06:05:00Z", None),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T05:00:00Z", None),
            ("https://x.blob.core.windows.net/a?se=soon", None),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T06:20:00Z&se=2030-11-26T06:20:00Z", None),
            ("https://x.blob.core.windows.net/a?ske=2026-11-26T06:10:00Z&se=2026-11-26T06:20:00Z", Some(300)),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T06:20:00Z&ske=2026-11-27T06:20:00Z", Some(900)),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T06:20:00Z&ske=2026-11-26T06:04:00Z", None),
            ("https://x.blob.core.windows.net/a?se=2026-11-26T06:20:00Z&ske=soon", None),
            ("https://x.blob.core.windows.net/a?ske=2026-11-26T06:20:00Z", None),
            ("https://example.westeurope.data.azurecr.io/?t=1&h=example.azurecr.io", None),
            ("https://x.blob.core.windows.net/a", None),
        ] {
            assert_eq!(of(location), expected, "{location}");
        }
    }
}
