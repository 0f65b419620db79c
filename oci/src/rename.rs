//! Replaces the repository's name of the cache registry by the client's name, in bodies and headers of responses.
//!
//! A function returns `None` if there is nothing to replace; the original is passed on then.

use std::borrow::Cow;

use serde_json::Value;

use crate::members::Members;

/// The two names of one repository.
#[derive(Clone, Copy, Debug)]
pub struct Renaming<'a> {
    /// The name in the cache registry.
    pub from: &'a str,
    /// The name that the client uses.
    pub to: &'a str,
    /// The registry that the client named in `ns`; it is added to URLs that the client follows.
    pub namespace: Option<&'a str>,
    /// The cache registry's host, with its port unless that is 443.
    pub authority: &'a str,
}

/// What follows the repository's name in a path.
const ENDPOINTS: [&str; 4] = ["/manifests/", "/blobs/", "/tags/list", "/referrers/"];
/// The members of an error's detail whose value is a repository's name; compared without regard to case.
const NAMES: [&str; 2] = ["name", "repository"];

impl Renaming<'_> {
    /// The body of a tag list with the client's `name`. All other values stay byte for byte.
    pub fn tags(&self, body: &[u8]) -> Option<Vec<u8>> {
        let Members(members) = serde_json::from_slice(body).ok()?;
        let mut written = Vec::with_capacity(body.len() + self.to.len());
        let mut found = false;
        for (key, value) in members {
            written.push(if written.is_empty() { b'{' } else { b',' });
            serde_json::to_writer(&mut written, &key).ok()?;
            written.push(b':');
            let is_name = key == "name" && serde_json::from_str::<Cow<'_, str>>(value.get()).ok()? == self.from;
            if is_name {
                found = true;
                serde_json::to_writer(&mut written, self.to).ok()?;
            } else {
                written.extend_from_slice(value.get().as_bytes());
            }
        }
        written.push(b'}');
        found.then_some(written)
    }

    /// An error body in which the name is replaced in every text.
    pub fn errors(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut body: Value = serde_json::from_slice(body).ok()?;
        let mut found = false;
        for error in body.get_mut("errors")?.as_array_mut()? {
            for part in ["message", "detail"] {
                if let Some(part) = error.get_mut(part) {
                    found |= self.texts(part, false);
                }
            }
        }
        found.then(|| body.to_string().into_bytes())
    }

    /// Replaces the name in every text of a value; true if there was one. The JSON parser has bounded the depth.
    fn texts(&self, value: &mut Value, is_name: bool) -> bool {
        match value {
            Value::String(text) if is_name && text == self.from => {
                self.to.clone_into(text);
                true
            }
            Value::String(text) => match self.text(text) {
                Some(renamed) => {
                    *text = renamed;
                    true
                }
                None => false,
            },
            Value::Array(items) => items.iter_mut().fold(false, |found, item| self.texts(item, false) | found),
            Value::Object(members) => members.iter_mut().fold(false, |found, (key, member)| {
                let is_name = NAMES.iter().any(|name| name.eq_ignore_ascii_case(key));
                self.texts(member, is_name) | found
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// A text with the name replaced wherever it is a whole name. The registry's host in front of it is removed.
    fn text(&self, text: &str) -> Option<String> {
        let mut renamed = String::new();
        let mut rest = 0;
        for (at, _) in text.match_indices(self.from) {
            let after = &text[at + self.from.len()..];
            let begin = if ends_a_name(after) { self.begin(&text[..at]) } else { None };
            if let Some(begin) = begin.filter(|begin| *begin >= rest) {
                renamed.push_str(&text[rest..begin]);
                renamed.push_str(self.to);
                rest = at + self.from.len();
            }
        }
        (rest > 0).then(|| renamed + &text[rest..])
    }

    /// Where the name that follows this text begins, including the registry's host; `None` if the match is only the end of a
    /// longer name. A name without a slash may be any word of a sentence, so it counts only after `/v2/` or the host.
    fn begin(&self, before: &str) -> Option<usize> {
        if before.ends_with("/v2/") {
            return Some(before.len());
        }
        let host = before.strip_suffix('/').and_then(|before| {
            let at = before.len().checked_sub(self.authority.len())?;
            before.get(at..)?.eq_ignore_ascii_case(self.authority).then_some(&before[..at])
        });
        match host {
            Some(scheme) if scheme.ends_with("://") => Some(before.len()),
            Some(words) => {
                (!words.ends_with(|c: char| c.is_ascii_alphanumeric() || ".-/".contains(c))).then_some(words.len())
            }
            None => (self.from.contains('/') && !before.ends_with(in_a_name)).then_some(before.len()),
        }
    }

    /// Whether all that a `Link` header leads to is a page of what has this path in the cache registry.
    pub fn links_to(&self, value: &str, path: &str) -> bool {
        let mut targets = value.split('<').skip(1).map(|rest| rest.split_once('>').map_or("", |(target, _)| target));
        let is_page =
            |target: &str| own_path(target, self.authority).and_then(|own| own.split('?').next()) == Some(path);
        value.contains('<') && targets.all(is_page)
    }

    /// A `Link` header (RFC 8288) in which targets of this repository have the client's name.
    pub fn link(&self, value: &str) -> Option<String> {
        let mut renamed = String::new();
        let (mut rest, mut found) = (value, false);
        while let Some((before, (target, after))) =
            rest.split_once('<').and_then(|(before, rest)| Some((before, rest.split_once('>')?)))
        {
            renamed.push_str(before);
            renamed.push('<');
            match self.location(target) {
                Some(target) => {
                    found = true;
                    renamed.push_str(&target);
                }
                None => renamed.push_str(target),
            }
            renamed.push('>');
            rest = after;
        }
        found.then(|| renamed + rest)
    }

    /// The same as [`Self::target`], with the client's `ns`, so that the client's next request takes the same route.
    pub fn location(&self, target: &str) -> Option<String> {
        let mut here = self.target(target)?;
        if let Some(namespace) = self.namespace {
            here.push_str(if here.contains('?') { "&ns=" } else { "?ns=" });
            here.extend(form_urlencoded::byte_serialize(namespace.as_bytes()));
        }
        Some(here)
    }

    /// The path in the proxy for a URL of this repository in the cache registry.
    pub fn target(&self, target: &str) -> Option<String> {
        let rest = own_path(target, self.authority)?.strip_prefix("/v2/")?.strip_prefix(self.from)?;
        rest.starts_with('/').then(|| format!("/v2/{}{rest}", self.to))
    }
}

/// The path and query of a URL that belongs to the registry: a path alone, or a URL with the registry's host in any case,
/// with or without the default port of the scheme (RFC 9110 section 4.2.3).
pub fn own_path<'a>(target: &'a str, authority: &str) -> Option<&'a str> {
    if target.starts_with('/') {
        return (!target.starts_with("//")).then_some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    let port = match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => ":443",
        _ if scheme.eq_ignore_ascii_case("http") => ":80",
        _ => return None,
    };
    let (host, path) = rest.split_at(rest.find('/')?);
    host.strip_suffix(port).unwrap_or(host).eq_ignore_ascii_case(authority).then_some(path)
}

fn in_a_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/')
}

