use std::net::SocketAddr;
use std::process::Command;

use acr_emulator::{Emulator, Hop, Image, ManagedIdentity, Options, Server};

use crate::harness::{self, Proxy, Setup, wait_for};
use crate::kept::Kept;

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
        .fold(Setup::new(azure), |setup, name| setup.env(name, ""))
        .env("PATH", "/nonexistent")
        .start()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_machines_identity_is_found_at_its_address_now_or_later() {
    let azure = machine(harness::options()).await;
    {
        let proxy = proxy(&azure);
        assert_eq!(Kept::new(proxy.address()).get(PULL).expect("an answer").status, 200);
        let requests = azure.take_requests();
        let asked = requests.iter().find(|request| request.hop == Hop::Imds).expect("asked");
        assert!(asked.target.starts_with("/metadata/identity/oauth2/token?"), "{}", asked.target);
        assert_eq!(asked.header("metadata"), Some("true"));
    }
    // At boot the service may be there later than everything else.
    azure.refuse_connections(Server::Identity, true);
    let proxy = proxy(&azure);
    let mut client = Kept::new(proxy.address());
    let refused = client.get(PULL).expect("an answer");
    assert_eq!((refused.status, refused.code.as_deref()), (503, Some("UNAVAILABLE")), "{refused:?}");
    azure.refuse_connections(Server::Identity, false);
    wait_for(&azure, "a token", |requests| requests.iter().any(|request| request.hop == Hop::Token)).await;
    assert_eq!(client.get(PULL).expect("an answer").status, 200);
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
    let azure = machine(Options { managed_identities: identities, ..harness::options() }).await;
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
        let proxy = Setup::new(&azure).nobody().settings(&settings).start();
        assert_eq!(
            Kept::new(proxy.address()).get(PULL).expect("an answer").status,
            status,
            "{setting}: {}",
            proxy.log()
        );
    }
}
