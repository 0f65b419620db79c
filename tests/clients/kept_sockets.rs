//! Sockets that systemd keeps for the proxy (docs/operations.md).

use serde_json::Value;

use crate::home::Home;
use crate::systemd::{SECRETS, Systemd, azure, configure, install};

const ASK: &str = "http://127.0.0.1:8080";
/// As it is documented.
const RESTART: &str = "systemctl restart acr-cache-proxy.socket acr-cache-proxy";
fn states(systemd: &Systemd) -> String {
    let show = "systemctl show --property=ActiveState --value acr-cache-proxy.socket acr-cache-proxy.service";
    systemd.run(show).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// systemd opens no socket for a service that runs: the command failed, and the proxy went on without the socket unit. `doctor` found
/// nothing wrong with that.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_restart_of_both_units_failed_and_lost_the_socket() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    configure(&systemd, &azure, "admin: 127.0.0.1:8081\n", SECRETS);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl enable --now acr-cache-proxy.socket acr-cache-proxy");
    let finding = || {
        let doctor = systemd.command("/usr/bin/acr-cache-proxy doctor --json").output().expect("doctor runs");
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap_or_else(|_| panic!("{doctor:?}"));
        report["parts"][0]["findings"].as_array().expect("a list").first().map(|first| {
            ["code", "text", "fix"].map(|key| first[key].as_str().expect("a text").to_owned())
        })
    };
    for (before, is_found) in [
        (&[][..], false),
        (&["systemctl stop acr-cache-proxy.service"], false),
        (&["systemctl stop acr-cache-proxy.socket", "systemctl start acr-cache-proxy.service"], true),
    ] {
        before.iter().for_each(|command| drop(systemd.run(command)));
        if is_found {
            assert_eq!(states(&systemd), "inactive active");
            let [code, text, fix] = finding().expect("a finding");
            assert_eq!(code, "failed");
            assert_eq!(text, "the proxy runs, and acr-cache-proxy.socket, which is enabled, keeps no socket for it");
            assert_eq!(fix, "systemctl restart acr-cache-proxy.socket acr-cache-proxy.service");
        }
        systemd.run(RESTART);
        assert_eq!(states(&systemd), "active active", "{before:?}");
        assert!(systemd.serves(ASK), "{before:?}{}", systemd.journal());
        assert_eq!(finding(), None, "{before:?}");
    }
    // Other addresses, and the end of both.
    let lines = "[Socket]\nListenStream=\nListenStream=127.0.0.1:8090\n";
    systemd.file("etc/systemd/system/acr-cache-proxy.socket.d/address.conf", lines);
    configure(&systemd, &azure, "listen: 127.0.0.1:8090\nadmin: 127.0.0.1:8081\n", SECRETS);
    systemd.run("systemctl daemon-reload");
    systemd.run(RESTART);
    assert_eq!(states(&systemd), "active active");
    assert!(systemd.serves("http://127.0.0.1:8090"), "{}", systemd.journal());
    systemd.run("systemctl stop acr-cache-proxy.socket");
    assert_eq!(states(&systemd), "inactive inactive");
}
