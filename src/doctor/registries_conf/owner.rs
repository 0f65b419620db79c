//! Who changes a file: a user's own, that user.

use super::ROOTS;
use crate::doctor::finding::{Finding, Fix};
use crate::shell::shell_word;

/// A file of a user is changed by that user: root would follow the user's links, to where only root may write.
pub(crate) fn by_owner(path: &str, fix: Fix) -> Fix {
    match path.split_once("/.config/") {
        Some((home, _)) if home != ROOTS => {
            let command = format!("runuser -u \"$(stat -c %U {})\" -- {}", shell_word(home), fix.command);
            Fix { command, ..fix }
        }
        _ => fix,
    }
}

/// The same of a whole finding about a file.
pub(super) fn of_owner(finding: Finding) -> Finding {
    match finding.file.clone() {
        Some(path) => Finding { fix: by_owner(&path, finding.fix.clone()), ..finding },
        None => finding,
    }
}
