//! What the service under systemd has not read, or may not, and root may.

use serde_json::Value;

use crate::home::Home;
use crate::systemd::{SECRETS, Systemd, azure, configure, install};

const ADMIN: &str = "admin: 127.0.0.1:8081\n";

/// What a command prints, and its status.
fn said(systemd: &Systemd, words: &str) -> (String, Option<i32>) {
    let output = systemd.command(words).output().expect("it runs");
    (String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), output.status.code())
}

/// Code, text and command of each finding about the proxy.
fn of_proxy(systemd: &Systemd) -> Vec<[String; 3]> {
    let (text, _) = said(systemd, "/usr/bin/acr-cache-proxy doctor --json");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let findings = report["parts"][0]["findings"].as_array().expect("a list");
    findings.iter().map(|one| ["code", "text", "fix"].map(|key| one[key].as_str().expect("text").to_owned())).collect()
}

/// A corrected secret had no effect, and a reload, `check` and `doctor` said that all was well or had no way out.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_corrected_secret_was_a_dead_end_and_so_was_a_file_that_the_service_may_not_read() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    configure(&systemd, &azure, ADMIN, "AZURE_CLIENT_SECRET=wrong\n");
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl enable --now acr-cache-proxy");
    configure(&systemd, &azure, ADMIN, SECRETS);
    systemd.run("systemctl reload acr-cache-proxy");
    let older = "the process that runs was started with another value of AZURE_CLIENT_SECRET";
    let journal = systemd.journal();
    assert!(journal.contains(&format!("no setting has changed; {older}")), "{journal}");
    let found = of_proxy(&systemd);
    let [first, ..] = found.as_slice() else { panic!("nothing is found") };
    assert_eq!(first[1..], [older.to_owned(), "systemctl restart acr-cache-proxy".to_owned()], "{found:?}");
    let (init, _) = said(&systemd, "/usr/bin/acr-cache-proxy init --yes --skip engines");
    assert!(init.contains("systemctl restart acr-cache-proxy") && systemd.serves("http://127.0.0.1:8080"), "{init}");
    assert_eq!(of_proxy(&systemd), Vec::<[String; 3]>::new());

    // One that was taken out of the file, and all of them with it.
    for (without, names) in [
        ("sed -i /AZURE_CLIENT_SECRET/d", "another value of AZURE_CLIENT_SECRET"),
        (
            "rm",
            "other values of AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, IDENTITY_ENDPOINT, AZURE_AUTHORITY_HOST, IMDS_ENDPOINT",
        ),
    ] {
        systemd.run(&format!("{without} /etc/acr-cache-proxy/environment"));
        let (told, found) = (said(&systemd, "/usr/bin/acr-cache-proxy reload").0, of_proxy(&systemd));
        assert!(told.contains(names), "{without}: {told}");
        assert!(
            found.iter().any(|[code, text, _]| code == "not-loaded" && text.ends_with(names)),
            "{without}: {found:?}"
        );
    }
    configure(&systemd, &azure, ADMIN, SECRETS);

    // Root said ok to each of these.
    systemd.run("chmod 0600 /etc/acr-cache-proxy/ca.pem");
    let closed = "ca_file /etc/acr-cache-proxy/ca.pem: the user of acr-cache-proxy.service may not read it: let others";
    for (command, status) in [("check", 2), ("init --yes --skip engines --skip try", 1)] {
        let (text, code) = said(&systemd, &format!("/usr/bin/acr-cache-proxy {command}"));
        assert!(text.contains(closed) && code == Some(status), "{command}: {code:?} {text}");
    }
    let found = of_proxy(&systemd);
    assert!(found.len() == 1 && found[0][0] == "unreadable", "{found:?}");
    let _ = said(&systemd, "systemctl restart acr-cache-proxy");
    let found = of_proxy(&systemd);
    let [_, [code, text, fix]] = found.as_slice() else { panic!("{found:?}") };
    let says = "connection refused, and its service has failed with status 2: ";
    assert!(code == "down" && text.contains(says) && text.contains("Permission denied"), "{found:?}");
    assert!(fix.starts_with("journalctl --unit acr-cache-proxy "), "{fix}");
    systemd.run("chmod 0644 /etc/acr-cache-proxy/ca.pem");
    systemd.run("systemctl restart acr-cache-proxy");
    assert_eq!(of_proxy(&systemd), Vec::<[String; 3]>::new());
}

/// They called it a failure, and each reload warned of a file that it could not read.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_secret_that_only_the_unit_has_was_a_false_alarm_of_check_and_init_and_each_reload() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    let identity = "identity: {kind: client_secret, client_secret_file: $CREDENTIALS_DIRECTORY/client-secret}\n";
    configure(&systemd, &azure, &format!("{ADMIN}{identity}"), "");
    let drop_in = "[Service]\nLoadCredential=client-secret:/etc/acr-cache-proxy/client-secret\n";
    systemd.file("etc/systemd/system/acr-cache-proxy.service.d/secret.conf", drop_in);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl enable --now acr-cache-proxy");
    assert!(systemd.serves("http://127.0.0.1:8080"), "{}", systemd.journal());
    systemd.run("systemctl reload acr-cache-proxy");
    assert!(!systemd.journal().contains("warning"), "{}", systemd.journal());
    for command in ["check --online", "init --yes --skip engines"] {
        let (text, code) = said(&systemd, &format!("/usr/bin/acr-cache-proxy {command}"));
        assert!(code == Some(0) && text.contains("not tried, since only the unit has"), "{command}: {code:?} {text}");
    }
}
