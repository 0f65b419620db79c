//! Sockets that systemd keeps for the proxy (docs/operations.md): while it does not start, and when both units are restarted.

use acr_emulator::Emulator;
use serde_json::Value;

use crate::home::Home;
use crate::program::fail;
use crate::systemd::{SECRETS, Systemd, azure, configure, install};

const ASK: &str = "http://127.0.0.1:8080";
/// As it is documented.
const RESTART: &str = "systemctl restart acr-cache-proxy.socket acr-cache-proxy";
/// Of curl, where nobody takes the connection, and where a connection ends without an answer.
const REFUSED: i32 = 7;
const RESET: i32 = 56;

/// A host on which both units are enabled and run, with these settings.
fn with_both(home: &Home, azure: &Emulator, settings: &str) -> Systemd {
    let systemd = Systemd::boot(home);
    install(&systemd);
    configure(&systemd, azure, settings, SECRETS);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl enable --now acr-cache-proxy.socket acr-cache-proxy");
    systemd
}

fn states(systemd: &Systemd) -> String {
    let show = "systemctl show --property=ActiveState --value acr-cache-proxy.socket acr-cache-proxy.service";
    systemd.run(show).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first finding of the proxy: its code, its text and its command.
fn finding(systemd: &Systemd) -> Option<[String; 3]> {
    let doctor = systemd.command("/usr/bin/acr-cache-proxy doctor --json").output().expect("doctor runs");
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap_or_else(|_| panic!("{doctor:?}"));
    let first = report["parts"][0]["findings"].as_array().expect("a list").first()?;
    Some(["code", "text", "fix"].map(|key| first[key].as_str().expect("a text").to_owned()))
}

/// A client that waits as long as it takes, and how its request ends.
fn ask(systemd: &Systemd) -> Option<i32> {
    let curl = systemd.command(&format!("curl --silent --max-time 60 --output /dev/null {ASK}/v2/")).output();
    curl.expect("curl runs").status.code()
}

/// With a wrong setting there were four starts a second without end, and with an address that the socket unit does not have one every two
/// seconds. Clients got no answer, and could not turn to the source.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn while_the_proxy_did_not_start_clients_of_its_kept_socket_waited_without_end() {
    let azure = azure().await;
    for (settings, left) in [("no_such_setting: 1\n", "failed failed"), ("listen: 127.0.0.1:8090\n", "failed active")] {
        let home = Home::new(&[azure.ca_pem()]);
        let systemd = with_both(&home, &azure, "");
        assert!(systemd.serves(ASK), "{}", systemd.journal());

        configure(&systemd, &azure, settings, SECRETS);
        fail(&mut systemd.command("systemctl restart acr-cache-proxy"));
        assert_eq!(ask(&systemd), Some(RESET), "{settings}{}", systemd.journal());
        let result = systemd.run("systemctl show --property=Result --value acr-cache-proxy.socket");
        assert_eq!(result.trim(), "trigger-limit-hit", "{settings}");
        assert_eq!(ask(&systemd), Some(REFUSED), "{settings}");
        systemd.wait_until("what is left is as documented", || states(&systemd) == left);
        let [code, text, _] = finding(&systemd).expect("a finding");
        let is_lacking =
            text.starts_with("acr-cache-proxy.socket has ListenStream= of 127.0.0.1:8080, and no listener of ");
        assert_eq!((code == "settings", is_lacking), (true, settings.starts_with("listen")), "{text}");

        configure(&systemd, &azure, "", SECRETS);
        systemd.run(RESTART);
        assert_eq!(states(&systemd), "active active", "{settings}");
        assert!(systemd.serves(ASK), "{settings}{}", systemd.journal());
    }
}

