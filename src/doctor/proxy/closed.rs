//! Files that the user of the service may not read, or not run. Root, who runs doctor, may.

use super::super::expected::by_hand;
use super::super::finding::{Code, Examined, Finding};
use crate::config::service_user::Closed;
use crate::shell::shell_word;

/// Pure: one finding for each.
pub(super) fn find(closed: &[Closed], found: &mut Examined) {
    for file in closed {
        let path = file.path.display().to_string();
        let why = match (file.ends_start, file.is_program) {
            (true, _) => "the proxy does not start with it, and one that runs takes no settings at a reload",
            (false, true) => "nobody is told of a fault until it can be run",
            (false, false) => "the sign-in fails until it can be read",
        };
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Unreadable,
            text: format!("the user of the service {}", file.denial()),
            why: why.to_owned(),
            fix: by_hand(format!("namei -l {}  # {}", shell_word(&path), file.remedy())),
            file: Some(path),
        });
    }
}
