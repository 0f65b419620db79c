//! Credentials that systemd hands to the unit alone.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// `ExecReload=` has no such directory, nor has a person: check called the documented setting a mistake there, at each reload, and no file
/// of a client was written. Without the directory the proxy itself does not start.
#[test]
fn a_credential_of_the_unit_is_not_tried_where_the_unit_does_not_start_and_no_start_goes_without() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = folder.path().join("config.yaml");
    let settings = "upstream: {domain: example.azurecr.io}\nca_file: $CREDENTIALS_DIRECTORY/ca.pem\n\
                identity: {kind: client_secret, tenant_id: t.example, client_id: 00000000-0000-0000-0000-000000000000, \
                client_secret_file: $CREDENTIALS_DIRECTORY/client-secret}\n\
                listen: [{address: '127.0.0.1:0', tls: {certificate: /nonexistent.pem, key: $CREDENTIALS_DIRECTORY/tls.key}}]\n";
    std::fs::write(&config, settings).expect("written");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.env_remove("CREDENTIALS_DIRECTORY").args(arguments).arg("--config").arg(&config);
        command.output().expect("it runs")
    };
    assert_eq!(run(&["client-config", "docker", "--mirror", "https://mirror.example:8443"]).status.code(), Some(0));
    // systemd 252 names a directory to `ExecReload=` that it may not enter: each reload warned of its secret.
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).expect("made");
    for (path, mode) in [(folder.path(), 0o755), (&closed, 0)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    }
    let in_reload = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        if nix::unistd::geteuid().is_root() {
            // nobody
            command.uid(65_534);
        }
        command.env("CREDENTIALS_DIRECTORY", &closed).arg("check").arg("--config").arg(&config);
        command.output().expect("it runs")
    };
    for output in [run(&["check"]), in_reload()] {
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        for key in ["identity.client_secret_file", "listen.tls.key", "ca_file"] {
            assert!(said.contains(&format!("{key} $CREDENTIALS_DIRECTORY/")), "{said}");
        }
        assert_eq!(said.matches("not tried, since only the start of the unit has it").count(), 3, "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for name in ["client-secret", "tls.key", "ca.pem"] {
        assert!(
            said.contains(&format!("is not set here: systemd sets it in a unit with LoadCredential={name}:<file>")),
            "{said}"
        );
    }
}
