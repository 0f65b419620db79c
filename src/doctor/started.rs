//! Whether it is known how an engine is started. Where it is not, nothing of it is judged.

use super::expected::by_hand;
use super::finding::{Code, Examined, Finding};
use crate::host::DENIED;
use crate::shell::shell_word;
use crate::unit::{Unit, Unknown};

/// Says what is not known of it, if there is something.
pub(super) fn is_known(unit: &Unit, found: &mut Examined) -> bool {
    let engine = found.part.name();
    for unknown in &unit.unknown {
        match unknown {
            Unknown::Unread { path, cause } => found.find(Finding {
                code: Code::Unreadable,
                file: Some(path.clone()),
                text: if cause == DENIED { cause.clone() } else { format!("it could not be read: {cause}") },
                why: format!(
                    "{engine} may be started with flags and variables from it, so where its pulls go is not known"
                ),
                registries: Vec::new(),
                fix: by_hand(format!("namei -l {}", shell_word(path))),
            }),
            Unknown::Shell { .. } | Unknown::Specifier { .. } | Unknown::Passed { .. } => found.notes.push(format!(
                "{unknown}: where {engine} pulls from is not judged; while it runs, doctor sees its flags"
            )),
        }
    }
    found.is_blind |= !unit.unknown.is_empty();
    unit.unknown.is_empty()
}