/// systemd opens no socket for a service that runs: the command failed, and the proxy went on without the socket unit. `doctor` found
/// nothing wrong with that.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_restart_of_both_units_failed_and_lost_the_socket() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = with_both(&home, &azure, "admin: 127.0.0.1:8081\n");
    for (before, is_found) in [
        (&[][..], false),
        (&["systemctl stop acr-cache-proxy.service"], false),
        (&["systemctl stop acr-cache-proxy.socket", "systemctl start acr-cache-proxy.service"], true),
    ] {
        before.iter().for_each(|command| drop(systemd.run(command)));
        if is_found {
            assert_eq!(states(&systemd), "inactive active");
            let [code, text, fix] = finding(&systemd).expect("a finding");
            assert_eq!(code, "failed");
            assert_eq!(text, "the proxy runs, and acr-cache-proxy.socket, which is enabled, keeps no socket for it");
            assert_eq!(fix, "systemctl restart acr-cache-proxy.socket acr-cache-proxy.service");
        }
        systemd.run(RESTART);
        assert_eq!(states(&systemd), "active active", "{before:?}");
        assert!(systemd.serves(ASK), "{before:?}{}", systemd.journal());
        assert_eq!(finding(&systemd), None, "{before:?}");
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

/// `init` asked who listens there, which started the service, of which it then said that the unit had not started it and that it was to be
/// ended. Where systemd had given up the socket, the service was started without.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn init_took_its_own_service_for_a_foreign_process() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = with_both(&home, &azure, "admin: 127.0.0.1:8081\n");
    for stopped in ["acr-cache-proxy.service", "acr-cache-proxy.socket"] {
        systemd.run(&format!("systemctl stop {stopped}"));
        let init = "/usr/bin/acr-cache-proxy init --yes --skip try --skip engines";
        // What it shows needs no agreement, and nothing is to be woken by it.
        let shown = systemd.command(&init.replace(" --yes", "")).output().expect("init runs");
        assert!(!String::from_utf8_lossy(&shown.stderr).contains("cannot listen"), "{shown:?}");
        assert!(states(&systemd).ends_with(" inactive"), "{stopped}");
        let said = systemd.run(init);
        assert!(said.contains("The service runs."), "{stopped}: {said}");
        assert_eq!(states(&systemd), "active active", "{stopped}: {said}");
        assert!(systemd.serves(ASK), "{stopped}{}", systemd.journal());
    }
}

/// `check` found nothing wrong with an address with which the service then did not start, and took the proxy that ran down with it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn check_passed_an_address_with_which_the_socket_unit_lets_no_proxy_start() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = with_both(&home, &azure, "");
    systemd.run("cp /etc/acr-cache-proxy/config.yaml /etc/acr-cache-proxy/other.yaml");
    let moved = "listen: 127.0.0.1:8090\n";
    let says =
        "acr-cache-proxy.socket has ListenStream= of 127.0.0.1:8080, and no listener of the settings has this address";
    for (settings, flags, before, is_wrong) in [
        ("", "", "systemctl start acr-cache-proxy.service", false),
        (moved, "", "systemctl start acr-cache-proxy.service", true),
        // Not those of the service.
        (moved, " --config /etc/acr-cache-proxy/other.yaml", "systemctl start acr-cache-proxy.service", false),
        (moved, " --threads 2", "systemctl stop acr-cache-proxy.service", true),
        (
            "listen: [{address: '127.0.0.1:8080'}, {address: '127.0.0.1:8090'}]\n",
            "",
            "systemctl stop acr-cache-proxy.service",
            false,
        ),
        (moved, "", "systemctl disable --now acr-cache-proxy.socket", false),
    ] {
        systemd.run(before);
        configure(&systemd, &azure, settings, SECRETS);
        let state = states(&systemd);
        let check = systemd.command(&format!("/usr/bin/acr-cache-proxy check{flags}")).output().expect("check runs");
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert_eq!((check.status.code(), said.contains(says)), (Some(2 * i32::from(is_wrong)), is_wrong), "{said}");
        assert_eq!(states(&systemd), state, "nothing was started: {said}");
    }
}
