//! Whose variables `check` goes by: the service's, where whoever runs it has no sign-in.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use acr_emulator::Emulator;
use testkit::{SECRET, Setup};

use super::{check, hello, is_like, lines, setup, status};

/// Secrets that only the unit's file has: who ran `check` by hand was told to set what was set already.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_sign_in_of_its_own_it_has_the_variables_of_the_service() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    hello(&azure);
    let variables = format!(
        "LD_PRELOAD=/nonexistent.so\nAZURE_TENANT_ID={}\nAZURE_CLIENT_ID={}\nAZURE_CLIENT_SECRET='{SECRET}'\n",
        testkit::TENANT,
        testkit::CLIENT
    );
    let variables = format!("{variables}AZURE_AUTHORITY_HOST={}\n", azure.authority());
    let with = |setup: Setup, variables: &str| {
        let file = setup.file("environment", variables);
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).expect("its mode");
        setup.switch("--json")
    };
    let open_to_all = |setup: Setup| {
        std::fs::set_permissions(setup.path("environment"), Permissions::from_mode(0o644)).expect("its mode");
        setup
    };
    let nobody = |setup: Setup| {
        let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"];
        names.into_iter().fold(setup, |setup, name| setup.without(name))
    };
    let kind = "identity: {kind: client_secret}";
    let takes = ("ok", "with the variables of */environment, as the service gets them at its next start");
    let exported = variables.replace("AZURE_CLIENT_SECRET=", "export AZURE_CLIENT_SECRET=");
    for (what, setup, expected, found) in [
        ("nobody is named", with(nobody(setup(&azure)), &variables), 0, &[takes, ("ok", "1 route*")][..]),
        (
            "the settings name a kind",
            with(nobody(Setup::new(&azure)).settings(kind), &variables),
            0,
            &[takes, ("ok", "1 route*")],
        ),
        ("who runs it has a sign-in", with(setup(&azure).secret("wrong~secret"), &variables), 1, &[("ok", "1 route*")]),
        (
            "who runs it has a part of a sign-in",
            with(Setup::new(&azure).without("AZURE_CLIENT_SECRET"), &variables),
            0,
            &[
                ("ok", "without the variables of */environment, because the environment says who signs in"),
                ("warning", "AZURE_TENANT_ID is not used without one of *"),
                ("ok", "1 route*"),
            ],
        ),
        (
            "a service manager has started it",
            with(nobody(Setup::new(&azure)).settings(kind).env("RC_SVCNAME", "acr-cache-proxy"), &variables),
            2,
            &[("failed", "*needs tenant_id*"), ("failed", "*needs client_id*"), ("failed", "*AZURE_CLIENT_SECRET*")],
        ),
        (
            "systemd passes over a line",
            with(nobody(Setup::new(&azure)), &exported),
            0,
            &[
                takes,
                ("warning", "*/environment: systemd passes over `export AZURE_CLIENT_SECRET=`: *"),
                ("warning", "AZURE_TENANT_ID is not used without one of *"),
                ("ok", "1 route*"),
            ],
        ),
        // Nobody was told that it was no secret.
        (
            "everybody may read it",
            open_to_all(with(nobody(Setup::new(&azure)).settings(kind), &variables)),
            0,
            &[
                takes,
                ("warning", "*/environment: everybody on this host may read it, and so AZURE_CLIENT_SECRET: make it *"),
                ("ok", "1 route*"),
            ],
        ),
        ("and has no secret", open_to_all(with(setup(&azure), "TZ=UTC\n")), 0, &[("ok", "1 route*")]),
        // The shell's address of Entra ID is not the service's.
        (
            "nothing in it matters",
            with(nobody(Setup::new(&azure)), "TZ=UTC\n"),
            0,
            &[takes, ("ok", "without AZURE_AUTHORITY_HOST, set here and not for the service: *"), ("ok", "1 route*")],
        ),
    ] {
        let output = check(setup).await;
        let lines: Vec<_> = lines(&output).into_iter().filter(|(hop, ..)| hop == "configuration").collect();
        let is_found = lines
            .iter()
            .zip(found)
            .all(|((_, status, text), (like, pattern))| status == like && is_like(text, pattern));
        assert!(lines.len() == found.len() && is_found, "{what}: {lines:#?}");
        assert_eq!(status(&output), expected, "{what}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let setup = nobody(Setup::new(&azure)).without("AZURE_AUTHORITY_HOST").switch("--json");
    assert_eq!(lines(&check(setup).await).len(), 1, "there is no file");
    let setup = nobody(Setup::new(&azure)).switch("--json");
    std::fs::create_dir(setup.path("environment")).expect("made");
    let lines = lines(&check(setup).await);
    assert_eq!((lines[0].1.as_str(), lines.len()), ("warning", 2), "{lines:#?}");
    assert!(lines[0].2.contains("environment: it is a directory: name a regular file"), "{lines:#?}");
}

/// What the shell had and the service had not was tried, and `check` said that it went by the service's variables.
#[tokio::test(flavor = "multi_thread")]
async fn the_shells_variables_do_not_stand_in_for_the_services() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    hello(&azure);
    let nobody = |setup: Setup| {
        let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_AUTHORITY_HOST"];
        names.into_iter().fold(setup, |setup, name| setup.without(name)).edit(|text| {
            text.lines().filter(|line| !line.starts_with("ca_file:")).map(|line| format!("{line}\n")).collect()
        })
    };
    let secret = format!(
        "AZURE_AUTHORITY_HOST={}\nAZURE_TENANT_ID={}\nAZURE_CLIENT_ID={}\nAZURE_CLIENT_SECRET='{SECRET}'\n",
        azure.authority(),
        testkit::TENANT,
        testkit::CLIENT
    );
    let ca = "the CA of the service";
    // What is set here, what the service has beside the secret, and what fails.
    for (what, here, services_ca, expected, left_out) in [
        ("the shell alone has the CA", &[("SSL_CERT_FILE", ca)][..], false, 1, Some("SSL_CERT_FILE")),
        ("the shell has another CA", &[("SSL_CERT_FILE", "/nonexistent")], true, 0, None),
        ("the shell has a proxy", &[("HTTPS_PROXY", "http://127.0.0.1:9")], true, 0, Some("HTTPS_PROXY")),
        (
            "the shell has two, and one without a value",
            &[("https_proxy", "http://127.0.0.1:9"), ("ALL_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "")],
            true,
            0,
            Some("https_proxy, ALL_PROXY"),
        ),
        ("both have the same", &[("SSL_CERT_FILE", ca)], true, 0, None),
    ] {
        let mut setup = nobody(setup(&azure)).switch("--json");
        let file = setup.file("service-ca.pem", azure.ca_pem()).display().to_string();
        let services = if services_ca { format!("{secret}SSL_CERT_FILE={file}\n") } else { secret.clone() };
        setup.file("environment", services);
        for (name, value) in here {
            setup = setup.env(name, if *value == ca { &file } else { value });
        }
        let output = check(setup).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(status(&output), expected, "{what}: {said}");
        let texts: Vec<_> = lines(&output).into_iter().map(|(.., text)| text).collect();
        assert!(texts[0].starts_with("with the variables of "), "{what}: {texts:#?}");
        let found = texts.iter().find_map(|text| text.strip_prefix("without ")?.split_once(", set here and not "));
        assert_eq!(found.map(|(names, _)| names), left_out, "{what}: {texts:#?}");
    }
}
