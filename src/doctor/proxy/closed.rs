//! Files that the user of the service may not read. Root, who runs doctor, reads all of them.

use super::super::expected::by_hand;
use super::super::finding::{Code, Examined, Finding};
use crate::config::service_user::Closed;
use crate::shell::shell_word;

/// Pure: one finding for each.
pub(super) fn find(closed: &[Closed], found: &mut Examined) {
    for file in closed {
        let path = file.path.display().to_string();
        let why = match file.ends_start {
            true => "the proxy does not start with it, and one that runs takes no settings at a reload",
            false => "the sign-in fails until it can be read",
        };
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Unreadable,
            text: "the user of the service may not read it".to_owned(),
            why: why.to_owned(),
            fix: by_hand(format!("namei -l {}  # {}", shell_word(&path), file.remedy())),
            file: Some(path),
        });
    }
}
