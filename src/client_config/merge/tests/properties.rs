//! What holds of any file, be it one or not.

use proptest::prelude::*;
use proptest::sample::select;

use super::lost;
use crate::client_config::merge::Addition;

fn additions() -> [Addition; 3] {
    let registries = || vec!["docker.io".to_owned(), "ghcr.io".to_owned()];
    [
        Addition::DaemonJson("http://m:80".to_owned()),
        Addition::BuildkitdToml { mirror: "m:80".to_owned(), http: true, registries: registries() },
        Addition::RegistriesYaml { url: "http://m:80".to_owned(), registries: registries() },
    ]
}

/// Pieces of such files, so that many of the texts are nearly one.
fn pieces() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "=",
        "\n",
        "\r\n",
        " ",
        "  ",
        "    ",
        "\t",
        "- ",
        "# x",
        "\"",
        "'",
        "|",
        "&a",
        "*a",
        "\"registry-mirrors\"",
        "\"http://m:80\"",
        "\"debug\": true",
        "mirrors",
        "mirrors:\n",
        "endpoint:",
        "docker.io",
        "  docker.io:\n",
        "    endpoint:\n",
        "      - a\n",
        "configs:\n",
        "rewrite:",
        "[registry.\"docker.io\"]\n",
        "[registry]\n",
        "mirrors = [\"a\"]\n",
        "http = true\n",
        "registry",
        "---\n",
        "...\n",
        "\u{feff}",
        "ä",
        "null",
        "1",
    ]);
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// A text is refused or added to, all of it is still there, and a second time changes nothing.
    #[test]
    fn any_text_is_refused_or_only_added_to(old in prop_oneof![pieces(), ".{0,60}"]) {
        for addition in additions() {
            let Ok(merged) = addition.merge(&old) else { continue };
            let mut rest = merged.text.chars();
            prop_assert!(old.chars().all(|c| rest.any(|other| other == c)), "{:?}", merged.text);
            // At most a line for each list, or the one of the whole file.
            prop_assert!(lost(&old, &merged.text) <= 3, "{:?}", merged.text);
            let again = addition.merge(&merged.text);
            prop_assert_eq!(again.map(|again| (again.text, again.lacks)), Ok((merged.text, Vec::new())));
        }
    }
}