/// Whether a name directly before this text ends there.
fn ends_a_name(after: &str) -> bool {
    let mut following = after.chars();
    match following.next() {
        Some('/') => ENDPOINTS.iter().any(|endpoint| after.starts_with(endpoint)),
        // The end of a sentence.
        Some('.') => !following.next().is_some_and(in_a_name),
        Some(c) => !in_a_name(c),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client that follows its links would ask another host, or for another repository.
    #[test]
    fn only_a_link_to_a_page_of_the_same_list_is_one() {
        let names = Renaming { from: "hub/a", to: "a", namespace: None, authority: "example.azurecr.io" };
        for (value, expected) in [
            ("</v2/hub/a/tags/list?last=x&n=5>; rel=\"next\"", true),
            ("<https://Example.azurecr.io/v2/hub/a/tags/list?last=x>; rel=next", true),
            ("<https://elsewhere.example/v2/hub/a/tags/list?last=x>; rel=\"next\"", false),
            ("<//elsewhere.example/v2/hub/a/tags/list>; rel=\"next\"", false),
            ("</v2/hub/other/tags/list?last=x>; rel=\"next\"", false),
            ("</v2/hub/a/../other/tags/list>; rel=\"next\"", false),
            ("</v2/hub/a/tags/list/../list>; rel=\"next\"", false),
            ("</v2/hub/a/tags/list>; rel=\"next\", <javascript:x>; rel=\"prev\"", false),
            ("nothing", false),
        ] {
            assert_eq!(names.links_to(value, "/v2/hub/a/tags/list"), expected, "{value}");
        }
    }

    const THERE: Renaming<'_> =
        Renaming { from: "hub/library/busybox", to: "busybox", namespace: None, authority: "example.azurecr.io" };

    fn text(body: Option<Vec<u8>>) -> Option<String> {
        body.map(|body| String::from_utf8(body).expect("UTF-8"))
    }

    #[test]
    fn a_tag_list_gets_the_clients_name_and_is_otherwise_unchanged() {
        for (body, expected) in [
            (
                r#"{"name":"hub/library/busybox","tags":["latest", "1.36"]}"#,
                Some(r#"{"name":"busybox","tags":["latest", "1.36"]}"#),
            ),
            (
                r#"{ "tags" : null, "x": {"name":"hub/library/busybox"}, "name" : "hub\/library\/busybox" }"#,
                Some(r#"{"tags":null,"x":{"name":"hub/library/busybox"},"name":"busybox"}"#),
            ),
            (r#"{"name":"other","tags":[]}"#, None),
            (r#"{"name":7}"#, None),
            (r#"["hub/library/busybox"]"#, None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(text(THERE.tags(body.as_bytes())).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn an_error_speaks_of_the_clients_repository() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"m","detail":{"name":"hub/library/busybox"}}]}"#,
                Some(r#"{"errors":[{"code":"NAME_UNKNOWN","detail":{"name":"busybox"},"message":"m"}]}"#),
            ),
            (
                r#"{"errors":[{"detail":[{"Type":"repository","Name":"hub/library/busybox","Action":"pull"}]}]}"#,
                Some(r#"{"errors":[{"detail":[{"Action":"pull","Name":"busybox","Type":"repository"}]}]}"#),
            ),
            (r#"{"errors":[{"message":"hub/library/busybox2 and x/hub/library/busybox"}]}"#, None),
            (r#"{"errors":"hub/library/busybox"}"#, None),
            (r#"{"errors":[]}"#, None),
            ("hub/library/busybox", None),
        ] {
            assert_eq!(text(THERE.errors(body.as_bytes())).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_name_in_a_sentence_is_replaced_as_a_whole() {
        for (text, expected) in [
            ("hub/library/busybox", Some("busybox")),
            ("no hub/library/busybox:latest, hub/library/busybox.", Some("no busybox:latest, busybox.")),
            ("GET /v2/hub/library/busybox/manifests/x", Some("GET /v2/busybox/manifests/x")),
            (
                "https://example.azurecr.io/v2/hub/library/busybox/tags/list",
                Some("https://example.azurecr.io/v2/busybox/tags/list"),
            ),
            (
                "hub/library/busybox/manifests/x and hub/library/busybox/blobs/y",
                Some("busybox/manifests/x and busybox/blobs/y"),
            ),
            ("pull example.azurecr.io/hub/library/busybox:1 failed", Some("pull busybox:1 failed")),
            ("\"Example.azurecr.io/hub/library/busybox\"", Some("\"busybox\"")),
            ("https://example.azurecr.io/hub/library/busybox", Some("https://example.azurecr.io/busybox")),
            ("my-example.azurecr.io/hub/library/busybox", None),
            ("example.azurecr.io/x/hub/library/busybox", None),
            ("elsewhere.example/hub/library/busybox", None),
            ("/v2/hub/library/busybox/x/manifests/y", None),
            ("hub/library/busybox/x", None),
            ("hub/library/busybox.x", None),
            ("my-hub/library/busybox", None),
        ] {
            assert_eq!(THERE.text(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_name_of_one_word_is_no_word_of_a_sentence() {
        let one = Renaming { from: "repository", to: "quay.io/repository", ..THERE };
        for (body, expected) in [
            (
                r#"{"errors":[{"detail":[{"Action":"pull","Name":"repository","Type":"repository"}]}]}"#,
                Some(r#"{"errors":[{"detail":[{"Action":"pull","Name":"quay.io/repository","Type":"repository"}]}]}"#),
            ),
            (
                r#"{"errors":[{"message":"repository unknown: GET /v2/repository/tags/list"}]}"#,
                Some(r#"{"errors":[{"message":"repository unknown: GET /v2/quay.io/repository/tags/list"}]}"#),
            ),
            (
                r#"{"errors":[{"message":"no repository example.azurecr.io/repository"}]}"#,
                Some(r#"{"errors":[{"message":"no repository quay.io/repository"}]}"#),
            ),
            (r#"{"errors":[{"detail":"repository","message":"repository name not known to registry"}]}"#, None),
        ] {
            assert_eq!(text(one.errors(body.as_bytes())).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn an_address_leads_back_through_the_proxy_if_it_is_the_registrys_own() {
        let named = Renaming { namespace: Some("docker.io"), ..THERE };
        let path = "/v2/hub/library/busybox/blobs/x";
        for (authority, target, is_own) in [
            ("example.azurecr.io", path.to_owned(), true),
            ("example.azurecr.io", format!("https://example.azurecr.io{path}"), true),
            ("example.azurecr.io", format!("https://Example.azurecr.io:443{path}"), true),
            ("example.azurecr.io", format!("HTTPS://example.azurecr.io:443{path}"), true),
            ("example.azurecr.io", format!("http://example.azurecr.io:80{path}"), true),
            ("example.azurecr.io", format!("https://example.azurecr.io:80{path}"), false),
            ("example.azurecr.io", format!("https://example.azurecr.io:8443{path}"), false),
            ("example.azurecr.io", format!("https://example.azurecr.io.evil.example{path}"), false),
            ("example.azurecr.io", format!("//example.azurecr.io{path}"), false),
            ("example.azurecr.io", format!("ftp://example.azurecr.io{path}"), false),
            ("example.azurecr.io", "https://example.azurecr.io".to_owned(), false),
            ("example.azurecr.io:5000", format!("https://example.azurecr.io:5000{path}"), true),
            ("example.azurecr.io:5000", format!("https://example.azurecr.io{path}"), false),
        ] {
            let expected = is_own.then(|| "/v2/busybox/blobs/x?ns=docker.io".to_owned());
            assert_eq!(Renaming { authority, ..named }.location(&target), expected, "{authority} {target}");
        }
    }

    #[test]
    fn a_link_leads_back_through_the_proxy() {
        let named = Renaming { namespace: Some("docker.io"), ..THERE };
        let next = "</v2/hub/library/busybox/tags/list?last=v1&n=2&orderby=>; rel=\"next\"";
        for (renaming, value, expected) in [
            (THERE, next, Some("</v2/busybox/tags/list?last=v1&n=2&orderby=>; rel=\"next\"")),
            (named, next, Some("</v2/busybox/tags/list?last=v1&n=2&orderby=&ns=docker.io>; rel=\"next\"")),
            (
                named,
                "<https://Example.azurecr.io:443/v2/hub/library/busybox/tags/list>; rel=next, </other>; rel=prev",
                Some("</v2/busybox/tags/list?ns=docker.io>; rel=next, </other>; rel=prev"),
            ),
            (THERE, "<https://elsewhere/v2/hub/library/busybox/tags/list>", None),
            (THERE, "</v2/hub/library/busybox2/tags/list>", None),
            (THERE, "</v2/hub/library/busybox", None),
            (THERE, "", None),
        ] {
            assert_eq!(renaming.link(value).as_deref(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_round_trip_ends_where_it_began(
            name in "[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?(/[a-z0-9]{1,5}){0,3}",
            prefix in "[a-z]{1,4}(/[a-z]{1,4})?",
            tail in "/(tags/list|manifests/[a-z]{1,5}|referrers/sha256:[a-f0-9]{64})(\\?[a-z]=[a-z0-9]{1,4})?",
        ) {
            let from = format!("{prefix}/{name}");
            let renaming = Renaming { from: &from, to: &name, ..THERE };
            let there = format!("/v2/{from}{tail}");
            prop_assert_eq!(renaming.target(&there), Some(format!("/v2/{name}{tail}")));
            let list = format!("{{\"name\":{:?},\"tags\":[]}}", from);
            prop_assert_eq!(text(renaming.tags(list.as_bytes())), Some(format!("{{\"name\":{name:?},\"tags\":[]}}")));
        }

        #[test]
        fn no_text_of_a_registry_causes_a_panic(body in ".{0,200}", from in "[a-z]{1,3}", value in "[<>/v2a;,=\" ]{0,60}") {
            let renaming = Renaming { from: &from, to: "x", namespace: Some("y"), authority: "a" };
            let (_, _) = (renaming.tags(body.as_bytes()), renaming.errors(body.as_bytes()));
            let (_, _, _) = (renaming.text(&body), renaming.link(&value), renaming.target(&value));
        }
    }
}
