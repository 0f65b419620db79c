//! `/`: the status page, one file with its own style and script, which reads `/status`.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page, and the policy that lets a browser take from it only the style and the script that are in it.
pub(super) struct Page {
    /// The whole file.
    pub html: String,
    /// The value of `Content-Security-Policy`.
    pub policy: String,
}

/// The one page there is.
pub(super) fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| {
        let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
        Page {
            html: HTML.replacen("{style}", STYLE, 1).replacen("{script}", SCRIPT, 1),
            policy: format!(
                "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                hash(STYLE),
                hash(SCRIPT)
            ),
        }
    });
    &PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_takes_nothing_from_elsewhere_and_makes_no_markup_of_what_it_is_given() {
        let Page { html, policy } = page();
        assert!(!html.contains("{style}") && !html.contains("{script}"));
        let addresses: Vec<_> =
            html.match_indices("://").map(|(at, _)| &html[at.saturating_sub(8)..(at + 20).min(html.len())]).collect();
        assert_eq!(addresses.len(), 1, "the name of SVG, and no address: {addresses:?}");
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
            "onclick",
            "Function(",
        ] {
            assert!(!html.contains(way), "{way}");
        }
        assert!(!policy.contains("unsafe") && policy.matches("sha256-").count() == 2, "{policy}");
    }
}
