//! What storage, or what answers in its place, gives for a blob.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};

use acr_emulator::{Fault, Hop};
use serde_json::Value;
use testkit::Setup;

use super::{REPOSITORY, said, start, warm, warm_trusting};

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

/// The proxy was called blob storage, and the request "GET where GET where GET where".
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_back_to_the_proxy_was_followed_and_told_in_a_garbled_sentence() {
    let (azure, pushed, _) = start().await;
    let digest = pushed.manifests[0].1.clone();
    let manifest = azure.manifest(REPOSITORY, &digest).expect("pushed");
    let via = redirecting(&manifest);
    let (exit, text) = said(&warm(&azure, &format!("http://{via}"), &format!("busybox@{digest}"), ""));
    let line = text.lines().find(|line| line.starts_with("failed busybox@")).unwrap_or_default();
    let says = format!("a redirect back to http://{via}, which is no blob storage: name the proxy with --via");
    assert!(
        exit == 1 && line.contains(&format!(": proxy http://{via}: GET /v2/busybox/blobs/sha256:")),
        "{exit}: {text}"
    );
    assert!(line.ends_with(&says) && !line.contains("GET where"), "{text}");
}

/// A server that has this manifest, and redirects each blob to itself.
fn redirecting(manifest: &[u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let manifest = manifest.to_vec();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
            let target = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let path = target.split(' ').nth(1).unwrap_or_default().to_owned();
            let (head, body) = match &path {
                path if path.contains("/blobs/") => (format!("307 Temporary Redirect\r\nLocation: {path}"), &b""[..]),
                path if path.contains("/manifests/") => ("200 OK".to_owned(), &manifest[..]),
                _ => ("200 OK".to_owned(), &b"{}"[..]),
            };
            let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent");
        }
    });
    address
}

/// The advice was to look at this host's way to it.
#[tokio::test(flavor = "multi_thread")]
async fn storage_whose_ca_is_not_known_was_not_said_to_need_ca_file() {
    let (azure, _, proxy) = start().await;
    let other = testkit::certificates::Authority::new("Another CA");
    let (exit, text) = said(&warm_trusting(other.pem(), &proxy.url(""), "busybox --platform linux/amd64", ""));
    let line =
        text.lines().find(|line| line.starts_with("failed busybox: blob storage 127.0.0.1: ")).unwrap_or_default();
    let says = "its certificate is not trusted: name its CA with --ca-file, or leave storage out with --layers head: ";
    assert!(exit == 1 && line.contains(says), "{exit}: {text}");
    assert!(!text.contains("waiting, for "), "it was tried again until 15 s were over: {text}");
    drop(azure);
}
