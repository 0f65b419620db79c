//! What somebody has stopped while systemd keeps its sockets: `doctor` looks at it and starts nothing.

use serde_json::Value;

use crate::home::Home;
use crate::systemd::{SECRETS, Systemd, azure, configure, install};

/// A daemon for which systemd listens, as Docker's packages have it.
const SOCKET: &str = "[Socket]\nListenStream=/run/docker.sock\n";
const SERVICE: &str = "[Service]\nExecStart=/usr/bin/sleep infinity\n";
const OWN: &str = "acr-cache-proxy.service";

fn state(systemd: &Systemd, unit: &str) -> String {
    systemd.run(&format!("systemctl show --property=ActiveState --value {unit}")).trim().to_owned()
}

/// What doctor reports, and its status.
fn doctor(systemd: &Systemd, flags: &str) -> (Value, Option<i32>) {
    let words = format!("/usr/bin/acr-cache-proxy doctor --json{flags}");
    let output = systemd.command(&words).output().expect("doctor runs");
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")), output.status.code())
}

/// The text and the command of the proxy's first finding.
fn of_proxy(report: &Value) -> [&str; 2] {
    let finding = &report["parts"][0]["findings"][0];
    ["text", "fix"].map(|key| finding[key].as_str().unwrap_or_default())
}

/// A connection to its socket started a dockerd, with its containers, and the proxy as well.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn doctor_started_what_somebody_had_stopped() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    configure(&systemd, &azure, "admin: 127.0.0.1:8081\n", SECRETS);
    systemd.file("etc/systemd/system/docker.socket", SOCKET);
    systemd.file("etc/systemd/system/docker.service", SERVICE);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl start docker.socket");
    systemd.run("systemctl enable --now acr-cache-proxy.socket acr-cache-proxy");
    for flags in ["", " --pull"] {
        let (report, _) = doctor(&systemd, flags);
        assert!(report.to_string().contains("docker.socket starts it for whoever asks it"), "{report:#}");
        assert_eq!(state(&systemd, "docker.service"), "inactive", "{report:#}");
    }

    systemd.run("systemctl stop acr-cache-proxy.service");
    for flags in ["", " --pull", " --mirror http://127.0.0.1:8080"] {
        let (report, status) = doctor(&systemd, flags);
        assert_eq!((state(&systemd, OWN).as_str(), status), ("inactive", Some(1)), "{report:#}");
        if !flags.starts_with(" --mirror") {
            let [text, fix] = of_proxy(&report);
            assert!(
                text.contains("acr-cache-proxy.service is inactive, and acr-cache-proxy.socket starts it"),
                "{text}"
            );
            assert!(fix.starts_with("systemctl start acr-cache-proxy.service && "), "{fix}");
        }
    }

    // The service alone was to be started, after which systemd does not start the socket unit.
    systemd.run("systemctl stop acr-cache-proxy.socket acr-cache-proxy.service");
    let (report, _) = doctor(&systemd, "");
    let [_, fix] = of_proxy(&report);
    assert!(fix.starts_with("systemctl enable --now acr-cache-proxy.socket acr-cache-proxy.service && "), "{fix}");

    // Nor was this told, but that each engine should go where nobody listens.
    let moved = "listen: 127.0.0.1:8090\nadmin: 127.0.0.1:8081\n";
    configure(&systemd, &azure, moved, SECRETS);
    systemd.run("systemctl start acr-cache-proxy.socket");
    let (report, status) = doctor(&systemd, "");
    assert_eq!((report["findings"].as_u64(), status), (Some(1), Some(1)), "{report:#}");
    let [text, fix] = of_proxy(&report);
    let says = "acr-cache-proxy.socket has ListenStream= of 127.0.0.1:8080, and no listener of /etc/acr-cache-proxy/config.yaml";
    assert!(
        text.starts_with(says) && fix.starts_with("systemctl edit --full acr-cache-proxy.socket && "),
        "{report:#}"
    );
    assert_eq!(state(&systemd, OWN), "inactive", "{report:#}");
}

/// The service "had earlier settings", which a reload was to change, and `init` sent engines to a port where nobody listened.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_unit_with_other_settings_was_taken_for_one_that_has_not_read_these() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    let drop_in = "etc/systemd/system/acr-cache-proxy.service.d/other.conf";
    configure(&systemd, &azure, "listen: 127.0.0.1:8090\n", SECRETS);
    systemd.run("cp /etc/acr-cache-proxy/config.yaml /etc/acr-cache-proxy/other.yaml");
    configure(&systemd, &azure, "", SECRETS);
    let packaged = "--config /etc/acr-cache-proxy/config.yaml";
    let podman = "etc/containers/registries.conf.d/50-acr-cache-proxy.conf";
    let _ = std::fs::remove_file(systemd.root.join(podman));
    for flags in ["--config /etc/acr-cache-proxy/other.yaml", &format!("{packaged} --listen-address 127.0.0.1:8090")] {
        let text = format!("[Service]\nExecStart=\nExecStart=/usr/bin/acr-cache-proxy {flags}\n");
        systemd.file(drop_in, &text);
        systemd.run("systemctl daemon-reload");
        systemd.run("systemctl restart acr-cache-proxy");
        let (report, status) = doctor(&systemd, "");
        let [text, fix] = of_proxy(&report);
        assert!(text.ends_with(&format!("its service runs with other settings: ExecStart= has {flags}")), "{report:#}");
        assert!(fix.contains(&format!(" /{drop_in} && systemctl daemon-reload && ")), "{fix}");
        assert_eq!(status, Some(1));
        let init = systemd.command("/usr/bin/acr-cache-proxy init --yes --skip try").output().expect("init runs");
        let said = String::from_utf8_lossy(&init.stderr).into_owned();
        assert_eq!(init.status.code(), Some(1), "{said}");
        let says = format!("nobody listens on 127.0.0.1:8080: ExecStart= in /{drop_in} has {flags}");
        assert!(said.contains(&says) && said.contains("the engines' files are not written"), "{said}");
        assert!(!systemd.root.join(podman).exists(), "{said}");
    }
    // The unit is right again, and the process of before runs.
    std::fs::remove_file(systemd.root.join(drop_in)).expect("it was there");
    systemd.run("systemctl daemon-reload");
    let (report, _) = doctor(&systemd, "");
    let [text, fix] = of_proxy(&report);
    assert!(text.contains("its service runs with flags of before: "), "{report:#}");
    assert_eq!(fix, "systemctl daemon-reload && systemctl restart acr-cache-proxy.service");
}
