//! Parses a request of the pull API: method, path and query become a [`Request`] or a [`Refusal`].

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{Method, StatusCode};

use crate::error::{Code, Refusal};
use crate::name::{Digest, Name, Repository, Tag};

mod list;

pub use list::{Filter, Page};

/// The longest defined query is a media type of 255 characters, percent-encoded.
pub(crate) const MAX_QUERY: usize = 2048;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `GET /v2/`: whether this is a registry.
    Ping,
    /// Content of a repository.
    Pull(Pull<'a>),
}

/// What a client asks of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull<'a> {
    /// The repository's name in the path.
    pub name: Name<'a>,
    /// The registry of the name, which containerd sends as `ns`.
    pub namespace: Option<Cow<'a, str>>,
    /// What is asked for.
    pub resource: Resource<'a>,
}

/// The part of a repository that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Reference<'a>),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Digest<'a>),
    /// `/v2/<name>/tags/list[?n=&last=]`
    Tags(Page<'a>),
    /// `/v2/<name>/referrers/<digest>[?artifactType=]`
    Referrers(Digest<'a>, Filter<'a>),
}

/// A tag or a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// By tag.
    Tag(Tag<'a>),
    /// By digest.
    Digest(Digest<'a>),
}

impl<'a> Request<'a> {
    /// Parses the path from its end, because a name may contain the words of endpoints. Everything else is refused: other
    /// methods with 405, other paths with 404, invalid names, tags, digests and parameters with 400.
    pub fn parse(method: &Method, path: &'a str, query: Option<&'a str>) -> Result<Self, Refusal> {
        if method != Method::GET && method != Method::HEAD {
            return Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                "this proxy only pulls: GET and HEAD",
            ));
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Ping),
            Some(rest) if rest.starts_with('/') => &rest[1..],
            _ => return Err(unknown(path)),
        };
        let query = query.unwrap_or_default();
        if query.len() > MAX_QUERY {
            return Err(invalid(Code::Unsupported, "the query is too long", ""));
        }
        // Checked first: such a path is an attack, not a mistyped endpoint.
        let (before, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        let escapes = before.contains('%') || rest.contains('\\') || rest.contains("//") || rest.starts_with('/');
        if escapes || rest.bytes().any(|byte| !byte.is_ascii_graphic()) || rest.split('/').any(is_dot_segment) {
            return Err(invalid(
                Code::NameInvalid,
                "the path has a dot segment, an encoding or a character that no name has",
                rest,
            ));
        }
        let (name, endpoint) = before.rsplit_once('/').unwrap_or(("", before));
        let (name, resource) = match endpoint {
            "manifests" => (parse_name(name)?, Resource::Manifest(Reference::parse(last)?)),
            "blobs" => (parse_name(name)?, Resource::Blob(parse_digest(last)?)),
            "referrers" => (parse_name(name)?, Resource::Referrers(parse_digest(last)?, Filter::parse(query)?)),
            "tags" if last == "list" => (parse_name(name)?, Resource::Tags(Page::parse(query)?)),
            _ if last.contains('%') => return Err(invalid(Code::NameInvalid, "a name has no percent-encoding", rest)),
            _ => return Err(unknown(path)),
        };
        Ok(Self::Pull(Pull { name, namespace: namespace(query)?, resource }))
    }
}

