//! What the service under systemd has not read, or may not, and root may.

use acr_emulator::Image;
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
    // Its start is over before its first sign-in.
    systemd.wait_until("it serves", || systemd.serves("http://127.0.0.1:8080"));
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

/// `check` and `init` read the file only: a certificate by a drop-in "was not used", and a proxy by a drop-in was gone past. Their trial failed
/// where the service pulled, and went well where it did not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn variables_of_a_drop_in_were_not_those_that_check_and_init_tried_the_way_with() {
    let azure = azure().await;
    azure.push(Image::small("hub/library/hello-world", "latest"));
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    let drop_in = "etc/systemd/system/acr-cache-proxy.service.d/variables.conf";
    let path = "AZURE_CLIENT_CERTIFICATE_PATH=/run/credentials/acr-cache-proxy.service/client.pem";
    let certificate =
        format!("[Service]\nLoadCredential=client.pem:/etc/acr-cache-proxy/client.pem\nEnvironment={path}\n");
    let forwarded = "[Service]\nEnvironment=HTTPS_PROXY=http://127.0.0.1:9\n";
    let by_unit = "not tried, since only the unit has AZURE_CLIENT_CERTIFICATE_PATH /run/credentials/";
    for (variables, lines, status, says) in [
        ("", certificate.as_str(), 0, by_unit),
        (
            "",
            "[Service]\nEnvironment=AZURE_CLIENT_CERTIFICATE_PATH=%d/client.pem\n",
            0,
            "hands over no such credential",
        ),
        (SECRETS, "[Service]\n", 0, "an Entra token, by client secret"),
        (SECRETS, forwarded, 1, "127.0.0.1:9"),
    ] {
        configure(&systemd, &azure, ADMIN, variables);
        systemd.file(drop_in, lines);
        systemd.run("systemctl daemon-reload");
        for command in ["check --online", "init --yes --skip engines --skip service"] {
            let (text, code) = said(&systemd, &format!("/usr/bin/acr-cache-proxy {command}"));
            let is_told = text.contains(says) || command.starts_with("init") && says.starts_with("hands over");
            // By --yes nobody is asked whether to try it with them.
            let is_named = command.starts_with("check") && lines.contains("Environment=");
            let sets = if is_named { drop_in } else { "" };
            assert!(code == Some(status) && is_told && text.contains(sets), "{lines}{command}: {code:?} {text}");
        }
    }
}

/// doctor found nothing wrong with these, and the next start failed. Of one that had failed it told a line of the process before.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn what_serves_on_and_would_not_start_again_was_ok() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    configure(&systemd, &azure, ADMIN, SECRETS);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl enable --now acr-cache-proxy");
    systemd.wait_until("it serves", || systemd.serves("http://127.0.0.1:8080"));
    assert_eq!(of_proxy(&systemd), Vec::<[String; 3]>::new());
    let codes = || of_proxy(&systemd).into_iter().map(|[code, text, _]| format!("{code}: {text}")).collect::<Vec<_>>();

    // `ProtectHome=` hides it.
    systemd.run("mkdir -p /home/admin");
    systemd.run("cp /etc/acr-cache-proxy/ca.pem /home/admin/ca.pem");
    let config = "/etc/acr-cache-proxy/config.yaml";
    systemd.run(&format!("sed -i s,/etc/acr-cache-proxy/ca.pem,/home/admin/ca.pem, {config}"));
    assert!(!systemd.command("systemctl reload acr-cache-proxy").status().expect("it runs").success());
    assert_eq!(codes(), ["not-loaded: the last reload of its service has failed"]);

    let identity = "identity: {kind: client_secret, client_secret_file: $CREDENTIALS_DIRECTORY/client-secret}\n";
    configure(&systemd, &azure, &format!("{ADMIN}{identity}"), SECRETS);
    let lack = "identity.client_secret_file $CREDENTIALS_DIRECTORY/client-secret: acr-cache-proxy.service hands over no such credential";
    assert!(codes().contains(&format!("unreadable: {lack}")), "{:?}", codes());
    let (text, code) = said(&systemd, "/usr/bin/acr-cache-proxy check");
    assert!(code == Some(2) && text.contains(lack), "{code:?} {text}");

    configure(&systemd, &azure, ADMIN, SECRETS);
    systemd.run("systemctl reload acr-cache-proxy");
    assert_eq!(codes(), Vec::<String>::new());
    systemd.run("cp /usr/bin/acr-cache-proxy /usr/bin/new");
    systemd.run("mv /usr/bin/new /usr/bin/acr-cache-proxy");
    let replaced = "the process that runs was started from another file than /usr/bin/acr-cache-proxy is by now";
    assert_eq!(codes(), [format!("not-loaded: {replaced}")]);
    let (text, code) = said(&systemd, "/usr/bin/acr-cache-proxy init --yes --skip engines --skip try");
    assert!(code == Some(1) && text.contains("by an earlier program than /usr/bin/acr-cache-proxy"), "{text}");
    systemd.run("systemctl restart acr-cache-proxy");
    systemd.wait_until("it serves", || systemd.serves("http://127.0.0.1:8080"));
    assert_eq!(codes(), Vec::<String>::new());

    let drop_in = "etc/systemd/system/acr-cache-proxy.service.d/a.conf";
    systemd.file(drop_in, &format!("[Service]\nExecStart=/usr/bin/acr-cache-proxy --config {config}\n"));
    systemd.run("systemctl daemon-reload");
    assert_eq!(codes(), ["failed: systemd refuses acr-cache-proxy.service (bad-setting)"]);
    systemd.run("systemctl stop acr-cache-proxy");
    assert!(codes()[0].ends_with("and systemd refuses its unit (bad-setting)"), "{:?}", codes());
    let (text, code) = said(&systemd, "/usr/bin/acr-cache-proxy init --yes --skip engines --skip try");
    assert!(code == Some(1) && text.contains("systemd-analyze verify acr-cache-proxy.service"), "{text}");

    for (lines, step) in [
        ("LoadCredential=x:/nope\n", "CREDENTIALS"),
        ("ExecStartPre=\nExecStart=\nExecStart=/etc/passwd --config /etc/acr-cache-proxy/config.yaml\n", "EXEC"),
    ] {
        systemd.file(drop_in, &format!("[Service]\n{lines}Restart=no\n"));
        systemd.run("systemctl daemon-reload");
        assert!(!systemd.command("systemctl restart acr-cache-proxy").status().expect("it runs").success());
        let found = codes();
        assert!(found[0].contains("its service has failed with status 2"), "{found:?}");
        assert!(found[0].contains(step) || found[0].contains("credentials: "), "{step}: {found:?}");
    }
}
