//! Settings that nothing can be judged by: they have mistakes, cannot be read, or are the package's example.

use std::path::Path;

use super::expected::{by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, Part};
use crate::host::DENIED;
use crate::shell::{root_flag, shell_word};

/// Mistakes in the settings, a line each. Nothing else can be judged then but whether the service is in this state of systemd's.
pub(super) fn with_mistakes(mistakes: &str, file: Option<&str>, root: &Path, state: Option<&str>) -> Examined {
    let mut found = Examined::new(Part::Proxy);
    let fix = match file {
        Some(file) => edit(file, &format!(" && acr-cache-proxy check --config {}", shell_word(file))),
        // Nobody has written one yet.
        None => init(root),
    };
    found.runs = state.map(|state| matches!(state, "active" | "reloading" | "refreshing"));
    let why = match (found.runs, state) {
        (Some(true), _) => {
            "the proxy that runs goes on with its earlier settings, and does not start with it again".to_owned()
        }
        (Some(false), Some(state)) => format!(
            "the proxy does not start with it, and its service is {state}: engines get no answer, and pulls go to the source or fail"
        ),
        _ => "the proxy does not start with it; one that runs goes on with its earlier settings".to_owned(),
    };
    for mistake in mistakes.lines() {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Settings,
            file: file.map(str::to_owned),
            text: without_file(mistake, file),
            why: why.clone(),
            fix: fix.clone(),
        });
    }
    found
}

/// `FILE:4: words` as `line 4: words`: the finding names the file already.
fn without_file(mistake: &str, file: Option<&str>) -> String {
    let of_line = file.and_then(|file| mistake.strip_prefix(file)?.strip_prefix(':'));
    match of_line.and_then(|rest| rest.split_once(": ")) {
        Some((line, words)) if line.bytes().all(|byte| byte.is_ascii_digit()) => format!("line {line}: {words}"),
        _ => mistake.to_owned(),
    }
}

/// This user may not read the settings, which says nothing about them.
pub(super) fn unread(file: &str) -> Examined {
    let mut found = Examined::new(Part::Proxy);
    found.notes.push(format!("{file}: {DENIED}: run doctor as root"));
    found.is_blind = true;
    found
}

/// The settings are those that the package came with.
pub(super) fn with_sample(file: Option<&str>, root: &Path) -> Examined {
    let mut found = Examined::new(Part::Proxy);
    found.find(Finding {
        registries: Vec::new(),
        code: Code::Settings,
        file: file.map(str::to_owned),
        text: "it is the package's example: nobody has named a registry".to_owned(),
        why: "the proxy would ask a registry that is not yours, and get no token".to_owned(),
        fix: init(root),
    });
    found
}

/// Has settings written for the host, or in the tree of another one.
fn init(root: &Path) -> Fix {
    by_hand(format!("acr-cache-proxy init{}", root_flag(root)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was `init` alone, which writes below / and starts the service of this machine.
    #[test]
    fn settings_of_a_tree_are_written_in_the_tree() {
        for (root, command) in [("/", "acr-cache-proxy init"), ("/a tree", "acr-cache-proxy init --root '/a tree'")] {
            let root = Path::new(root);
            let found = [with_sample(None, root), with_mistakes("the registry is not named", None, root, None)];
            let fixes: Vec<_> = found.iter().flat_map(|found| &found.findings).map(|one| &one.fix.command).collect();
            assert_eq!(fixes, [command; 2]);
        }
    }

    /// It was said of a service that had failed that it goes on.
    #[test]
    fn a_service_that_has_failed_by_a_mistake_does_not_go_on() {
        for (state, runs, says) in [
            (Some("active"), Some(true), "goes on with its earlier settings, and does not start with it again"),
            (Some("reloading"), Some(true), "goes on"),
            (Some("failed"), Some(false), "its service is failed: engines get no answer"),
            (Some("activating"), Some(false), "its service is activating"),
            (None, None, "one that runs goes on"),
        ] {
            let found = with_mistakes("a.yaml:4: prefx: unknown", Some("a.yaml"), Path::new("/"), state);
            assert_eq!(found.runs, runs, "{state:?}");
            assert!(found.findings.iter().all(|finding| finding.why.contains(says)), "{state:?}: {found:?}");
        }
    }
}