impl Pull<'_> {
    /// Path and query in the registry, `/v2/<repository>/…`, written from the parsed parts, so that nothing unparsed of the
    /// client's request is passed on.
    pub fn upstream_target(&self, repository: &Repository<'_>) -> String {
        /// Room for `/referrers/` and a sha256 digest; longer targets, which are rare, grow the buffer.
        const TAIL: usize = 96;
        let mut target = String::with_capacity("/v2/".len() + repository.len() + TAIL);
        target.push_str("/v2/");
        repository.push_to(&mut target);
        // Writing to a String does not fail.
        let _ = match &self.resource {
            Resource::Manifest(Reference::Tag(tag)) => {
                target.push_str("/manifests/");
                target.push_str(tag.as_str());
                Ok(())
            }
            Resource::Manifest(Reference::Digest(digest)) => write!(target, "/manifests/{digest}"),
            Resource::Blob(digest) => write!(target, "/blobs/{digest}"),
            Resource::Tags(page) => {
                page.write(&mut target);
                Ok(())
            }
            Resource::Referrers(digest, filter) => {
                let written = write!(target, "/referrers/{digest}");
                filter.write(&mut target);
                written
            }
        };
        target
    }
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(invalid(Code::ManifestInvalid, "there is no tag and no digest", text));
        }
        if Digest::is_meant(text) {
            return parse_digest(text).map(Self::Digest);
        }
        let tag = Tag::parse(text).ok_or_else(|| {
            invalid(
                Code::TagInvalid,
                "a tag has up to 128 letters, digits, '_', '.' and '-', the last two not first",
                text,
            )
        })?;
        Ok(Self::Tag(tag))
    }
}

fn namespace(query: &str) -> Result<Option<Cow<'_, str>>, Refusal> {
    if query.is_empty() {
        return Ok(None);
    }
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "ns").map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(second)) => Err(invalid(Code::NameInvalid, "ns is one registry", &second)),
        (first, None) => Ok(first.filter(|value| !value.is_empty())),
    }
}

fn is_dot_segment(segment: &str) -> bool {
    segment == "." || segment == ".."
}

fn parse_name(text: &str) -> Result<Name<'_>, Refusal> {
    Name::parse(text).ok_or_else(|| {
        invalid(
            Code::NameInvalid,
            "a name is lower-case letters, digits and single separators, 255 characters at most",
            text,
        )
    })
}

fn parse_digest(text: &str) -> Result<Digest<'_>, Refusal> {
    Digest::parse(text).ok_or_else(|| {
        invalid(
            Code::DigestInvalid,
            "a digest is an algorithm and its value, such as sha256: and 64 hex digits, or sha512: and 128",
            text,
        )
    })
}

fn invalid(code: Code, message: &'static str, about: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message).with_detail(about)
}

