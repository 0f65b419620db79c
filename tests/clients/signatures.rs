//! Signatures, which podman looks for by the address that it asks.

use std::path::PathBuf;
use std::process::Command;

use acr_emulator::{Emulator, Server};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::json;

use crate::containers;
use crate::daemon::DAEMON_LIMIT;
use crate::home::Home;
use crate::hub::{Site, TAG, of_repository};
use crate::program::{fail, run};
use crate::tree::Tree;
use testkit::{PATIENCE, Proxy};

const PREFIX: &str = "hub";
const SIGNED: &str = "library/signed";
const UNSIGNED: &str = "library/unsigned";
const NO_SIGNATURE: &str = "A signature was required, but no signature exists";

/// A proxy before a registry in which one image is signed as cosign does it, and a home with what `client-config podman`
/// has written and a policy that takes nothing else from Docker Hub.
struct Scene {
    site: Site,
    home: Home,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Self {
        Self::with_cache("{}").await
    }

    async fn with_cache(cache: &str) -> Self {
        Self::with(cache, true).await
    }

    /// Whether the policy requires signatures decides what is written.
    async fn with(cache: &str, is_required: bool) -> Self {
        let site = Site::start().await;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        for name in [SIGNED, UNSIGNED] {
            site.put(PREFIX, name);
        }
        sign(&site.azure, SIGNED, &key);

        let setup = site.proxy(&[("docker.io", PREFIX)], "fallback").cache(cache);
        let (config, home) = (setup.path("config.yaml"), site.home());
        let proxy = setup.start();
        containers::configure(&home, "");
        let key_path = home.file("key.pem", &key.public_key_pem());
        let signed = json!([{"type": "sigstoreSigned", "keyPath": key_path}]);
        let policy = match is_required {
            true => json!({"default": [{"type": "reject"}], "transports": {"docker": {"docker.io": signed}}}),
            false => json!({"default": [{"type": "insecureAcceptAnything"}]}),
        };
        for path in ["etc/containers/policy.json", ".config/containers/policy.json"] {
            home.file(path, &policy.to_string());
        }
        home.write_client_config("podman", &config, &proxy);
        Self { site, home, proxy }
    }

    /// A file that was written for the client.
    fn written(&self, path: &str) -> PathBuf {
        self.home.path().join("etc/containers").join(path)
    }

    /// What is kept is for trouble alone, and every image is taken.
    async fn for_trouble() -> Self {
        let scene = Self::with_cache("{tags: 0s, manifests: 0s, missing: 0s, redirects: 0s}").await;
        scene.take_all();
        scene
    }

    /// Has a user's own directory for signatures, without an entry.
    fn look_for_none(&self) {
        self.home.file(".config/containers/registries.d/empty.yaml", "docker: {}\n");
    }

    /// Puts the written file for signatures where a user's own is.
    fn look_for_signatures(&self) {
        let content = std::fs::read_to_string(self.written("registries.d/50-acr-cache-proxy.yaml")).expect("written");
        self.home.file(".config/containers/registries.d/50-acr-cache-proxy.yaml", &content);
    }

    /// Takes every image, whoever has signed it.
    fn take_all(&self) {
        let policy = json!({"default": [{"type": "insecureAcceptAnything"}]});
        self.home.file(".config/containers/policy.json", &policy.to_string());
    }

    /// By the podman of a tree, or this machine's.
    fn pull(&self, tree: Option<&Tree<'_>>, name: &str) -> Command {
        let words = format!("podman pull docker.io/{name}:{TAG}");
        let mut command = match tree {
            Some(tree) => tree.program(DAEMON_LIMIT, &words),
            None => containers::client(&self.home, PATIENCE, &words),
        };
        command.env("CONTAINERS_STORAGE_CONF", self.home.path().join(".config/containers/storage.conf"));
        let conf = self.written("registries.conf.d/50-acr-cache-proxy.conf");
        command.env("CONTAINERS_REGISTRIES_CONF", conf);
        command
    }

    /// Whether the proxy was asked for these, and nobody else for anything.
    fn check_log(&self, parts: &[&str]) {
        assert!(self.site.hub.requests().is_empty(), "{:#?}", self.site.hub.requests());
        for part in parts {
            self.proxy.wait_for_log(part);
        }
    }
}

