//! Relative links and anchors of Markdown files, and of the Markdown in doc comments.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use crate::source::{self, File};

/// Every link that leads to no file, or to a heading that its file does not have.
pub(crate) fn broken() -> Vec<String> {
    let markdown = source::files("md");
    let anchors: HashMap<_, _> = markdown.iter().map(|file| (file.path.clone(), anchors(&file.text))).collect();
    let mut broken = Vec::new();
    for file in &markdown {
        check(file, &without_code(&file.text), &anchors, &mut broken);
    }
    for file in source::rust() {
        check(file, &without_code(&doc_comments(&file.text)), &anchors, &mut broken);
    }
    broken
}

fn check(file: &File, text: &str, anchors: &HashMap<String, BTreeSet<String>>, broken: &mut Vec<String>) {
    for link in targets(text) {
        // Elsewhere on the web; and rustdoc itself checks what is a path in the code.
        let is_rust = file.path.ends_with(".rs") && (link.contains("::") || !link.contains(['.', '/', '#']));
        if link.contains("://") || link.starts_with("mailto:") || is_rust {
            continue;
        }
        let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let path = match target {
            "" => file.path.clone(),
            _ => resolve(&file.path, target),
        };
        let is_found = source::root().join(&path).exists()
            && (anchor.is_empty() || anchors.get(&path).is_some_and(|known| known.contains(anchor)));
        if !is_found {
            broken.push(format!("{}: {link}", file.path));
        }
    }
}

/// The path of a link's target, relative to the repository's root.
fn resolve(file: &str, target: &str) -> String {
    let mut path = Path::new(file).parent().map(Path::to_path_buf).unwrap_or_default();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            Component::RootDir => path = PathBuf::new(),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// What the links of a text lead to: `](target)`, `](target "title")` and `[name]: target`.
fn targets(text: &str) -> Vec<String> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let defined = text.lines().filter_map(|line| line.trim().strip_prefix('[')?.split_once("]: ")).map(|(_, to)| to);
    inline.chain(defined).map(|target| target.trim().to_owned()).filter(|target| !target.is_empty()).collect()
}

/// A text without its code blocks and code spans.
fn without_code(text: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

fn doc_comments(source: &str) -> String {
    let docs = source.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!").or(line.strip_prefix("///"))
    });
    docs.flat_map(|line| [line, "\n"]).collect()
}

/// The anchors of a file's headings, as GitHub makes them: lower case, blanks to hyphens, punctuation left out, and a number
/// behind what has been there before. Anchors in HTML count as well.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let heading = line.trim_start_matches('#');
        if !is_code && heading.len() < line.len() && heading.starts_with(' ') {
            let anchor = slug(heading.trim());
            let repeated = (1..).map(|number| format!("{anchor}-{number}"));
            let free = std::iter::once(anchor.clone()).chain(repeated).find(|anchor| !anchors.contains(anchor));
            anchors.extend(free);
        }
        for attribute in ["id=\"", "name=\""] {
            anchors.extend(line.split(attribute).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    anchors
}

fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_and_anchors_are_read_as_github_reads_them() {
    let text = "# A `b`: c\n[x](#a-b-c) `[no](none)` [y](docs/a.md#b \"title\")\n[z]: ../c.md\n```\n# no\n[n](n)\n```\n# A b c\n";
    assert_eq!(targets(&without_code(text)), ["#a-b-c", "docs/a.md#b", "../c.md"]);
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a-b-c", "a-b-c-1"]);
    assert_eq!(resolve("docs/a/b.md", "../c.md"), "docs/c.md");
}
