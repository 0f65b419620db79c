//! Secrets, ids and files of a sign-in as editors, shells and templates spoil them.

use acr_emulator::{Emulator, Fault, Hop, Options};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::admin::admin;
use crate::sources::{CERTIFICATE, KEY, STRANGER, azure, service_account_token, status, tool};
use crate::wire;
use testkit::{CLIENT, Proxy, SECRET, Setup, TENANT, wait_for};

/// What the log says of a sign-in that fails.
fn fails(azure: &Emulator, build: impl Fn(&Emulator, Setup) -> Setup) -> (Proxy, String) {
    let proxy = build(azure, Setup::new(azure)).start();
    let line = proxy.wait_for_log("entra: ");
    assert!(line.contains(" WARN "), "{line}");
    (proxy, line)
}

/// What a start that a variable forbids prints, after its status was looked at.
fn forbidden(setup: Setup) -> String {
    let mut proxy = setup.spawn();
    assert_eq!(proxy.wait().code(), Some(2), "{}", proxy.log());
    proxy.wait_for_log("acr-cache-proxy: ")
}

fn fifo(setup: &Setup, name: &str) -> String {
    let path = setup.path(name);
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    path.to_string_lossy().into_owned()
}

/// One that is a FIFO without a writer stopped sign-in and DNS of all registries, in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_a_fifo_is_an_error_and_the_other_registry_signs_in() {
    type Settings = fn(&str) -> String;
    let cases: [(&str, Settings); 4] = [
        ("client_secret_file", |file| format!("kind: client_secret, client_secret_file: {file}")),
        ("certificate_file", |file| format!("kind: client_certificate, certificate_file: {file}")),
        ("certificate_password_file", |file| {
            format!("kind: client_certificate, certificate_file: /dev/null, certificate_password_file: {file}")
        }),
        ("token_file", |file| format!("kind: workload_identity, token_file: {file}")),
    ];
    for (key, settings) in cases {
        let (bad, good) = (azure(Options::default()).await, azure(Options::default()).await);
        let setup = Setup::new(&good);
        let file = fifo(&setup, "credential");
        let route = |source: &str, azure: &Emulator, identity: &str| {
            let address = azure.registry_addr();
            format!(
                "  - {{source: {source}, domain: 'example.azurecr.io:{}', prefix: hub, addresses: [127.0.0.1]{identity}}}\n",
                address.port()
            )
        };
        let routes =
            route("ghcr.io", &bad, &format!(", identity: {{{}}}", settings(&file))) + &route("docker.io", &good, "");
        let proxy = setup.only_routes(&routes).start();
        proxy.wait_for_log(&format!("identity.{key} {file}: it is a FIFO: name a regular file"));
        assert_eq!(status(&proxy), 200, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_is_not_a_regular_file_ends_the_start() {
    let azure = azure(Options::default()).await;
    let setup = Setup::new(&azure);
    let file = fifo(&setup, "ca");
    let said = forbidden(setup.flag("--ca-file", &file));
    assert!(said.contains(&format!("--ca-file: {file}: it is a FIFO: name a regular file")), "{said}");
    let said = forbidden(Setup::new(&azure).flag("--ca-file", "/"));
    assert!(said.contains("--ca-file: /: it is a directory: name a regular file"), "{said}");
}

/// Each of these signs in: what editors, `echo` and templates add is taken off.
#[tokio::test(flavor = "multi_thread")]
async fn line_ends_and_byte_order_marks_are_no_part_of_a_secret() {
    type Build = fn(Setup) -> Setup;
    let cases: [(&str, Build); 6] = [
        ("variables", |setup| {
            setup
                .env("AZURE_CLIENT_SECRET", &format!("{SECRET}\n"))
                .env("AZURE_CLIENT_ID", &format!("{CLIENT}\r\n"))
                .env("AZURE_TENANT_ID", &format!("\u{feff}{TENANT}\n"))
        }),
        ("a secret's file", |setup| {
            let file = setup.file("secret", format!("\u{feff}{SECRET}\r\n"));
            setup.settings(&format!("identity: {{kind: client_secret, client_secret_file: {}}}", file.display()))
        }),
        ("the settings' ids", |setup| {
            setup.env("AZURE_TENANT_ID", "").env("AZURE_CLIENT_ID", "").settings(&format!(
                "identity:\n  kind: client_secret\n  tenant_id: |\n    {TENANT}\n  client_id: |\n    {CLIENT}"
            ))
        }),
        ("a federated token", |setup| {
            let file = setup.file("token", service_account_token("1") + "\n");
            setup.env("AZURE_CLIENT_SECRET", "").env("AZURE_FEDERATED_TOKEN_FILE", &file.to_string_lossy())
        }),
        ("PEM", |setup| {
            let file = setup.file("client.pem", format!("\u{feff}{KEY}{STRANGER}{CERTIFICATE}"));
            let file = format!("{}\n", file.display());
            setup.env("AZURE_CLIENT_SECRET", "").env("AZURE_CLIENT_CERTIFICATE_PATH", &file)
        }),
        ("a CA file", |setup| {
            let ca = std::fs::read_to_string(setup.path("ca.pem")).expect("written by new");
            let file = setup.file("marked.pem", format!("\u{feff}{ca}"));
            setup.flag("--ca-file", &file.to_string_lossy())
        }),
    ];
    for (what, build) in cases {
        let azure = azure(Options::default()).await;
        let proxy = build(Setup::new(&azure)).start();
        assert_eq!(status(&proxy), 200, "{what}: {}", proxy.log());
        let sent = azure.requests().into_iter().find(|seen| seen.hop == Hop::Entra).expect("a sign-in");
        assert!(!sent.body.contains("%0A") && !sent.body.contains("%0D"), "{what}: {sent:?}");
    }
}

/// A variable stays as it is while the program runs, so a wrong one ends the start; none of it is quoted.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_variable_ends_the_start_and_is_named() {
    let azure = azure(Options::default()).await;
    for (name, value, says) in [
        (
            "AZURE_AUTHORITY_HOST",
            "127.0.0.1",
            "AZURE_AUTHORITY_HOST: \"127.0.0.1\" is not an address of Entra ID: use https:// and its host, such as https://",
        ),
        ("AZURE_CLIENT_ID", "1111 2222", "AZURE_CLIENT_ID: character 5 is a space"),
        ("AZURE_TENANT_ID", "\"1111\"", "AZURE_TENANT_ID: character 1 is a quotation mark"),
        ("AZURE_CLIENT_SECRET", "hunter\n2", "AZURE_CLIENT_SECRET: character 7 is a line break"),
        (
            "AZURE_CLIENT_SECRET",
            "",
            "AZURE_CLIENT_SECRET is set but empty, beside AZURE_TENANT_ID and AZURE_CLIENT_ID: give its value, or unset it",
        ),
        ("AZURE_CLIENT_SECRET", "\n", "AZURE_CLIENT_SECRET is set but empty"),
        ("AZURE_TENANT_ID", "", "AZURE_TENANT_ID is set but empty, beside AZURE_CLIENT_SECRET: give its value"),
    ] {
        let said = forbidden(Setup::new(&azure).env(name, value));
        assert!(said.contains(says) && !said.contains("hunter"), "{name} {value:?}: {said}");
    }
    let setup = Setup::new(&azure).nobody().env("AZURE_CLIENT_ID", "\"1111\"");
    let said = forbidden(setup.env("IDENTITY_ENDPOINT", "http://127.0.0.1:1/").env("IDENTITY_HEADER", "x"));
    assert!(said.contains("AZURE_CLIENT_ID: character 1 is a quotation mark"), "{said}");
    assert!(azure.requests().is_empty());
    // Another platform's variable is nothing to the secret that signs in.
    assert_eq!(status(&Setup::new(&azure).env("IDENTITY_ENDPOINT", "/another/platform's").start()), 200);
}

/// Neither the settings nor the variables can change while the program runs, so a kind that lacks one can never sign in.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_lacks_a_key_and_its_variable_ends_the_start() {
    let azure = azure(Options::default()).await;
    for (kind, key, name) in [
        ("client_secret", "client_secret_file", "AZURE_CLIENT_SECRET"),
        ("client_certificate", "certificate_file", "AZURE_CLIENT_CERTIFICATE_PATH"),
        ("workload_identity", "token_file", "AZURE_FEDERATED_TOKEN_FILE"),
    ] {
        for (key, name) in [("tenant_id", "AZURE_TENANT_ID"), ("client_id", "AZURE_CLIENT_ID"), (key, name)] {
            // The others are there: the ids and the secret as variables, the file as a key.
            let file = [("certificate_file", "client_certificate"), ("token_file", "workload_identity")];
            let file = file.iter().find(|(other, of)| *of == kind && *other != key).map(|(other, _)| other);
            let file = file.map(|key| format!(", {key}: /nonexistent")).unwrap_or_default();
            let setup = Setup::new(&azure).env(name, "").settings(&format!("identity: {{kind: {kind}{file}}}"));
            let said = forbidden(setup);
            let says = format!("identity.kind: {kind} needs {key}: set it, or give the variable {name} a value");
            assert!(said.contains(&says), "{kind} {key}: {said}");
        }
    }
    assert!(azure.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_secret_in_a_file_is_reported_and_not_sent() {
    for (content, says) in [
        (&b""[..], "it is empty"),
        (b"hunter2 \n", "character 8 is a space: a client secret is one line without white space around it"),
        (b"hunter2\nhunter3\n", "character 8 is a line break"),
        (b"\xff\xfeh\0u\0", "it is text in UTF-16: save it as UTF-8"),
        (b"caf\xe9", "it is not text in UTF-8"),
    ] {
        let azure = azure(Options::default()).await;
        let (_proxy, line) = fails(&azure, |_, setup| {
            let file = setup.file("secret", content);
            setup.settings(&format!("identity: {{kind: client_secret, client_secret_file: {}}}", file.display()))
        });
        assert!(line.contains("client_secret_file") && line.contains(says) && !line.contains("hunter"), "{line}");
        assert!(azure.requests().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_certificate_is_refused_before_anything_is_sent() {
    let azure = azure(Options::default()).await;
    let other = STRANGER.split_inclusive("-----END CERTIFICATE-----\n").next().expect("a certificate");
    let (_proxy, line) = fails(&azure, |_, setup| {
        let file = setup.file("client.pem", format!("{KEY}{other}"));
        setup.settings(&format!("identity: {{kind: client_certificate, certificate_file: {}}}", file.display()))
    });
    assert!(line.contains("no certificate in it belongs to its private key, but to other keys: CN=other"), "{line}");
    assert!(azure.requests().is_empty());
}

/// Microsoft's support asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn entras_correlation_id_is_logged_in_full() {
    let azure = azure(Options::default()).await;
    let (_proxy, line) = fails(&azure, |_, setup| setup.secret("wrong"));
    let id = line.split("Correlation ID: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
    assert_eq!(id.len(), 36, "{line}");
    assert!(line.contains("Timestamp: "), "{line}");
}

/// `az` starts a process that reports its use and outlives it, with the same standard output.
#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_az_ends_with_az_even_if_a_child_holds_the_pipe() {
    let azure = azure(Options::default()).await;
    let setup = Setup::new(&azure);
    let pid = setup.path("pid");
    let answer = r#"{"accessToken":"x","expires_on":'$(($(date +%s)+3600))',"tokenType":"Bearer"}"#;
    let script = format!("#!/bin/sh\nsleep 600 &\necho $! > {}\necho '{answer}'\n", pid.display());
    let proxy = tool(setup, "az", &script).settings("identity: {kind: azure_cli}").start();
    proxy.wait_for_log("entra: signed in by Azure CLI");
    wait_for(&azure, "the token's exchange", |requests| {
        requests.iter().any(|seen| seen.hop == Hop::Exchange && seen.body.contains("access_token=x"))
    })
    .await;
    let pid = std::fs::read_to_string(pid).expect("written");
    let killed = std::process::Command::new("kill").arg(pid.trim()).status().expect("kill runs");
    assert!(killed.success(), "what the tool started is its own and still runs");
}

/// serde's messages quote what is wrong, and that may be the token.
#[tokio::test(flavor = "multi_thread")]
async fn output_of_a_tool_with_a_wrong_type_is_not_quoted() {
    for (name, kind, answer) in [
        ("az", "azure_cli", r#"{"accessToken":"x","expires_on":"eyJhunter","tokenType":"Bearer"}"#),
        ("az", "azure_cli", r#"{"accessToken":["eyJhunter"],"expires_on":1,"tokenType":"Bearer"}"#),
        ("azd", "azure_developer_cli", r#"{"token":"x","expiresOn":"eyJhunter"}"#),
        ("azd", "azure_developer_cli", r#"eyJhunter"#),
    ] {
        let azure = azure(Options::default()).await;
        let script = format!("#!/bin/sh\nprintf '%s' '{answer}'\n");
        let (_proxy, line) =
            fails(&azure, |_, setup| tool(setup, name, &script).settings(&format!("identity: {{kind: {kind}}}")));
        assert!(line.contains("the answer is not the JSON of a token: line 1, column "), "{line}");
        assert!(!line.contains("hunter"), "{line}");
    }
}

/// The tenant was forgotten, and the machine's own identity signed in without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_used_is_reported() {
    let azure = azure(Options { identity_listen: Some(([127, 0, 0, 1], 0).into()), ..Options::default() }).await;
    let setup = Setup::new(&azure)
        .managed(&azure)
        .without("AZURE_TENANT_ID")
        .without("AZURE_CLIENT_ID")
        .env("AZURE_CLIENT_SECRET", SECRET);
    let proxy = setup.start();
    let line = proxy.wait_for_log("AZURE_CLIENT_SECRET is not used without AZURE_TENANT_ID and AZURE_CLIENT_ID");
    assert!(line.contains(" WARN "), "{line}");
    proxy.wait_for_log("signed in by managed identity");
}

/// What a server says of its refusal is in the log and in the answer to every client, and it may say what it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_server_repeats_in_its_refusal_reaches_neither_clients_nor_the_log() {
    type Build = fn(&Emulator, Setup) -> Setup;
    let header = Options::default().identity_header;
    let encoded = SECRET.replace('~', "%7E");
    let cases: [(&str, Hop, &str, Build); 2] = [
        ("client secret", Hop::Entra, SECRET, |_, setup| setup),
        ("managed identity", Hop::Imds, &header, |azure, setup| setup.managed(azure)),
    ];
    for (source, hop, secret, build) in cases {
        let azure = azure(Options { identity_listen: Some(([127, 0, 0, 1], 0).into()), ..Options::default() }).await;
        let form = format!("client_id=x&client_secret={encoded}&grant_type=client_credentials");
        let body = serde_json::json!({
            "error": format!("refused {secret}"),
            "error_description": format!(
                "AADSTS90014: you sent {form}: the secret is {secret}, it ends with {}, small {}, backwards {}, base64 {}",
                &secret[9..],
                secret.to_lowercase(),
                secret.chars().rev().collect::<String>(),
                STANDARD.encode(format!("x:{secret}")),
            ),
        });
        let body = body.to_string();
        azure.inject(hop, Fault::StatusWith { status: 401, headers: Vec::new(), body });
        let setup = build(&azure, Setup::new(&azure)).settings("token_wait: 1s").flag("--admin-address", ":0");
        let proxy = setup.start();
        proxy.wait_for_log(&format!("{source}: 401 refused (a secret): the sign-in was refused"));
        let manifest = wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", "");
        assert!(manifest.body.contains("AADSTS90014: you sent "), "{manifest:?}");
        let said = ["GET /readyz", "GET /status"].map(|ask| wire::ask(admin(&proxy), ask, "").body);
        let log = proxy.end();
        for (place, text) in [("client", &manifest.body), ("readyz", &said[0]), ("status", &said[1]), ("log", &log)] {
            let leaks = |part: &[u8]| text.contains(std::str::from_utf8(part).expect("ASCII"));
            let (small, backwards) = (secret.to_lowercase(), secret.chars().rev().collect::<String>());
            let encoded = STANDARD.encode(format!("x:{secret}"));
            for form in [secret, &small, &backwards, &encoded[3..]] {
                assert!(!form.as_bytes().windows(8).any(leaks), "{source}: {place}: {text}");
            }
        }
    }
}

/// A registry that repeats the token with other characters in place of its dots had the signature in the log.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_a_token_that_the_registry_repeats_reaches_the_log() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
        let asked = azure.requests().into_iter().rfind(|request| request.hop == Hop::Data).expect("a request");
        let token =
            asked.header("authorization").and_then(|it| it.strip_prefix("Bearer ")).expect("a token").to_owned();
        let signature = token.rsplit('.').next().expect("a signature");
        for (number, repeated) in [
            format!("{} {}", &signature[..40], &signature[50..80]),
            STANDARD.encode(&signature[..60]),
            signature[..60].chars().rev().collect(),
        ]
        .into_iter()
        .enumerate()
        {
            azure.clear_faults();
            let error = serde_json::json!({"errors": [{"code": "DENIED", "message": format!("sent {repeated}")}]});
            let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            azure.inject(Hop::Data, Fault::StatusWith { status: 403, headers, body: error.to_string() });
            let path = format!("GET /v2/library/other{number}/manifests/latest");
            assert_eq!(wire::ask(proxy.address(), &path, "").status, 403, "{cache}");
        }
        let log = proxy.end();
        assert!(log.matches("DENIED: sent (a secret)").count() >= 3, "{cache}: {log}");
        assert!(!log.contains(&signature[..8]) && !log.contains(&signature[50..58]), "{cache}: {log}");
    }
}
