//! Variables count at a start: a process that has earlier ones is told of.

use std::process::Command;

use serde_json::Value;
use testkit::{SECRET, Setup};

use crate::admin::admin;

/// A secret that was corrected in `environment` was a dead end: the reload succeeded, and `check`, which has the right one, found nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_corrected_after_the_start_changed_nothing_and_nobody_said_so() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).secret("wrong~secret").flag("--admin-address", ":0").start();
    let (pid, program) = (proxy.id().to_string(), env!("CARGO_BIN_EXE_acr-cache-proxy"));
    let reload = |main_pid: &str, secret: &str| {
        // As systemd starts `ExecReload=`: with what its files have by now.
        let script = format!("SYSTEMD_EXEC_PID=$$ exec {program} reload --pid {pid}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env_clear().env("MAINPID", main_pid).env("AZURE_CLIENT_SECRET", secret);
        command.env("AZURE_TENANT_ID", testkit::TENANT).env("AZURE_CLIENT_ID", testkit::CLIENT);
        let output = command.env("AZURE_AUTHORITY_HOST", azure.authority()).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
    };
    let config = proxy.config();
    let doctor = |file: &str| {
        std::fs::write(proxy.path("environment"), file).expect("written");
        let mut command = Command::new(program);
        command.args(["doctor", "--json", "--config"]).arg(&config);
        command.args(["--listen-address", &proxy.address().to_string()]);
        let output = command.args(["--admin-address", &admin(&proxy).to_string()]).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(!text.contains(SECRET) && !text.contains("wrong~"), "{text}");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        let findings = report["parts"][0]["findings"].as_array().expect("a list").clone();
        findings
            .iter()
            .map(|one| ["code", "text", "fix"].map(|key| one[key].as_str().expect("text").to_owned()))
            .collect()
    };
    let older = "the process that runs was started with another value of AZURE_CLIENT_SECRET";
    for (main_pid, secret, expected) in [
        (pid.as_str(), "wrong~secret", "no setting has changed\n".to_owned()),
        (
            &pid,
            SECRET,
            format!(
                "no setting has changed; {older}, and keeps it until it is started again: systemctl restart acr-cache-proxy\n"
            ),
        ),
        // Whoever else runs it has variables of its own.
        ("", SECRET, "no setting has changed\n".to_owned()),
    ] {
        assert_eq!(reload(main_pid, secret), expected);
    }
    let same: Vec<[String; 3]> = doctor("AZURE_CLIENT_SECRET='wrong~secret'\n");
    assert!(same.iter().all(|[code, ..]| code != "not-loaded"), "{same:?}");
    let found: Vec<[String; 3]> = doctor(&format!("AZURE_CLIENT_SECRET='{SECRET}'\nTZ=UTC\n"));
    let [[code, text, fix], rest @ ..] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((code.as_str(), text.as_str()), ("not-loaded", older));
    assert!(fix.ends_with(" restart acr-cache-proxy") || fix == "service acr-cache-proxy restart", "{fix}");
    // `check` alone says that all is well.
    assert!(rest.iter().all(|[code, _, check]| code == "not-ready" && check.contains("restart")), "{rest:?}");
    assert!(!rest.is_empty(), "it has a token");
}
