//! The Terraform example.

use std::collections::BTreeSet;

use crate::block::Block;

/// Terraform: braces and quotes are closed, and whatever is referred to is declared. Whether the provider knows the
/// resources and their arguments is NOT checked: that needs the provider, and with it the network.
pub(crate) fn check(block: &Block) -> Result<(), String> {
    let code: String =
        block.text.lines().map(|line| line.split('#').next().unwrap_or_default().to_owned() + "\n").collect();
    let mut outside = String::new();
    let mut declared = BTreeSet::new();
    for line in code.lines() {
        let parts: Vec<_> = line.split('"').collect();
        if parts.len() % 2 == 0 {
            return Err(format!("a quotation mark is open: {line}"));
        }
        match (line.split_whitespace().next(), &parts[..]) {
            (Some("resource"), [_, kind, _, name, _]) => _ = declared.insert(format!("{kind}.{name}")),
            (Some("data"), [_, kind, _, name, _]) => _ = declared.insert(format!("data.{kind}.{name}")),
            (Some("variable"), [_, name, _]) => _ = declared.insert(format!("var.{name}")),
            _ => {}
        }
        outside += &parts.iter().step_by(2).copied().collect::<String>();
        outside.push('\n');
    }
    for (open, close) in [('{', '}'), ('[', ']'), ('(', ')')] {
        if outside.matches(open).count() != outside.matches(close).count() {
            return Err(format!("{open} without its {close}"));
        }
    }
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'));
    for word in words.filter(|word| word.contains('.')) {
        let parts: Vec<_> = word.split('.').collect();
        let depth = if parts[0] == "data" { 3 } else { 2 };
        let reference = parts.iter().take(depth).copied().collect::<Vec<_>>().join(".");
        if !reference.starts_with(|c: char| c.is_ascii_digit())
            && !reference.starts_with('.')
            && !declared.contains(&reference)
        {
            return Err(format!("{reference} is not declared"));
        }
    }
    Ok(())
}
