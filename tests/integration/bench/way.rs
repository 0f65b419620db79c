//! How `bench` reaches Azure and signs in to it, and the proxy that it measures.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use acr_emulator::{Emulator, Image, Options, RateLimits};
use serde_json::{Value, json};

use super::{Bench, IMAGE, end, text};
use testkit::certificates::Authority;
use testkit::forward::{Does, ForwardProxy};
use testkit::{CLIENT, SECRET, Setup, TENANT};

#[tokio::test(flavor = "multi_thread")]
async fn direct_pulls_go_through_the_egress_proxy_as_the_daemon_does() {
    let azure = testkit::azure().await;
    let authority = Authority::new("The proxy's CA");
    let ca = azure.ca_pem().to_owned() + authority.pem();
    let plain = ForwardProxy::start().await;
    let secured = ForwardProxy::start_tls(&authority.server(&["127.0.0.1"])).await;
    let proxy = Setup::new(&azure).start();
    let of = |forward: &ForwardProxy| {
        [azure.entra_addr(), azure.registry_addr(), azure.storage_addr()].map(|to| forward.connects_to(to) > 0)
    };
    let once = format!("--image {IMAGE} --pulls 1");
    let variable = ("HTTPS_PROXY", format!("http://{}", plain.address()));

    // By the variable; the proxy that is measured is asked directly, the storage that it redirects to is not.
    let bench = Bench::new(&azure).by_name("", &ca).variable(variable.0, variable.1.clone()).args(&once);
    bench.args(&format!("--via {}", proxy.url(""))).report();
    assert_eq!(of(&plain), [true; 3], "{:#?}", plain.asked());
    assert_eq!(plain.connects_to(proxy.address()), 0);

    // The file's setting counts before it, and TLS to the proxy is spoken here as well.
    let asked = plain.asked().len();
    let settings =
        format!("egress: {{proxy: 'https://{}', no_proxy: ['{}']}}", secured.address(), azure.storage_addr());
    Bench::new(&azure).by_name(&settings, &ca).variable(variable.0, variable.1.clone()).args(&once).report();
    assert_eq!(of(&secured), [true, true, false], "{:#?}", secured.asked());
    assert_eq!(plain.asked().len(), asked);

    // A registry with addresses is reached there.
    let asked = (plain.asked().len(), plain.connects_to(azure.registry_addr()));
    Bench::new(&azure).direct().variable(variable.0, variable.1.clone()).args(&once).report();
    assert_eq!(plain.connects_to(azure.registry_addr()), asked.1, "{:#?}", plain.asked());
    assert!(plain.asked().len() > asked.0, "Entra ID and storage are behind it");

    // What the proxy says is told.
    plain.set(Does::Denies);
    let output = Bench::new(&azure).by_name("", &ca).variable(variable.0, variable.1).args(&once).run();
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("403 ERR_ACCESS_DENIED: it does not allow CONNECT"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_gets_the_certificate_that_it_asks_for() {
    let azure = testkit::azure().await;
    let authority = Authority::new("The mirror's CA");
    let (server, client) =
        (authority.server(&["127.0.0.1"]), authority.client("builder", "spiffe://example.org/builder"));
    let setup = Setup::new(&azure);
    for (name, content) in
        [("s.pem", &server.certificate), ("s.key", &server.key), ("clients.pem", &authority.pem().to_owned())]
    {
        setup.file(name, content);
    }
    let tls = "[{address: '127.0.0.1:0', tls: {certificate: '{}/s.pem', key: '{}/s.key', client_ca: '{}/clients.pem', client_auth: required}}]";
    let proxy = setup.listen(tls).start();
    let bench = || {
        let bench = Bench::new(&azure);
        std::fs::write(&bench.ca, azure.ca_pem().to_owned() + authority.pem()).expect("written");
        bench.via(&format!("https://{}", proxy.address())).args(&format!("--image {IMAGE} --pulls 1"))
    };
    // A private CA is named by a flag, which nobody was told of.
    let trusted = Bench::new(&azure);
    let ca = trusted.ca.display().to_string();
    let untrusted =
        trusted.variable("SSL_CERT_FILE", ca).args(&format!("--image {IMAGE} --via https://{}", proxy.address()));
    let said = text(&untrusted.run().stderr);
    let advice =
        "TLS: its certificate is not trusted: name its CA with --ca-file: invalid peer certificate: UnknownIssuer";
    assert!(said.contains(advice), "{said}");
    let refused = bench().run();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    let bench = bench();
    let (certificate, key) = (bench.path("c.pem"), bench.path("c.key"));
    std::fs::write(&certificate, &client.certificate).expect("written");
    std::fs::write(&key, &client.key).expect("written");
    bench.args(&format!("--certificate {} --key {}", certificate.display(), key.display())).report();
}

/// The registry's 429, which the proxy passes on as a 503, counted as another error, and the run as one that had gone well.
#[tokio::test(flavor = "multi_thread")]
async fn most_pulls_failed_by_the_registrys_limit_and_the_run_had_gone_well() {
    let rate_limits = RateLimits { reads: Some(60), ..RateLimits::NONE };
    let azure = Emulator::start(Options { rate_limits, ..testkit::options() }).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let proxy = Setup::new(&azure).cache("off").start();
    let output = Bench::new(&azure)
        .via(&proxy.url(""))
        .args(&format!("--image {IMAGE} --pulls 40 --layers none --json -"))
        .run();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let side = &report["runs"][0]["sides"]["via"];
    let errors = side["errors"].as_u64().expect("a number");
    assert!(errors > 20 && errors < 40 && side["limited"] == side["errors"], "{side:#}");
    let begin =
        format!("{errors} of 40 pulls through the proxy failed, {errors} by a limit of requests. Through the proxy");
    assert!(report["answer"][0].as_str().is_some_and(|answer| answer.starts_with(&begin)), "{report:#}");
    assert!(said.contains(&format!("{errors} of 40 via pulls failed: ")) && said.contains("TOOMANYREQUESTS"), "{said}");
}

/// The flag's CA took the place of that of the settings, so a proxy with a CA of its own was not measured beside a registry with another; nor was
/// an image by the name that `warm` and `check` take, nor one whose index is in an index.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_a_ca_of_its_own_is_measured_beside_a_registry_with_another() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const REPOSITORY: &str = "hub/library/busybox";
    let azure = testkit::azure().await;
    let inner = azure.manifest(REPOSITORY, "latest").expect("pushed");
    let size = inner.len();
    let digest = azure.put_manifest(REPOSITORY, "inner", INDEX, inner);
    let inner = json!({"mediaType": INDEX, "digest": digest, "size": size});
    let outer = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]});
    azure.put_manifest(REPOSITORY, "nested", INDEX, outer.to_string());

    let authority = Authority::new("The mirror's CA");
    let server = authority.server(&["127.0.0.1"]);
    let setup = Setup::new(&azure);
    for (name, content) in [("s.pem", &server.certificate), ("s.key", &server.key)] {
        setup.file(name, content);
    }
    let proxy = setup.listen("[{address: '127.0.0.1:0', tls: {certificate: '{}/s.pem', key: '{}/s.key'}}]").start();
    let bench = Bench::new(&azure).direct();
    let ca = bench.path("mirror.pem");
    std::fs::write(&ca, authority.pem()).expect("written");
    let via = format!("--via https://{} --ca-file {}", proxy.address(), ca.display());
    bench.args(&format!("{via} --image docker.io/library/busybox:nested --pulls 1")).report();
}

