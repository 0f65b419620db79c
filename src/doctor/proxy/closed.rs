//! Files that the user of the service may not read, or not run. Root, who runs doctor, may.

use std::path::Path;

use super::super::expected::by_hand;
use super::super::finding::{Code, Examined, Finding};
use crate::config::service_user::{self, Closed};
use crate::config::{Config, credential};
use crate::host::Host;
use crate::shell::shell_word;
use crate::unit::Unit;

/// A credential that the settings name and the unit does not hand over.
pub(super) struct NotHandedOver {
    /// The key, and the path as it is written.
    pub setting: String,
    pub name: String,
}

impl NotHandedOver {
    /// Those of the host's own service, if it is started with these settings.
    pub(super) fn read(host: &Host, file: Option<&Path>, config: &Config) -> Vec<Self> {
        let Some(unit) = file.and_then(|file| Unit::own_of(host, file)) else { return Vec::new() };
        let files = service_user::files(config).into_iter().filter(|(_, path)| credential::is_elsewhere(path));
        let lacks = files.filter_map(|(key, path)| {
            let name = credential::not_handed_over(&unit, path)?.to_owned();
            Some(Self { setting: format!("{key} {}", path.display()), name })
        });
        lacks.collect()
    }
}

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
