//! The report as one HTML page, which loads nothing else.

use super::cells::{self, DIFFERENCE};
use super::plot;
use super::{About, SHARES, Summary, answer};
use crate::digits::digits;
use crate::svg::escaped;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--quiet:#57606a;--ground:#fff;--band:#f6f6f4;--line:#ddd}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--quiet:#9aa3ad;--ground:#0d1117;--band:#161b22;--line:#30363d}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:880px;margin:2em auto;padding:0 1em}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
.answer{font-size:1.15em;font-weight:600}\
.wide{overflow-x:auto;margin:1em 0}\
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}\
th,td{padding:.2em .7em;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}\
th:first-child,.text{text-align:left}\
thead th{color:var(--quiet);font-weight:600}tbody th{font-weight:400}\
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}\
.whole{background:var(--band)}.whole th{font-weight:600}\
.note{color:var(--quiet);font-size:13px;margin:.3em 0}\
svg{max-width:100%;height:auto}";

pub(crate) fn render(about: &About, summaries: &[Summary], interrupted: bool) -> String {
    let mut body = String::new();
    for sentence in answer::render(summaries, interrupted) {
        body += &format!("<p class=\"answer\">{}</p>", escaped(&sentence));
    }
    body += &facts(about);
    for summary in summaries {
        body += &format!("<h2>{}</h2>{}{}", escaped(&summary.heading), phases(summary), counts(summary));
        for plot in plot::of_level(summary) {
            body += &format!("<p>{plot}</p>");
        }
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>acr-cache-proxy bench</title><style>{STYLE}</style></head><body><h1>Pulls through the proxy, and direct ones</h1>{body}</body></html>\n"
    )
}

fn facts(about: &About) -> String {
    let rows: String = cells::facts(about)
        .iter()
        .map(|(name, value)| format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escaped(value)))
        .collect();
    format!("<table class=\"facts\"><tbody>{rows}</tbody></table>")
}

fn phases(summary: &Summary) -> String {
    let is_paired = summary.sides.len() > 1;
    let shares: String = SHARES.iter().map(|(name, _)| column(name)).collect();
    let difference = if is_paired { column(DIFFERENCE) } else { String::new() };
    let mut rows = String::new();
    for (label, of_phase) in cells::phases(summary) {
        let is_whole = label == crate::phase::Phase::Whole.label();
        let class = if is_whole { " class=\"whole\"" } else { "" };
        let name = |span: usize| format!("<th scope=\"rowgroup\" rowspan=\"{span}\">{label}</th>");
        if of_phase.is_empty() {
            let columns = SHARES.len() + 2 + usize::from(is_paired);
            rows += &format!("<tr>{}<td class=\"text\" colspan=\"{columns}\">-</td></tr>", name(1));
        }
        let mut first = name(of_phase.len());
        for row in &of_phase {
            let values: String = row.values.iter().map(|value| cell(value)).collect();
            let difference = match &row.difference {
                Some([value, low, high]) => cell(&format!("{value} [{low}, {high}]")),
                None if is_paired => cell(""),
                None => String::new(),
            };
            rows += &format!(
                "<tr{class}>{}<td class=\"text\">{}</td>{}{values}{difference}</tr>",
                std::mem::take(&mut first),
                row.side.label(),
                cell(&row.count)
            );
        }
    }
    let notes: String = cells::notes(summary).iter().map(|note| format!("<p class=\"note\">{note}</p>")).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr>{}<th scope=\"col\" class=\"text\">side</th>{}{shares}{difference}</tr></thead><tbody>{rows}</tbody></table></div>{notes}",
        column("milliseconds"),
        column("n")
    )
}

fn counts(summary: &Summary) -> String {
    let sides: String = summary.sides.iter().map(|side| column(side.side.label())).collect();
    let rows: String = cells::counts(summary)
        .iter()
        .map(|(name, values)| {
            let values: String = values.iter().map(|value| cell(value)).collect();
            format!("<tr><th scope=\"row\">{name}</th>{values}</tr>")
        })
        .collect();
    let errors: String = cells::errors(summary).iter().map(|error| format!("<li>{}</li>", escaped(error))).collect();
    let errors = if errors.is_empty() { errors } else { format!("<ul>{errors}</ul>") };
    let took = column(&format!("{} s", digits(summary.elapsed.as_secs_f64())));
    format!(
        "<div class=\"wide\"><table><thead><tr>{took}{sides}</tr></thead><tbody>{rows}</tbody></table></div>{errors}"
    )
}

fn column(name: &str) -> String {
    format!("<th scope=\"col\">{name}</th>")
}

fn cell(text: &str) -> String {
    format!("<td>{text}</td>")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_well_formed_and_begins_with_the_answer() {
        let (about, summaries) = super::super::tests::summaries();
        let page = super::render(&about, &summaries, false);
        crate::svg::tests::assert_well_formed(&page);
        assert!(page.contains("GET /v2/&lt;a&gt;") && page.contains("<svg"), "{page}");
        let body = page.split_once("</h1>").expect("a heading").1;
        assert!(body.starts_with("<p class=\"answer\">1 of 101 direct pulls failed, 1 by a limit of requests. Through the proxy a pull takes 25.0 ms, a direct one"), "{page}");
        for part in ["2026-11-25T14:18:00Z", env!("CARGO_PKG_VERSION"), "bench --image 'a &amp; b'"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("<pre"), "its tables are tables");
    }

    /// A header cell that spans rows counts as a cell of each of them.
    #[test]
    fn every_row_of_a_table_is_as_wide_as_its_head() {
        let (about, summaries) = super::super::tests::summaries();
        let page = super::render(&about, &summaries, false);
        let spans = |row: &str, name: &str| -> usize {
            let of = |cell: &str| Some(cell.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.to_owned());
            let cells = row.split("<t").filter(|cell| cell.starts_with(['h', 'd']));
            cells.map(|cell| of(cell.split('>').next().unwrap_or_default()).map_or(1, |n| n.parse().expect("n"))).sum()
        };
        let tables: Vec<_> = page.split("<table>").skip(1).map(|table| table.split("</table>").next()).collect();
        assert_eq!(tables.len(), 2);
        for table in tables.into_iter().flatten() {
            let mut rows = table.split("<tr").skip(1);
            let width = spans(rows.next().expect("a head"), "colspan");
            let mut spanned = 0;
            for row in rows {
                assert_eq!(spans(row, "colspan") + usize::from(spanned > 0), width, "{row}");
                spanned = match row.contains("rowspan") {
                    true => row.split_once("rowspan=\"").expect("it").1[..1].parse::<usize>().expect("n") - 1,
                    false => spanned.saturating_sub(1),
                };
            }
        }
    }
}
