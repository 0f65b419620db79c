//! What a start needs of its host.

use std::process::Command;

/// What the program says when it is run by this script as `"$@"`, and its exit status.
fn run(script: &str, listen: &str) -> (Option<i32>, String) {
    let output = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_acr-cache-proxy"), "--upstream-domain", "example.azurecr.io"])
        .args(["--listen-address", listen])
        .env("AZURE_AUTHORITY_HOST", "https://127.0.0.1:9")
        .output()
        .expect("sh runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[ignore = "run by scripts/test in a network namespace of its own"]
fn a_host_without_proc_is_told_so_in_one_sentence() {
    let (status, said) = run(
        "exec unshare --mount sh -c 'while umount -l /proc; do :; done 2>/dev/null; exec \"$@\"' sh \"$@\"",
        "127.0.0.1:0",
    );
    let sentence =
        "acr-cache-proxy: the CA bundle is read by way of /proc/self/fd, and /proc is not mounted: mount it\n";
    assert_eq!((status, said.as_str()), (Some(1), sentence));
}

#[test]
#[ignore = "run by scripts/test in a network namespace of its own"]
fn a_port_below_1024_names_its_setting_and_the_capability() {
    let (status, said) = run("exec setpriv --inh-caps -all --bounding-set -net_bind_service \"$@\"", "127.0.0.1:81");
    let sentence = "acr-cache-proxy: listen 127.0.0.1:81: a port below 1024 needs the capability CAP_NET_BIND_SERVICE: give it to the program (in a unit by CapabilityBoundingSet=CAP_NET_BIND_SERVICE, AmbientCapabilities=CAP_NET_BIND_SERVICE and PrivateUsers=no), or choose another with --listen-address (listen in the file)\n";
    assert_eq!((status, said.as_str()), (Some(1), sentence));
}