/// It said that the machine has no identity: the file that has the secret was not read, where `check` and `init` read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_pull_signs_in_by_the_services_variables_unless_the_environment_says_who() {
    let azure = testkit::azure().await;
    let whole = format!(
        "LD_PRELOAD=/nonexistent.so\nAZURE_AUTHORITY_HOST={}\nAZURE_TENANT_ID={TENANT}\nAZURE_CLIENT_ID={CLIENT}\nAZURE_CLIENT_SECRET={SECRET}\n",
        azure.authority()
    );
    let taken = "with the variables of */environment, as the service gets them at its next start";
    let left = "without the variables of */environment, because the environment says who signs in";
    // Whether the shell has a sign-in, and with which secret; what the file has; what is said of it.
    for (signs_in, secret, file, said) in [
        (false, "", whole.as_str(), Some(taken)),
        (true, SECRET, "AZURE_CLIENT_SECRET=wrong\n", None),
        (true, SECRET, "AZURE_FEDERATED_TOKEN_FILE=/nonexistent\n", Some(left)),
    ] {
        let bench = Bench { signs_in, secret: secret.to_owned(), ..Bench::new(&azure) }.direct();
        std::fs::write(bench.path("environment"), file).expect("written");
        std::fs::set_permissions(bench.path("environment"), Permissions::from_mode(0o600)).expect("its mode");
        // A mix that is a pipe is read once, although the program is started anew.
        let bench = bench.args("--mix /dev/stdin --pulls 1 --json -");
        let mut child = bench.spawn_with(Stdio::piped());
        child.stdin.take().expect("a pipe").write_all(IMAGE.as_bytes()).expect("written");
        let output = end(child);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{file}: {err}");
        let report: Value = serde_json::from_str(&out).expect("JSON");
        let told: Vec<_> = report["variables"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let path = bench.path("environment").display().to_string();
        let expected: Vec<_> = said.iter().map(|said| said.replace("*/environment", &path)).collect();
        assert_eq!(told, expected, "{file}");
        assert!(expected.iter().all(|said| err.contains(&format!("bench: {said}\n"))), "{err}");
        assert!(report["command"].as_str().is_some_and(|line| line.ends_with("--json -")), "{report:#}");
    }
}
