//! The trace that a request is part of (W3C Trace Context): taken from the client if it is valid, passed on to the registry as
//! it is, and named in the log. It never goes to storage, which is no part of anybody's trace. A request with a span of its own
//! (the feature `otlp`) names that one to the registry as the parent.
//!
//! No credential fits in: of `traceparent` all that may follow is hexadecimal, and `tracestate` is bounded.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-<trace id>-<parent id>-<flags>` (section 3.2.2); a later version may have more behind another dash.
const PARENT_LENGTH: usize = 55;
const ID: Range<usize> = 3..35;
#[cfg(feature = "otlp")]
const SPAN: Range<usize> = 36..52;
#[cfg(feature = "otlp")]
const FLAGS: Range<usize> = 53..55;
/// Of a version to come.
const MAX_PARENT: usize = 128;
/// What everybody has to pass on (section 3.3.1.5), and the most members (section 3.3.1.1).
const MAX_STATE: usize = 512;
const MAX_MEMBERS: usize = 32;

/// The trace, as the client's headers have it.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    parent: HeaderValue,
    state: Option<HeaderValue>,
}

impl Trace {
    /// The one of these headers. `tracestate` alone means nothing, and one that is not valid is left out.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let parent = only(headers, &TRACEPARENT).filter(|value| is_parent(value.as_bytes()))?;
        let state = only(headers, &TRACESTATE).filter(|value| is_state(value.as_bytes()));
        Some(Self { parent: parent.clone(), state: state.cloned() })
    }

    /// 32 hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        let id = self.parent.as_bytes().get(ID).and_then(|id| std::str::from_utf8(id).ok());
        id.unwrap_or_default()
    }

    /// The id of the trace, of the client's span, and the flags.
    #[cfg(feature = "otlp")]
    pub(super) fn parent(&self) -> Option<(u128, u64, u8)> {
        let part = |range| std::str::from_utf8(self.parent.as_bytes().get(range)?).ok();
        Some((
            u128::from_str_radix(part(ID)?, 16).ok()?,
            u64::from_str_radix(part(SPAN)?, 16).ok()?,
            u8::from_str_radix(part(FLAGS)?, 16).ok()?,
        ))
    }

    /// What the client says besides.
    #[cfg(feature = "otlp")]
    pub(super) fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    /// The same trace, or a new one, from a span of ours on: that is the parent for the registry.
    #[cfg(feature = "otlp")]
    pub(super) fn below(ids: crate::otlp::Ids, state: Option<HeaderValue>) -> Option<Self> {
        let crate::otlp::Ids { trace, span, flags, .. } = ids;
        let parent = HeaderValue::try_from(format!("00-{trace:032x}-{span:016x}-{flags:02x}")).ok()?;
        Some(Self { parent, state })
    }

    /// The headers for the registry.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static HeaderName, &HeaderValue)> {
        let state = self.state.as_ref().map(|state| (&TRACESTATE, state));
        std::iter::once((&TRACEPARENT, &self.parent)).chain(state)
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let value = headers.get(name)?;
    (headers.get_all(name).iter().count() == 1).then_some(value)
}

fn is_parent(value: &[u8]) -> bool {
    let is_hexadecimal = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = value.get(..PARENT_LENGTH).unwrap_or_default().split(|byte| *byte == b'-');
    let [Some(version), Some(trace), Some(parent), Some(flags), None] = std::array::from_fn(|_| parts.next()) else {
        return false;
    };
    let parts = [(version, 2), (trace, 32), (parent, 16), (flags, 2)];
    let is_whole = parts.iter().all(|(part, length)| part.len() == *length && is_hexadecimal(part));
    let are_ids = [trace, parent].iter().all(|id| id.iter().any(|digit| *digit != b'0'));
    // What a version to come has more of is not read, but it is to be no free text.
    let rest = value.get(PARENT_LENGTH..).unwrap_or_default();
    let is_known = match version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => match rest {
            [] => true,
            [b'-', rest @ ..] => value.len() <= MAX_PARENT && rest.split(|byte| *byte == b'-').all(is_hexadecimal),
            _ => false,
        },
    };
    is_whole && are_ids && is_known
}

/// `vendor=value,tenant@vendor=value` (section 3.3.1.3); empty members are allowed.
fn is_state(value: &[u8]) -> bool {
    let mut members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    value.len() <= MAX_STATE
        && members.clone().count() <= MAX_MEMBERS
        && members.all(|member| member.is_empty() || is_member(member))
}

fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = member.split_at(at);
    let value = value.get(1..).unwrap_or_default();
    let is_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_value = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    matches!(key.first(), Some(b'a'..=b'z' | b'0'..=b'9'))
        && key.len() <= 256
        && key.iter().all(is_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(is_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_trace_is_taken_and_no_other() {
        let changed = |from: &str, to: &str| PARENT.replacen(from, to, 1);
        for (parent, is_valid) in [
            (PARENT.to_owned(), true),
            (changed("-01", "-00"), true),
            (changed("00-", "cc-"), true),
            (changed("00-", "cc-") + "-0af7-01", true),
            (changed("00-", "cc-") + "-secret", false),
            (changed("00-", "cc-") + "0", false),
            (changed("00-", "cc-") + &"-00".repeat(100), false),
            (changed("00-", "ff-"), false),
            (PARENT.to_owned() + "-00", false),
            (PARENT.to_uppercase(), false),
            (changed("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), false),
            (changed("b7ad6b7169203331", &"0".repeat(16)), false),
            (changed("0af7", "0afg"), false),
            (changed("0af7", "0af"), false),
            (changed("-b7", "_b7"), false),
            (format!(" {PARENT}"), false),
            (String::new(), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&TRACEPARENT, HeaderValue::from_bytes(parent.as_bytes()).expect("a value"));
            let trace = Trace::of(&headers);
            assert_eq!(trace.is_some(), is_valid, "{parent}");
            if let Some(trace) = trace {
                assert_eq!(trace.id(), "0af7651916cd43dd8448eb211c80319c");
            }
            headers.append(&TRACEPARENT, HeaderValue::from_static(PARENT));
            assert!(Trace::of(&headers).is_none(), "there may be one");
        }
    }

    #[test]
    fn a_state_comes_along_with_a_trace_if_it_is_valid() {
        let many = |count| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        for (state, is_valid) in [
            ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", true),
            ("fw529a3039@dt=FfAAAA; x", true),
            ("a=1, b=2 ,, ,", true),
            (&many(32), true),
            (&many(33), false),
            (&format!("a={}", "x".repeat(600)), false),
            ("A=1", false),
            ("a", false),
            ("a=", false),
            ("a=b=c", false),
            ("=1", false),
            ("a=\t1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&TRACESTATE, HeaderValue::from_str(state).expect("a value"));
            assert!(Trace::of(&headers).is_none(), "it means nothing by itself");
            headers.insert(&TRACEPARENT, HeaderValue::from_static(PARENT));
            let trace = Trace::of(&headers).expect("a trace");
            let passed_on: Vec<_> = trace.headers().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            let both = [("traceparent", PARENT.as_bytes()), ("tracestate", state.as_bytes())];
            assert_eq!(passed_on, both[..1 + usize::from(is_valid)], "{state}");
        }
    }
}
