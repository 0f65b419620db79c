//! Files as they are found on hosts. The shapes are of public repositories, what is in them is ours.

use super::*;

mod buildkitd_toml;
mod daemon_json;
mod properties;
mod registries_yaml;

/// The file after it has been merged into: each line from before is there and in order, but for so many that had a list or an
/// object of one line; and there is nothing left to do.
fn merged(addition: &Addition, old: &str, changed: usize) -> String {
    let merged = addition.merge(old, &|_, _| false).unwrap_or_else(|why| panic!("it {why}:\n{old}"));
    assert!(!merged.lacks.is_empty() && merged.text.len() > old.len(), "{merged:?}");
    assert_eq!(lost(old, &merged.text), changed, "lines that are no longer there as they were:\n{}", merged.text);
    assert_eq!(merged.text.contains("\r\n"), old.contains("\r\n"), "{:?}", merged.text);
    if old.contains("\r\n") {
        assert_eq!(merged.text.matches('\n').count(), merged.text.matches("\r\n").count(), "{:?}", merged.text);
    }
    let again = addition.merge(&merged.text, &|_, _| false).expect("what was made");
    assert_eq!((again.text.as_str(), again.lacks.len()), (merged.text.as_str(), 0), "a second time changes nothing");
    assert_eq!(again.beside.iter().filter(|clause| !merged.beside.contains(clause)).count(), 0, "{again:?}");
    merged.text
}

/// How many of the old lines are not among the new ones, in their order.
fn lost(old: &str, new: &str) -> usize {
    let new: Vec<_> = new.lines().collect();
    let mut from = 0;
    old.lines()
        .filter(|line| match new[from..].iter().position(|other| other == line) {
            Some(at) => {
                from += at + 1;
                false
            }
            None => true,
        })
        .count()
}

/// The file is refused, in words that begin so.
fn refused(addition: &Addition, old: &str, why: &str) {
    let said = addition.merge(old, &|_, _| false).expect_err(old).to_string();
    assert!(said.starts_with(why), "{said}\n{why}\n{old}");
    assert!(!said.contains('\n'), "{said}");
}

/// A file that says it already, and what is said of what stands beside it.
fn stands(addition: &Addition, old: &str, beside: &[&str]) {
    let merged = addition.merge(old, &|_, _| false).unwrap_or_else(|why| panic!("it {why}:\n{old}"));
    assert_eq!((merged.text.as_str(), merged.lacks.len()), (old, 0), "{merged:?}");
    assert_eq!(merged.beside, beside, "{old}");
}
