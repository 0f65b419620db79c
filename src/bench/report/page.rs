//! One page with everything, which needs nothing else.

use super::plot::{self, escaped};
use super::{About, Summary, table};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:880px;margin:2em auto;padding:0 1em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}pre{font:12px/1.45 ui-monospace,monospace;overflow-x:auto;background:#f6f6f4;padding:1em}@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#0d1117}pre{background:#161b22}}svg{max-width:100%;height:auto}";

pub fn render(about: &About, summaries: &[Summary], interrupted: bool) -> String {
    let mut body = format!("<pre>{}</pre>", escaped(&table::head(about)));
    if interrupted {
        body += &format!("<p>{}</p>", table::INTERRUPTED);
    }
    for summary in summaries {
        body += &format!("<h2>{}</h2><pre>{}</pre>", escaped(&summary.heading), escaped(&table::level(summary)));
        for plot in plot::of_level(summary) {
            body += &format!("<p>{plot}</p>");
        }
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\"><title>acr-cache-proxy bench</title><style>{STYLE}</style></head><body><h1>Pulls through the proxy, and direct ones</h1>{body}</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_well_formed() {
        let (about, summaries) = super::super::tests::summaries();
        let page = super::render(&about, &summaries, false);
        super::super::plot::tests::assert_well_formed(&page);
        assert!(page.contains("GET /v2/&lt;a&gt;") && page.contains("<svg"), "{page}");
    }
}
