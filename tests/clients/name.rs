//! A registry that is known by name, until the name is gone.

use std::net::{Ipv4Addr, SocketAddr};

use acr_emulator::{Emulator, Options};

use crate::containers;
use crate::mirror::Mirror;
use crate::namespace::{self, Bound};
use testkit::Setup;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_name_that_vanishes_from_dns_does_no_harm() {
    namespace::assert_isolated();
    // The port that a registry has when its domain names none.
    let registry_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let azure = Emulator::start(Options { registry_listen, ..testkit::options() }).await.expect("the emulator starts");
    let setup = Setup::new(&azure);
    let ca = setup.file("registry-ca.pem", azure.ca_pem());
    let config = setup.file(
        "name.yaml",
        format!(
            "upstream: {{domain: 'example.azurecr.io:443', prefix: hub}}\nlisten: 127.0.0.1:0\nca_file: {}\nlog: info\n",
            ca.display()
        ),
    );
    let files = tempfile::tempdir().expect("a temporary directory");
    let localhost = "127.0.0.1 localhost\n";
    let hosts = Bound::new(files.path().join("hosts"), "/etc/hosts", localhost);
    hosts.rewrite(&format!("{localhost}127.0.0.1 example.azurecr.io\n"));
    let proxy = setup.flag("--config", &config.to_string_lossy()).start();
    let mirror = Mirror::of(azure, proxy, "example.azurecr.io");
    containers::configure(&mirror.home, &containers::mirrored(&mirror.address()));

    let [known, rest @ ..] = mirror.pulls() else { unreachable!("there are three") };
    containers::SKOPEO.pull_and_verify(&mirror, known);
    hosts.rewrite(localhost);
    mirror.proxy.wait_for_log("acr example.azurecr.io: DNS look-up: the last good addresses stay in use");
    for pull in rest {
        containers::SKOPEO.pull_and_verify(&mirror, pull);
    }
}