/// Signs every manifest of the tag, as cosign does it: an artifact by a tag that is made of the manifest's digest.
fn sign(registry: &Emulator, name: &str, key: &KeyPair) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
    let random = SystemRandom::new();
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der(), &random).expect("a key");
    let repository = format!("{PREFIX}/{name}");
    let index = registry.manifest(&repository, TAG).expect("pushed");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    for digest in index["manifests"].as_array().expect("an index").iter().map(|manifest| &manifest["digest"]) {
        let digest = digest.as_str().expect("a digest");
        let payload = json!({
            "critical": {
                "type": "cosign container image signature",
                "image": {"docker-manifest-digest": digest},
                "identity": {"docker-reference": format!("docker.io/{name}:{TAG}")},
            },
            "optional": null,
        })
        .to_string();
        let signature = signer.sign(&random, payload.as_bytes()).expect("a signature");
        // It is there for its blobs.
        let holder = registry.attach(&repository, digest, PAYLOAD, payload);
        let holder = registry.manifest(&repository, &holder).expect("attached");
        let mut manifest: serde_json::Value = serde_json::from_slice(&holder).expect("JSON");
        let layer = &mut manifest["layers"][0];
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": BASE64.encode(signature)});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": manifest["config"],
            "layers": manifest["layers"],
        });
        let tag = format!("{}.sig", digest.replace(':', "-"));
        registry.put_manifest(&repository, &tag, MANIFEST, manifest.to_string());
    }
}

/// Debian 12's podman is built without sigstore, and refuses what such a policy is for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_5_finds_sigstore_signatures_at_the_mirror() {
    let scene = Scene::new().await;
    let tree = Tree::mount(&scene.home, 14);
    scene.look_for_none();
    let said = fail(&mut scene.pull(Some(&tree), SIGNED));
    assert!(said.contains(NO_SIGNATURE), "{said}");
    scene.look_for_signatures();
    run(&mut scene.pull(Some(&tree), SIGNED));
    let said = fail(&mut scene.pull(Some(&tree), UNSIGNED));
    assert!(said.contains(NO_SIGNATURE), "{said}");
    scene.check_log(&[".sig 200 ", ".sig 404 "]);
}

/// client-config had every host look for signatures, so that this ended with "Pushing signatures for OCI images is not supported", whatever
/// the policy was. Debian 12's skopeo looks for none.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_signed_image_could_not_be_copied_where_no_policy_requires_signatures() {
    for is_required in [false, true] {
        let scene = Scene::with("{}", is_required).await;
        let file = scene.written("registries.d/50-acr-cache-proxy.yaml");
        assert_eq!(file.exists(), is_required, "{}", file.display());
        let signatures = std::fs::read_to_string(file).unwrap_or_else(|_| "docker: {}\n".to_owned());
        let directory = scene.home.file("registries.d/ours.yaml", &signatures);
        let directory = directory.parent().expect("in the home").display();
        // It has no variable for the file of registries.
        let conf =
            std::fs::read_to_string(scene.written("registries.conf.d/50-acr-cache-proxy.conf")).expect("written");
        scene.home.file(".config/containers/registries.conf", &conf);
        scene.take_all();
        let tree = Tree::mount(&scene.home, 14);
        let copy = |flag: &str| {
            let to = scene.home.path().join(format!("layout{flag}"));
            let words = format!(
                "skopeo --registries.d {directory} copy {flag} docker://docker.io/{SIGNED}:{TAG} oci:{}:1",
                to.display()
            );
            containers::client_by(&scene.home, Some(&tree), DAEMON_LIMIT, &words)
        };
        match is_required {
            false => drop(run(&mut copy(""))),
            true => {
                let said = fail(&mut copy(""));
                assert!(said.contains("Pushing signatures for OCI images is not supported"), "{said}");
                run(&mut copy("--remove-signatures"));
            }
        }
    }
}

