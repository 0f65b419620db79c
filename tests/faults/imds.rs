//! The metadata service at its real address.

use std::net::SocketAddr;
use std::process::Command;

use acr_emulator::{Emulator, Fault, Hop, Image, ManagedIdentity, Options, Server};

use crate::client::Client;
use testkit::{Proxy, Setup, wait_for};

const PULL: &str = "/v2/library/busybox/manifests/latest";

/// A virtual machine: the metadata service is at its address, which this namespace then has.
async fn machine(options: Options) -> Emulator {
    // A second test of this namespace finds the address there.
    let _ = Command::new("ip").args(["addr", "add", "169.254.169.254/32", "dev", "lo"]).output().expect("ip runs");
    let options = Options { identity_listen: Some(SocketAddr::from(([169, 254, 169, 254], 80))), ..options };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    azure
}

/// A proxy that has nothing but the machine's identity.
fn proxy(azure: &Emulator) -> Proxy {
    ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]
        .into_iter()
        .fold(Setup::new(azure).cache("off"), |setup, name| setup.env(name, ""))
        .env("PATH", "/nonexistent")
        .start()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_machines_identity_is_found_at_its_address_now_or_later() {
    let azure = machine(testkit::options()).await;
    {
        let proxy = proxy(&azure);
        assert_eq!(Client::new(proxy.address()).get(PULL).expect("an answer").status, 200);
        let requests = azure.take_requests();
        let asked = requests.iter().find(|request| request.hop == Hop::Imds).expect("asked");
        assert!(asked.target.starts_with("/metadata/identity/oauth2/token?"), "{}", asked.target);
        assert_eq!(asked.header("metadata"), Some("true"));
    }
    // At boot the service may be there later than everything else.
    azure.refuse_connections(Server::Identity, true);
    let proxy = proxy(&azure);
    let mut client = Client::new(proxy.address());
    let refused = client.get(PULL).expect("an answer");
    assert_eq!((refused.status, refused.code.as_deref()), (503, Some("UNAVAILABLE")), "{refused:?}");
    azure.refuse_connections(Server::Identity, false);
    wait_for(&azure, "a token", |requests| requests.iter().any(|request| request.hop == Hop::Token)).await;
    assert_eq!(client.get(PULL).expect("an answer").status, 200);
}

/// How often it is asked again is the proxy's own plan: a client whose time is up is told what the service said, and when
/// to come back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn what_the_metadata_service_answers_is_said_and_asked_again_in_its_time() {
    let limited = || Fault::StatusWith {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "7".to_owned())],
        body: r#"{"error":"too_many_requests","error_description":"Too many requests"}"#.to_owned(),
    };
    let azure = machine(testkit::options()).await;
    for (fault, retry_after, says) in [
        (Fault::Status(400), 30, "400 invalid_request: no such managed identity is assigned to this machine"),
        (Fault::Status(404), 1, "404 not_found: the identity endpoint is not ready, trying again"),
        (Fault::Status(410), 1, "410 gone: the identity endpoint is not ready, trying again"),
        (limited(), 7, "429 too_many_requests: too many requests for tokens, waiting"),
        (Fault::Status(500), 1, "500 unknown: the service has trouble, trying again"),
        (Fault::Hang, 1, "no answer in time, trying again"),
    ] {
        azure.clear_faults();
        azure.clear_requests();
        azure.inject(Hop::Imds, fault.clone());
        let proxy = Setup::new(&azure).cache("off").nobody().settings("identity: {kind: managed_identity}").start();
        let mut client = Client::new(proxy.address());
        let seen = client.get(PULL).expect("an answer");
        let told = (seen.status, seen.code.as_deref(), seen.retry_after);
        assert_eq!(told, (503, Some("UNAVAILABLE"), Some(retry_after)), "{fault:?}: {}", proxy.log());
        let line = proxy.wait_for_log(" access] GET ");
        assert!(line.contains(&format!("no registry token: entra: managed identity: {says}")), "{fault:?}: {line}");
        if retry_after != 30 {
            azure.clear_faults();
            wait_for(&azure, "a token", |requests| requests.iter().any(|request| request.hop == Hop::Token)).await;
            assert_eq!(client.get(PULL).expect("an answer").status, 200, "{fault:?}: {}", proxy.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn one_of_a_machines_identities_is_picked_by_any_of_its_ids() {
    const RESOURCE: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/p";
    let identity = |may_pull, number: &str, resource_id| ManagedIdentity {
        client_id: format!("c0000000-0000-4000-8000-00000000000{number}"),
        object_id: format!("0b000000-0000-4000-8000-00000000000{number}"),
        resource_id,
        may_pull,
        ..ManagedIdentity::default()
    };
    let identities = vec![identity(false, "1", None), identity(true, "2", Some(RESOURCE.to_owned()))];
    let azure = machine(Options { managed_identities: identities, ..testkit::options() }).await;
    for (setting, status) in [
        ("", 503),
        ("client_id: c0000000-0000-4000-8000-000000000002", 200),
        ("object_id: 0b000000-0000-4000-8000-000000000002", 200),
        (
            "resource_id: /subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/p",
            200,
        ),
        ("client_id: c0000000-0000-4000-8000-000000000003", 503),
    ] {
        let settings = format!("identity: {{kind: managed_identity, {setting}}}");
        let proxy = Setup::new(&azure).cache("off").nobody().settings(&settings).start();
        assert_eq!(
            Client::new(proxy.address()).get(PULL).expect("an answer").status,
            status,
            "{setting}: {}",
            proxy.log()
        );
    }
}
