//! The messages that the documentation explains are ones that the program has.

use std::path::Path;

use crate::root;

/// Text of all sources of the daemon and of `oci`.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &std::fs::read_to_string(&path).expect("a text");
        }
    }
}

/// The words of a message that its format has, and no value in between: parts between dots, colons and digits.
fn words(message: &str) -> Vec<&str> {
    let parts = message
        .split("...")
        .flat_map(|part| part.split(": "))
        .flat_map(|part| part.split(|c: char| c.is_ascii_digit()));
    let parts = parts.map(|part| part.trim_matches(|c: char| !c.is_alphanumeric() && c != '?'));
    parts.filter(|part| part.split(' ').count() > 2).collect()
}

#[test]
fn every_message_that_is_explained_is_in_the_sources() {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    sources(&root().join("oci/src"), &mut text);
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).expect("a text");
    let section = page.split("\n## Log messages\n").nth(1).expect("the section");
    // An item is one or more messages, a colon, and the explanation.
    let items: Vec<_> =
        section.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("`: ")).map(|(item, _)| item).collect();
    assert_eq!(items.len(), section.matches("\n- ").count(), "an item begins with no message: {items:#?}");
    let messages: Vec<_> = items.iter().flat_map(|item| item.split("`, `")).collect();
    assert!(messages.len() > 15, "{messages:?}");
    let example = "entra: client secret: 401 ... the client secret is wrong";
    assert_eq!(words(example), ["the client secret is wrong"], "values and short words are left out");
    let unknown: Vec<_> =
        messages.iter().flat_map(|message| words(message)).filter(|words| !text.contains(*words)).collect();
    assert!(unknown.is_empty(), "no message has these words: {unknown:#?}");
}
