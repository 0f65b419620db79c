//! What has to be in an image of the proxy.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::namespace;
use crate::program::{fail, installed, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_acr-cache-proxy");
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Copies a file to the same path below `root`.
fn copy(path: &str, root: &Path) {
    let target = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(target.parent().expect("a directory")).expect("made");
    std::fs::copy(path, target).unwrap_or_else(|cause| panic!("{path}: {cause}"));
}

/// What docs/install.md says of an image of one's own: the program, glibc with libgcc, and CA certificates.
#[test]
#[ignore = "run by scripts/test in a network namespace of its own"]
fn an_image_needs_glibc_libgcc_and_ca_certificates_and_nothing_else() {
    namespace::assert_isolated();
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let inside = |words: &str| {
        let mut command = Command::new(installed("chroot"));
        command.arg(root).arg("/acr-cache-proxy").args(words.split(' ')).env_clear();
        command
    };
    std::fs::copy(PROGRAM, root.join("acr-cache-proxy")).expect("copied");
    assert!(fail(&mut inside("--version")).contains("No such file or directory"), "it is not a static program");

    let libraries = run(Command::new("ldd").arg(PROGRAM));
    let libraries: Vec<_> = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect();
    let allowed = ["libc.so", "libm.so", "libgcc_s.so", "ld-linux"];
    for library in libraries {
        assert!(
            allowed.iter().any(|allowed| library.contains(allowed)),
            "{library} is one more than docs/install.md says"
        );
        copy(library, root);
    }
    assert!(run(&mut inside("--version")).starts_with("acr-cache-proxy "));

    // The address is in use, so that a start that gets so far ends there.
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("an address");
    let serve = format!("--upstream-domain example.azurecr.io --listen-address {address}");
    assert!(fail(&mut inside(&serve)).contains("no CA certificate found"));
    copy(CERTIFICATES, root);
    let said = fail(&mut inside(&serve));
    assert!(said.contains("/proc is not mounted"), "{said}");

    // A container has these from its runtime.
    for directory in ["proc", "tmp"] {
        std::fs::create_dir(root.join(directory)).expect("made");
    }
    let with_proc = |words: &str| {
        let script = format!("mount -t proc proc \"$0/proc\" && exec chroot \"$0\" /acr-cache-proxy {words}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(root).env("RUST_BACKTRACE", "1");
        command
    };
    let said = fail(&mut with_proc(&serve));
    assert!(said.contains("the address is in use"), "{said}");
    let shown = run(&mut with_proc("demo --once"));
    assert!(shown.ends_with("The demo is complete.\n"), "{shown}");
}
