use std::net::SocketAddr;
use std::process::Command;

use acr_emulator::{Emulator, Hop, Image, Options, Server};

use crate::harness::{self, PATIENCE, Proxy, Setup};
use crate::kept::Kept;

const PULL: &str = "/v2/library/busybox/manifests/latest";

/// A virtual machine: the metadata service is at its address, which this namespace then has.
async fn machine() -> Emulator {
    // A second test of this namespace finds the address there.
    let _ = Command::new("ip").args(["addr", "add", "169.254.169.254/32", "dev", "lo"]).output().expect("ip runs");
    let options = Options { identity_listen: Some(SocketAddr::from(([169, 254, 169, 254], 80))), ..harness::options() };
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
    let azure = machine().await;
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
    let token = azure.wait_for(|requests| requests.iter().any(|request| request.hop == Hop::Token));
    tokio::time::timeout(PATIENCE, token).await.expect("signed in");
    assert_eq!(client.get(PULL).expect("an answer").status, 200);
}
