use std::process::Command;

/// The command that a new user types first.
#[test]
fn the_demo_shows_a_whole_pull_and_what_went_over_which_hop() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy")).args(["demo", "--once"]).output().expect("it runs");
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{log}");
    for line in [
        "GET /v2/ -> 200",
        "HEAD /v2/library/hello/manifests/latest -> 200",
        ", 307 to blob storage",
        "Every manifest and blob has the digest that it was asked for by.",
        "registry: POST /oauth2/exchange -> 200",
        "registry: HEAD /v2/hub/library/hello/manifests/latest -> 200, with a bearer token",
        " -> 200, without any credentials",
        "The demo is complete.",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
}