/// What docs/clients.md says of a look-aside: an entry for the source does not count for the proxy, by whose address and path is looked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn podman_5_finds_gpg_signatures_in_a_look_aside_that_is_named_for_the_proxy() {
    let scene = Scene::with("{}", false).await;
    let (home, tree) = (&scene.home, Tree::mount(&scene.home, 14));
    let gpg = |words: &str| {
        let mut command = home.client(PATIENCE, words);
        command.env("GNUPGHOME", home.path().join("g"));
        command
    };
    let parameters =
        "%no-protection\nKey-Type: eddsa\nKey-Curve: ed25519\nKey-Usage: sign\nName-Email: a@example.org\n%commit\n";
    let parameters = home.file("g/parameters", parameters);
    run(&mut gpg(&format!("gpg --batch --gen-key {}", parameters.display())));
    let key = run(&mut gpg("gpg --armor --export a@example.org"));
    let begin = key.find("-----BEGIN").expect("a key");
    let key = home.file("key.asc", &key[begin..]);
    let listed = run(&mut gpg("gpg --batch --with-colons --fingerprint a@example.org"));
    let fingerprint =
        listed.lines().find_map(|line| line.strip_prefix("fpr:")).expect("a fingerprint").trim_matches(':');
    let repository = format!("{PREFIX}/{SIGNED}");
    let index = scene.site.azure.manifest(&repository, TAG).expect("pushed");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    for digest in index["manifests"].as_array().expect("an index").iter().map(|manifest| &manifest["digest"]) {
        let digest = digest.as_str().expect("a digest");
        let manifest = scene.site.azure.manifest(&repository, digest).expect("pushed");
        let manifest = home.file("manifest.json", std::str::from_utf8(&manifest).expect("JSON"));
        let signature = home.file(&format!("sigs/{SIGNED}@{}/signature-1", digest.replace(':', "=")), "");
        let (manifest, signature) = (manifest.display(), signature.display());
        run(&mut gpg(&format!(
            "skopeo standalone-sign --output {signature} {manifest} docker.io/{SIGNED}:{TAG} {fingerprint}"
        )));
    }
    std::os::unix::fs::symlink(".", home.path().join("sigs/docker.io")).expect("linked");
    let signed = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}]);
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {"docker.io": signed}}});
    home.file(".config/containers/policy.json", &policy.to_string());
    let proxy = scene.proxy.address();
    for (of, is_found) in [("docker.io".to_owned(), false), (format!("{proxy}/docker.io"), true)] {
        let look_aside = json!({"docker": {of: {"lookaside": format!("file://{}/sigs", home.path().display())}}});
        home.file(".config/containers/registries.d/look-aside.yaml", &look_aside.to_string());
        let mut pull = scene.pull(Some(&tree), SIGNED);
        match is_found {
            true => drop(run(&mut pull)),
            false => {
                let said = fail(&mut pull);
                assert!(said.contains(NO_SIGNATURE), "{said}");
            }
        }
    }
    scene.check_log(&[]);
}

/// Who has no such policy pays with one request a pull.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn looking_for_signatures_costs_one_request_where_there_are_none() {
    for newer in [false, true] {
        let scene = Scene::new().await;
        scene.take_all();
        scene.look_for_signatures();
        let tree = newer.then(|| Tree::mount(&scene.home, 14));
        run(&mut scene.pull(tree.as_ref(), UNSIGNED));
        scene.check_log(&[".sig 404 "]);
        let asked = of_repository(&scene.site.azure.requests(), &format!("{PREFIX}/{UNSIGNED}"));
        let (for_signatures, rest): (Vec<_>, Vec<_>) =
            asked.iter().partition(|request| request.target.ends_with(".sig"));
        // The index, the manifest, the config and two layers.
        assert_eq!((for_signatures.len(), rest.len()), (1, 5), "newer: {newer}: {asked:#?}");
    }
}

/// Each pull asks for a signature, and it failed as soon as the registry did: that there is none was not kept for trouble.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_pull_that_finds_no_signature_succeeds_while_the_registry_is_down() {
    for newer in [false, true] {
        let scene = Scene::for_trouble().await;
        scene.look_for_signatures();
        let tree = newer.then(|| Tree::mount(&scene.home, 14));
        run(&mut scene.pull(tree.as_ref(), UNSIGNED));
        scene.site.azure.refuse_connections(Server::Registry, true);
        run(&mut scene.pull(tree.as_ref(), UNSIGNED));
        scene.check_log(&[".sig 404 "]);
        scene.proxy.wait_for_line(&[".sig 404 ", "cache=stale"]);
    }
}

/// The image was kept by a pull that asked for no signature, as containerd's does. podman got its manifest, then 503 for the signature, and
/// gave the pull up.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_pull_of_what_is_kept_without_its_signature_failed_while_the_registry_was_down() {
    for newer in [false, true] {
        let scene = Scene::for_trouble().await;
        let tree = newer.then(|| Tree::mount(&scene.home, 14));
        scene.look_for_none();
        run(&mut scene.pull(tree.as_ref(), UNSIGNED));
        assert!(!scene.proxy.log().contains(".sig "), "{}", scene.proxy.log());
        scene.look_for_signatures();
        scene.site.azure.refuse_connections(Server::Registry, true);
        run(&mut scene.pull(tree.as_ref(), UNSIGNED));
        scene.proxy.wait_for_line(&[".sig 404 ", "no signature of this image is known"]);
    }
}
