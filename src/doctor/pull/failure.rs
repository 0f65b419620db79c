//! Why a pull has failed: who was asked, and has not given the image.

use super::{Asked, quoted};

/// What the clients of containers/image say of an image that they have, and that `policy.json` does not take.
const BY_POLICY: &str = "Source image rejected";

/// A pull that has failed.
pub(super) struct Failure<'a> {
    /// In the engine's words.
    pub cause: &'a str,
    pub asked: Asked,
    /// After the proxy the engine asks the source.
    pub asks_source: bool,
    /// The engine is known to pull this registry past the proxy.
    pub is_past: bool,
    /// The proxy runs, and counts what this host asks it for.
    pub is_counted: bool,
}

/// Whether the image was given, and refused by whoever has pulled it.
pub(super) fn is_by_policy(cause: &str) -> bool {
    cause.contains(BY_POLICY)
}

impl Failure<'_> {
    /// What has come of it, and why.
    pub(super) fn why(&self) -> String {
        let Self { cause, asked, asks_source, is_past, is_counted } = self;
        let source = match asks_source {
            true => "the source has not given the image",
            false => "the route is closed, so the source is not asked",
        };
        match asked {
            _ if is_by_policy(cause) => {
                "the image was given, and policy.json of whoever pulls refuses it, so nobody else is asked".to_owned()
            }
            Asked::Refused(said) if *asks_source => {
                format!("the proxy has answered {}, and {source} either", quoted(said))
            }
            Asked::Refused(said) => format!("the proxy has answered {}, and {source}", quoted(said)),
            Asked::Not if *is_counted && *is_past => format!("it was asked for past the proxy, and {source}"),
            Asked::Not if *is_counted => format!("the proxy was not asked, and {source}"),
            _ if *asks_source => "neither the proxy nor the source has given the image".to_owned(),
            _ => format!("the proxy has not given the image, and {source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    /// "Neither the proxy nor the source" was said of a source that nobody had asked.
    #[test]
    fn of_a_closed_route_no_source_is_said_to_have_failed() {
        let of = |is_closed, asked, never_closed: &[&str]| {
            let wanted = Wanted { is_closed, ..Wanted::new(&Image::parse("ghcr.io/org/app").expect("an image"), "") };
            let mut part = Examined::new(Part::Dockerd);
            part.ways.insert("ghcr.io".to_owned(), Way::Proxy);
            part.never_closed.extend(never_closed.iter().map(|name| (*name).to_owned()));
            judge(&mut part, "dockerd", &wanted, (Outcome::Failed("not found".to_owned()), asked), true);
            part.findings[0].why.clone()
        };
        let refused = || Asked::Refused("404".to_owned());
        for (is_closed, never_closed, says) in [
            (true, &[][..], "the route is closed, so the source is not asked"),
            (true, &["ghcr.io"], "the source"),
            (false, &[], "the source"),
        ] {
            for why in [of(is_closed, Asked::NotServed, never_closed), of(is_closed, refused(), never_closed)] {
                let is_asked =
                    why.contains("neither the proxy nor the source") || why.contains("has not given the image either");
                assert!(why.contains(says) && is_asked != (is_closed && never_closed.is_empty()), "{why}");
            }
        }
    }

    /// Neither the proxy nor the source had given the image, it was said of a proxy that had given it to a podman whose policy refused it, and
    /// of one that nobody had asked. The command that came with it tries the way to the registry, which was well.
    #[test]
    fn a_proxy_that_gave_the_image_or_was_not_asked_was_said_not_to_have_given_it() {
        const POLICY: &str = "Source image rejected: A signature was required, but no signature exists";
        const CHECK: &str = "acr-cache-proxy check --online";
        let past = || vec![("ghcr.io".to_owned(), Way::Source)];
        for (cause, asked, ways, serves, says, checks) in [
            (POLICY, Asked::Served, vec![], true, "the image was given, and policy.json", false),
            ("refused", Asked::Not, past(), true, "it was asked for past the proxy, and the source has not", false),
            ("refused", Asked::Not, vec![], true, "the proxy was not asked, and the source has not", false),
            ("refused", Asked::Not, vec![], false, "neither the proxy nor the source", true),
            ("refused", Asked::NotServed, vec![], true, "neither the proxy nor the source", true),
            ("refused", Asked::Refused("503".to_owned()), vec![], true, "the proxy has answered 503", true),
        ] {
            let wanted = Wanted::new(&Image::parse("ghcr.io/org/app").expect("an image"), "");
            let mut part = Examined::new(Part::Podman);
            part.ways.extend(ways);
            judge(&mut part, "podman", &wanted, (Outcome::Failed(cause.to_owned()), asked), serves);
            let Finding { why, fix, .. } = &part.findings[0];
            assert!(why.starts_with(says), "{why}");
            assert_eq!(fix.command.starts_with(CHECK), checks, "{why}: {fix:?}");
        }
    }
}
