//! Which part of a list is asked for: the queries of a tag list and of referrers, parsed and written.

use std::borrow::Cow;

use super::invalid;
use crate::error::{Code, Refusal};
use crate::name::Tag;

/// RFC 6838 section 4.2: each half of a media type has 127 characters at most.
const MAX_MEDIA_TYPE_PART: usize = 127;

/// Which part of a tag list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<'a> {
    n: Option<u32>,
    /// A valid tag.
    last: Option<Cow<'a, str>>,
    next: Continuation<'a>,
}

/// Which referrers, and from where on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// A valid media type.
    artifact_type: Option<Cow<'a, str>>,
    next: Continuation<'a>,
}

/// What a `Link` of the registry's continues a list by. The specification leaves open what that is, so whatever stands in
/// the query of a list is handed back to who may have written it: a few pairs, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Continuation<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Page<'a> {
    pub(super) fn parse(query: &'a str) -> Result<Self, Refusal> {
        let mut page = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "n" => {
                    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                    let n = value.parse().ok().filter(|_| digits && page.n.is_none());
                    page.n = Some(n.ok_or_else(|| invalid(Code::PaginationNumberInvalid, "n is one number", &value))?);
                }
                // Empty is how a first page can be asked for.
                "last" if value.is_empty() => {}
                "last" if page.last.is_some() || Tag::parse(&value).is_none() => {
                    return Err(invalid(Code::TagInvalid, "last is one tag", &value));
                }
                "last" => page.last = Some(value),
                _ => page.next.add(name, value)?,
            }
        }
        Ok(page)
    }

    pub(super) fn write(&self, target: &mut String) {
        target.push_str("/tags/list");
        let mut query = Query { target, separator: '?' };
        if let Some(n) = self.n {
            query.push("n", &n.to_string());
        }
        if let Some(last) = &self.last {
            query.push("last", last);
        }
        self.next.write(&mut query);
    }
}

impl<'a> Filter<'a> {
    pub(super) fn parse(query: &'a str) -> Result<Self, Refusal> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "artifactType" if value.is_empty() => {}
                "artifactType" if filter.artifact_type.is_some() || !is_media_type(&value) => {
                    return Err(invalid(Code::Unsupported, "artifactType is one media type", &value));
                }
                "artifactType" => filter.artifact_type = Some(value),
                _ => filter.next.add(name, value)?,
            }
        }
        Ok(filter)
    }

    pub(super) fn write(&self, target: &mut String) {
        let mut query = Query { target, separator: '?' };
        if let Some(artifact_type) = &self.artifact_type {
            query.push("artifactType", artifact_type);
        }
        self.next.write(&mut query);
    }
}

impl<'a> Continuation<'a> {
    /// Known ones have two or three.
    const MAX_PAIRS: usize = 8;
    /// The client's own words to this proxy, and what no list is continued by: a credential goes no further, not even in a
    /// query.
    const NOT_PASSED_ON: [&'static str; 13] = [
        "ns",
        "access_token",
        "refresh_token",
        "id_token",
        "token",
        "authorization",
        "username",
        "password",
        "client_secret",
        "secret",
        "sig",
        // A data endpoint's signature.
        "s",
        "signature",
    ];

    fn add(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Refusal> {
        if name.is_empty() || Self::NOT_PASSED_ON.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return Ok(());
        }
        if self.0.len() == Self::MAX_PAIRS || self.0.iter().any(|(known, _)| *known == name) {
            return Err(invalid(Code::Unsupported, "a list is continued from one place, by a few parameters", &name));
        }
        self.0.push((name, value));
        Ok(())
    }

    fn write(&self, query: &mut Query<'_>) {
        for (name, value) in &self.0 {
            query.push(name, value);
        }
    }
}

/// A query while it is written.
struct Query<'a> {
    target: &'a mut String,
    separator: char,
}

impl Query<'_> {
    /// Both encoded, whatever they are.
    fn push(&mut self, name: &str, value: &str) {
        self.target.push(self.separator);
        self.separator = '&';
        self.target.extend(form_urlencoded::byte_serialize(name.as_bytes()));
        self.target.push('=');
        self.target.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }
}

/// RFC 6838 section 4.2.
fn is_media_type(text: &str) -> bool {
    text.split_once('/').is_some_and(|(kind, subtype)| {
        [kind, subtype].into_iter().all(|part| {
            part.len() <= MAX_MEDIA_TYPE_PART
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        })
    })
}