fn unknown(path: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        Code::Unsupported,
        "this proxy has the pull API only: /v2/<name>/manifests, blobs, tags/list, referrers",
    )
    .with_detail(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn target(path: &str, query: &str) -> Result<String, Refusal> {
        let query = (!query.is_empty()).then_some(query);
        Request::parse(&Method::GET, path, query).map(|request| match request {
            Request::Ping => "/v2/".to_owned(),
            Request::Pull(pull) => pull.upstream_target(&Repository::new("hub", false, pull.name.as_str())),
        })
    }

    #[test]
    fn every_pull_gets_the_prefix() {
        let coded = DIGEST.replace(':', "%3A");
        for (path, query, expected) in [
            (
                "/v2/library/busybox/manifests/latest".to_owned(),
                "",
                "/v2/hub/library/busybox/manifests/latest".to_owned(),
            ),
            (
                format!("/v2/library/busybox/manifests/{DIGEST}"),
                "ns=docker.io",
                format!("/v2/hub/library/busybox/manifests/{DIGEST}"),
            ),
            (format!("/v2/library/busybox/blobs/{coded}"), "", format!("/v2/hub/library/busybox/blobs/{DIGEST}")),
            (
                format!("/v2/a/referrers/{DIGEST}"),
                "x=1&artifactType=application%2Fvnd.x%2Bjson",
                format!("/v2/hub/a/referrers/{DIGEST}?artifactType=application%2Fvnd.x%2Bjson&x=1"),
            ),
            (format!("/v2/a/referrers/{DIGEST}"), "", format!("/v2/hub/a/referrers/{DIGEST}")),
            (
                format!("/v2/a/referrers/{DIGEST}"),
                "nextToken=a%2Bb%2F%26&ns=docker.io",
                format!("/v2/hub/a/referrers/{DIGEST}?nextToken=a%2Bb%2F%26"),
            ),
            (
                "/v2/a/tags/list".to_owned(),
                "last=v1&n=2&orderby=&ns=docker.io",
                "/v2/hub/a/tags/list?n=2&last=v1&orderby=".to_owned(),
            ),
            // Unknown parameters, which a registry may use to continue a list.
            (
                "/v2/a/tags/list".to_owned(),
                "c%C3%B3ntinue=%2F..%2F%23%26ns=%0d",
                "/v2/hub/a/tags/list?c%C3%B3ntinue=%2F..%2F%23%26ns%3D%0D".to_owned(),
            ),
            (
                "/v2/a/tags/list".to_owned(),
                "Access_Token=x&password=y&sig=z&s=a&nextToken=t&=v",
                "/v2/hub/a/tags/list?nextToken=t".to_owned(),
            ),
            ("/v2/a/manifests/b".to_owned(), "nextToken=t&ns=docker.io", "/v2/hub/a/manifests/b".to_owned()),
            ("/v2/a/tags/list".to_owned(), "ns=docker.io&last=", "/v2/hub/a/tags/list".to_owned()),
            // The words of endpoints are valid names.
            (
                "/v2/tags/list/manifests/blobs/tags/list".to_owned(),
                "",
                "/v2/hub/tags/list/manifests/blobs/tags/list".to_owned(),
            ),
            ("/v2/manifests/manifests/manifests".to_owned(), "", "/v2/hub/manifests/manifests/manifests".to_owned()),
            ("/v2/a/blobs/uploads/manifests/x".to_owned(), "", "/v2/hub/a/blobs/uploads/manifests/x".to_owned()),
        ] {
            assert_eq!(target(&path, query).as_deref(), Ok(expected.as_str()), "{path}?{query}");
        }
        assert_eq!(target("/v2/", "").as_deref(), Ok("/v2/"));
        assert_eq!(target("/v2", "").as_deref(), Ok("/v2/"));
        let Ok(Request::Pull(root)) = Request::parse(&Method::HEAD, "/v2/a/b/tags/list", None) else { panic!() };
        assert_eq!(root.upstream_target(&Repository::new("", false, "a/b")), "/v2/a/b/tags/list");
    }

    #[test]
    fn everything_else_is_refused_with_its_own_code() {
        for (path, query, status, code) in [
            ("/", "", 404, Code::Unsupported),
            ("/v1/search", "", 404, Code::Unsupported),
            ("/v2x/a/manifests/b", "", 404, Code::Unsupported),
            ("/v2/_catalog", "", 404, Code::Unsupported),
            ("/v2/a", "", 404, Code::Unsupported),
            ("/v2/a/tags/lists", "", 404, Code::Unsupported),
            ("/v2/a/blobs/uploads/", "", 404, Code::Unsupported),
            ("/v2/a/blobs/uploads/0c8e", "", 404, Code::Unsupported),
            ("/v2/a/manifests/b/", "", 404, Code::Unsupported),
            ("/v2/manifests/latest", "", 400, Code::NameInvalid),
            ("/v2//manifests/latest", "", 400, Code::NameInvalid),
            ("/v2//_catalog", "", 400, Code::NameInvalid),
            ("/v2/../_catalog", "", 400, Code::NameInvalid),
            ("/v2/a/../_catalog", "", 400, Code::NameInvalid),
            ("/v2/a/./b/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/a/manifests/..", "", 400, Code::NameInvalid),
            ("/v2/%2e%2e/a/manifests/b", "", 400, Code::NameInvalid),
            ("/v2/a%2fb/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/a/tags%2flist", "", 400, Code::NameInvalid),
            ("/v2/a%00/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/a\\b/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/a/b/manifests/c\\d", "", 400, Code::NameInvalid),
            ("/v2/A/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/é/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/a\u{7f}/manifests/c", "", 400, Code::NameInvalid),
            ("/v2/a/manifests/", "", 400, Code::ManifestInvalid),
            ("/v2/a/manifests/.x", "", 400, Code::TagInvalid),
            ("/v2/a/manifests/%2e%2e", "", 400, Code::TagInvalid),
            ("/v2/a/manifests/x%2fy", "", 400, Code::TagInvalid),
            ("/v2/a/manifests/sha256:12", "", 400, Code::DigestInvalid),
            ("/v2/a/manifests/sha256%3a12", "", 400, Code::DigestInvalid),
            ("/v2/a/manifests/:", "", 400, Code::DigestInvalid),
            ("/v2/a/blobs/latest", "", 400, Code::DigestInvalid),
            ("/v2/a/blobs/sha256:%2e%2e", "", 400, Code::DigestInvalid),
            ("/v2/a/referrers/x", "", 400, Code::DigestInvalid),
            ("/v2/a/tags/list", "n=1&n=2", 400, Code::PaginationNumberInvalid),
            ("/v2/a/tags/list", "n=-1", 400, Code::PaginationNumberInvalid),
            ("/v2/a/tags/list", "n=+1", 400, Code::PaginationNumberInvalid),
            ("/v2/a/tags/list", "n=99999999999", 400, Code::PaginationNumberInvalid),
            ("/v2/a/tags/list", "last=a%26n%3D1", 400, Code::TagInvalid),
            ("/v2/a/tags/list", "last=a&last=b", 400, Code::TagInvalid),
            ("/v2/a/manifests/b", "ns=docker.io&ns=ghcr.io", 400, Code::NameInvalid),
            ("/v2/a/tags/list", "next=a&next=b", 400, Code::Unsupported),
            ("/v2/a/tags/list", "a=&b=&c=&d=&e=&f=&g=&h=&i=", 400, Code::Unsupported),
        ] {
            let refusal = target(path, query).expect_err(path);
            assert_eq!((refusal.status().as_u16(), refusal.code()), (status, code), "{path}?{query}");
        }
        let long = "x".repeat(MAX_QUERY + 1);
        assert!(target("/v2/a/manifests/b", &long).is_err());
        for kind in ["x", "a/b/c", "a/b;c=d", "a%0d/b", "a/b&artifactType=c/d"] {
            let refusal = target(&format!("/v2/a/referrers/{DIGEST}"), &format!("artifactType={kind}"));
            assert_eq!(refusal.expect_err(kind).status(), 400, "{kind}");
        }
        for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let refusal = Request::parse(&method, "/v2/", None).expect_err("refused");
            assert_eq!((refusal.status().as_u16(), refusal.code()), (405, Code::Unsupported), "{method}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn nothing_gets_out_of_the_prefix(
            path in prop_oneof![
                "(/v2)?(/(manifests|blobs|tags|list|referrers|[a-z]|\\.\\.|%2e|%2f|//|\\\\|sha256:[a-f0-9]{64}|.)){0,8}",
                ".{0,40}",
            ],
            query in "([a-zA-Z]{1,12}=[a-zA-Z0-9/%+.&=-]{0,12}&?){0,3}",
        ) {
            if let Ok(target) = target(&path, &query) {
                prop_assert!(target == "/v2/" || target.starts_with("/v2/hub/"), "{:?} -> {}", path, target);
                let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                prop_assert!(!path.split('/').any(is_dot_segment) && !path.contains('%') && !path.contains("//"), "{}", target);
                prop_assert!(path.bytes().chain(query.bytes()).all(|byte| byte.is_ascii_graphic()), "{}", target);
            }
        }

        #[test]
        fn what_is_valid_arrives_unchanged(
            name in "[a-z0-9]{1,5}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}(__[a-z0-9]{1,5})?){0,3}",
            tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        ) {
            let path = format!("/v2/{name}/manifests/{tag}");
            prop_assert_eq!(target(&path, ""), Ok(format!("/v2/hub/{name}/manifests/{tag}")));
        }
    }
}
