//! What storage, or what answers in its place, gives for a blob.

use acr_emulator::{Fault, Hop};
use serde_json::Value;
use testkit::Setup;

use super::{REPOSITORY, said, start, warm};

/// The image was called warm, whatever storage had answered. A page in place of a configuration was content of another digest.
#[tokio::test(flavor = "multi_thread")]
async fn what_storage_did_not_give_is_not_warm() {
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let page = "<html>blocked by policy</html>";
    for (status, headers, body, layer, config) in [
        (200, header("Content-Type", "text/html"), page, "200 with text/html", "200 with text/html"),
        (200, Vec::new(), "", "200 without content", "200 without content"),
        (204, Vec::new(), "", "204 without content", "204 without content"),
        (206, header("Content-Range", "bytes 5-6/9"), "x", "206 with another part than the first byte", ""),
        (206, header("Content-Range", "bytes 0-0/9"), "x", "206 with a length of 9 in place of ", ""),
        (200, Vec::new(), "x", "200 with a length of 1 in place of ", ""),
    ] {
        let (azure, pushed, proxy) = start().await;
        let manifest = azure.manifest(REPOSITORY, &pushed.manifests[0].1).expect("pushed");
        let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
        let other = "do not use this image: its content is not sha256:";
        for (blob, says) in
            [(&manifest["layers"][0], layer), (&manifest["config"], if config.is_empty() { other } else { config })]
        {
            let digest = blob["digest"].as_str().expect("a digest").trim_start_matches("sha256:");
            let fault = Fault::StatusWith { status, headers: headers.clone(), body: body.to_owned() };
            azure.inject(Hop::Storage, fault.times(1).on_path(digest));
            let (exit, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
            let line = text.lines().find(|line| line.starts_with("failed busybox: blob storage 127.0.0.1: GET where "));
            assert!(exit == 1 && line.is_some_and(|line| line.contains(says)), "{says}: {exit}: {text}");
            assert_eq!(
                text.contains("look for what has answered between this host and storage"),
                says != other,
                "{text}"
            );
        }
        let (exit, text) = said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
        assert_eq!(exit, 0, "{text}");
    }
}

/// To purge the cache was the advice also for an address that the registry had just signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_address_is_forgotten_only_if_the_proxy_has_kept_it() {
    let (azure, pushed, _) = start().await;
    let layer = pushed.blobs[0].trim_start_matches("sha256:").to_owned();
    let proxy = Setup::new(&azure).cache("{memory: 8MiB}").flag("--log", "info").start();
    let run = || said(&warm(&azure, &proxy.url(""), "busybox --platform linux/amd64", ""));
    for (status, says) in [
        (403, "storage refuses an address that the registry has just signed: "),
        (403, "by POST /cache/purge of its admin listener, and run it again"),
        (404, "storage does not have the blob, which the registry says it has: "),
    ] {
        azure.inject(Hop::Storage, Fault::Status(status).times(1).on_path(layer.clone()));
        let (exit, text) = run();
        assert!(exit == 1 && text.contains(says), "{status}: {exit}: {text}");
        assert_eq!(text.contains("/cache/purge"), says.contains("/cache/purge"), "{text}");
    }
    assert_eq!(run().0, 0);
}
