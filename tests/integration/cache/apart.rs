//! What is kept of one repository or registry answers for no other.

use acr_emulator::{Emulator, Image, Options, Pushed};

use super::cached::{ACCEPT, is_hit};
use crate::wire::{Client, Whole};
use testkit::{Proxy, Setup};

const LONG: &str = "{tags: 1h, manifests: 1h, missing: 10m, redirects: 10m, lists: 1h}";

fn get(proxy: &Proxy, path: &str) -> Whole {
    Client::new(proxy.address()).ask("GET", path, "HTTP/1.1", ACCEPT)
}

/// Everything that can be asked of an image, but for its tag.
fn targets(name: &str, pushed: &Pushed) -> Vec<String> {
    let manifests =
        [&pushed.index_digest, &pushed.manifests[0].1].map(|digest| format!("/v2/{name}/manifests/{digest}"));
    let referrers = format!("/v2/{name}/referrers/{}", pushed.index_digest);
    let blob = format!("/v2/{name}/blobs/{}", pushed.blobs[0]);
    let rest = [format!("/v2/{name}/tags/list"), referrers, blob];
    manifests.into_iter().chain(rest).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_digest_in_another_repository_is_asked_for_there() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let mine = azure.push(Image::small("hub/org/mine", "latest"));
    azure.push(Image::small("hub/org/theirs", "latest").copy_of("hub/org/mine"));
    azure.push(Image::small("hub/org/none", "other"));
    let proxy = Setup::new(&azure).cache(LONG).start();
    for target in targets("org/mine", &mine) {
        assert!(get(&proxy, &target).status() < 400, "{target}");
    }
    // The right to one is not the right to the other.
    azure.revoke_repository("hub/org/theirs");
    for target in targets("org/theirs", &mine) {
        azure.clear_requests();
        assert_eq!(get(&proxy, &target).status(), 403, "{target}");
        assert!(!azure.reads().is_empty(), "{target}: the registry decides");
    }
    for target in &targets("org/none", &mine)[..2] {
        assert_eq!(get(&proxy, target).status(), 404, "{target}: it is not there");
    }
    azure.clear_requests();
    for target in targets("org/mine", &mine) {
        assert!(is_hit(&get(&proxy, &target)), "{target}");
    }
    assert!(azure.requests().is_empty(), "{:?}", azure.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_route_to_the_same_repository_shares_it_and_another_prefix_does_not() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    azure.push(Image::small("mirror/library/busybox", "latest"));
    let routes = [("docker.io", "hub"), ("ghcr.io", "mirror"), ("quay.io", "hub")];
    let proxy = Setup::routes(&azure, &routes).cache(LONG).start();
    let [hub, mirror, again] =
        routes.map(|(source, _)| get(&proxy, &format!("/v2/library/busybox/manifests/latest?ns={source}")));
    assert_eq!(hub.header("docker-content-digest"), Some(pushed.index_digest.as_str()), "{hub:?}");
    assert_ne!(mirror.header("docker-content-digest"), hub.header("docker-content-digest"));
    assert!(hub.body == again.body && is_hit(&again) && !is_hit(&mirror), "{again:?} {mirror:?}");
    assert_eq!(azure.reads().values().sum::<usize>(), 2, "{:?}", azure.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_repository_of_another_registry_is_asked_for_there() {
    const NAME: &str = "hub/library/busybox";
    let one = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let other = Emulator::start(Options { login_server: "other.azurecr.io".to_owned(), ..testkit::options() });
    let other = other.await.expect("the emulator starts");
    let pushed = one.push(Image::small(NAME, "latest"));
    // Another image under the same tag, and nothing under the digests.
    other.push(Image::small(NAME, "latest").with_layers(1, 100));
    let setup = Setup::new(&one);
    let ca = setup.file("both.pem", format!("{}{}", one.ca_pem(), other.ca_pem()));
    let authority = other.authority().trim_end_matches('/').to_owned();
    let domain = |name: &str, azure: &Emulator| format!("'{name}.azurecr.io:{}'", azure.registry_addr().port());
    let routes = format!(
        "listen: 127.0.0.1:0\nca_file: {}\nroutes:\n\
         \x20 - {{source: docker.io, prefix: hub, domain: {}, addresses: [127.0.0.1]}}\n\
         \x20 - {{source: quay.io, prefix: hub, domain: {}, addresses: [127.0.0.1], \
               identity: {{kind: client_secret, authority: '{authority}'}}}}\ncache: {LONG}\n",
        ca.display(),
        domain("example", &one),
        domain("other", &other),
    );
    let file = setup.file("routes.yaml", routes);
    let proxy = setup.flag("--config", &file.to_string_lossy()).start();
    let tag = |source: &str| get(&proxy, &format!("/v2/library/busybox/manifests/latest?ns={source}"));
    let (first, second) = (tag("docker.io"), tag("quay.io"));
    assert_eq!((first.status(), second.status()), (200, 200), "{first:?} {second:?}");
    assert_ne!(first.header("docker-content-digest"), second.header("docker-content-digest"));
    for target in &targets("library/busybox", &pushed)[..2] {
        assert_eq!(get(&proxy, &format!("{target}?ns=docker.io")).status(), 200, "{target}");
        assert_eq!(get(&proxy, &format!("{target}?ns=quay.io")).status(), 404, "{target}");
    }
}
