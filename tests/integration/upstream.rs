//! A registry that fails or is slow.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant, UNIX_EPOCH};

use acr_emulator::{Fault, Hop, Server};

use crate::admin::admin;
use crate::check::serve_tls;
use crate::wire::{self, Answer};
use testkit::certificates::Authority;
use testkit::{PATIENCE, Proxy, Setup};

const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";

fn manifest(proxy: &Proxy) -> Answer {
    wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", ACCEPT)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_registry_is_answered_for_within_30_seconds() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        azure.inject(Hop::Data, Fault::Hang);
        let begun = Instant::now();
        let answer = manifest(&proxy);
        assert_eq!((answer.status, answer.code().as_str()), (504, "UNAVAILABLE"), "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_dies_before_its_answer_is_sent_once_more_on_a_fresh_connection() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        assert_eq!(manifest(&proxy).status, 200);
        for (deaths, status) in [(1, 200), (2, 502)] {
            azure.clear_requests();
            azure.inject(Hop::Data, Fault::DieBeforeResponse.times(deaths).on_path("/manifests/"));
            let answer = manifest(&proxy);
            assert_eq!(answer.status, status, "{deaths}: {answer:?}");
            let requests = azure.requests();
            let requests: Vec<_> = requests.iter().filter(|seen| seen.target.contains("/manifests/")).collect();
            assert_eq!(requests.len(), 2, "{deaths}");
            assert_ne!(requests[0].connection, requests[1].connection, "{deaths}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_registry_are_kept_and_stale_ones_do_no_harm() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        let connections = || {
            let requests = azure.requests().into_iter().filter(|request| request.hop == Hop::Data);
            let mut connections: Vec<_> = requests.map(|request| request.connection).collect();
            connections.dedup();
            connections.len()
        };
        for _ in 0..10 {
            assert_eq!(manifest(&proxy).status, 200);
        }
        assert_eq!(connections(), 1, "ten requests on one connection");
        azure.close_connections(Server::Registry);
        assert_eq!(manifest(&proxy).status, 200);
        assert_eq!(connections(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_tries_the_next_address() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let setup = Setup::new(&azure);
        // Nothing listens on 127.0.0.2 and 127.0.0.3 at the emulator's port.
        let config = setup.file(
        "addresses.yaml",
        format!(
            "upstream: {{domain: 'example.azurecr.io:{}', prefix: hub, addresses: [127.0.0.2, 127.0.0.3, 127.0.0.1]}}\n\
             listen: 127.0.0.1:0\nlog: trace\nca_file: {}\ncache: {cache}\n",
            azure.registry_addr().port(),
            setup.file("other-ca.pem", azure.ca_pem()).display(),
        ),
    );
        let proxy = setup.flag("--config", &config.to_string_lossy()).start();
        assert_eq!(manifest(&proxy).status, 200);
        assert_eq!(manifest(&proxy).status, 200);
        let log = proxy.end();
        // The call for the token went the same way, and has found the good one.
        let went = format!(" upstream=127.0.0.1:{} tries=1", azure.registry_addr().port());
        assert_eq!(log.lines().filter(|line| line.contains(&went)).count(), 2, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_registry_is_502_and_works_again_when_it_returns() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        assert_eq!(manifest(&proxy).status, 200);
        azure.refuse_connections(Server::Registry, true);
        let answer = manifest(&proxy);
        assert_eq!((answer.status, answer.code().as_str()), (502, "UNAVAILABLE"), "{answer:?}");
        azure.refuse_connections(Server::Registry, false);
        // A probe finds out within a second or so.
        let begun = Instant::now();
        while manifest(&proxy).status != 200 {
            assert!(begun.elapsed() < PATIENCE, "{}", proxy.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_which_the_connection_ends_says_so() {
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        assert_eq!(manifest(&proxy).status, 200);
        azure.inject(Hop::Data, Fault::Challenge401);
        let mut stream = wire::connect(proxy.address());
        write!(stream, "GET /v2/library/busybox/manifests/latest HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("closed in time");
        let answer = wire::parse(&answer);
        assert_eq!((answer.status, answer.header("connection")), (403, Some("close")), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_passed_as_complete() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).cache("off").start();
    assert_eq!(manifest(&proxy).status, 200);
    for fault in [Fault::CutBody(10), Fault::ResetMidBody] {
        azure.inject(Hop::Data, fault.times(1));
        let answer = manifest(&proxy);
        let promised: usize = answer.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
        assert!(answer.status == 200 && answer.body.len() < promised, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_registry_is_502_and_the_message_says_what_to_do() {
    let azure = testkit::azure().await;
    let stranger = testkit::azure().await;
    let setup = Setup::new(&azure);
    let ca = setup.file("stranger.pem", stranger.ca_pem());
    let proxy = setup.flag("--ca-file", &ca.to_string_lossy()).start();
    // Entra is behind the same CA here, so the sign-in is what fails first.
    let line = proxy.wait_for_log("entra: client secret: ");
    assert!(line.to_lowercase().contains("certificate"), "{line}");
    assert_eq!(manifest(&proxy).status, 503);
}

/// "TLS handshake failed" of a request, and of a sign-in the advice to check the network.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_was_told_without_what_is_wrong_and_what_to_do() {
    const NAMES: [&str; 2] = ["example.azurecr.io", "127.0.0.1"];
    let (known, stranger) = (Authority::new("Corp TLS inspection"), Authority::new("Stranger"));
    for (pair, says) in [
        (stranger.server(&NAMES), "a private CA goes into ca_file: unknown issuer"),
        (known.server(&["intranet.corp"]), "check the domain and a private endpoint's DNS: not valid for the name"),
        (
            known.server_until(&NAMES, UNIX_EPOCH + Duration::from_secs(1_706_933_106)),
            "who runs the host has to renew it, or this host's clock is wrong: expired",
        ),
    ] {
        let says = format!("its certificate is not trusted: {says}");
        let azure = testkit::azure().await;
        let pushed = azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
        let server = serve_tls(pair).await;
        let trust = |setup: Setup| {
            setup.file("ca.pem", azure.ca_pem().to_owned() + known.pem());
            setup.flag("--admin-address", ":0")
        };
        let proxy = trust(Setup::registry(&azure, server)).start();
        let line = proxy.wait_for_log("token exchange: ");
        assert!(line.ends_with(&format!("token exchange: {says}")), "{line}");
        let told = manifest(&proxy);
        assert!(told.status == 503 && told.body.contains(&says), "{told:?}");
        let status = wire::ask(admin(&proxy), "GET /status", "").body;
        assert!(status.contains(&says), "{status}");

        let hosts = format!("  blobs: proxy\n  blob_hosts: ['{server}']\n");
        let proxy = trust(Setup::new(&azure)).cache("off").upstream(&hosts).start();
        let redirect = Fault::StatusWith {
            status: 307,
            headers: vec![("Location".to_owned(), format!("https://{server}/a?sig=s"))],
            body: String::new(),
        };
        azure.inject(Hop::Data, redirect.on_path("/blobs/"));
        let told = wire::ask(proxy.address(), &format!("GET /v2/library/busybox/blobs/{}", pushed.blobs[1]), "");
        let says = format!("blob storage 127.0.0.1 is not reachable: {says}");
        assert!(told.status == 502 && told.body.contains(&says), "{told:?}");
        assert_eq!(proxy.end().matches(&says).count(), 1, "one line");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssl_cert_file_adds_a_private_ca() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let ca = setup.file("private.pem", azure.ca_pem());
    let config = setup.file(
        "plain.yaml",
        format!(
            "upstream: {{domain: 'example.azurecr.io:{}', prefix: hub, addresses: [127.0.0.1]}}\nlisten: 127.0.0.1:0\n",
            azure.registry_addr().port()
        ),
    );
    let proxy = setup.flag("--config", &config.to_string_lossy()).env("SSL_CERT_FILE", &ca.to_string_lossy()).start();
    assert_eq!(manifest(&proxy).status, 200);
}

/// It was read until the connection ended, which it did not: 24 s, and as long again for whoever came next.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_a_transfer_coding_that_nobody_knows_is_refused_at_once() {
    for (cache, accept) in [("off", ACCEPT), ("{}", ACCEPT), ("{}", "Accept: */*\r\n")] {
        let azure = testkit::azure().await;
        let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
        let pushed = azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
        let proxy = Setup::new(&azure).cache(cache).upstream(&hosts).start();
        let blob = format!("blobs/{}", pushed.blobs[1]);
        for coding in ["xchunked", "gzip, chunked", "chunked, xchunked", "identity"] {
            for (hop, rest, says) in [
                (Hop::Data, "manifests/latest", "the registry's answer cannot be used: its Transfer-Encoding "),
                (Hop::Data, "tags/list", "the registry's answer cannot be used: its Transfer-Encoding "),
                (Hop::Storage, &*blob, "blob storage 127.0.0.1: its answer cannot be used: its Transfer-Encoding "),
            ] {
                let what = format!("{cache} {accept} {coding} {rest}");
                azure.inject(hop, Fault::Coding(coding.to_owned()));
                let begun = Instant::now();
                let answer = wire::ask(proxy.address(), &format!("GET /v2/library/busybox/{rest}"), accept);
                assert!(answer.status == 502 && answer.body.contains(says), "{what}: {answer:?}");
                assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
                azure.clear_faults();
            }
        }
        azure.inject(Hop::Data, Fault::Chunked);
        assert_eq!(manifest(&proxy).status, 200);
    }
}

/// A page for signing in to a network once reached clients as the manifest or the list that they had asked for, and a redirect to one
/// as that to a layer.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_place_of_the_registry_reaches_no_client_that_passes_the_cache() {
    let headers = |headers: &[(&str, &str)]| {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let page = |status, more: &[(&str, &str)]| Fault::StatusWith {
        status,
        headers: headers(&[&[("Content-Type", "Text/HTML; charset=utf-8")], more].concat()),
        body: "<html>sign in</html>".to_owned(),
    };
    let to = |status, location: &str| page(status, &[("Location", location)]);
    const PORTAL: &str = "https://login.example/?sign=in";
    const STORAGE: &str = "https://x.blob.core.windows.net/a?sig=s";
    for (cache, accept) in [("off", ACCEPT), ("{}", "Accept: */*\r\n")] {
        let azure = testkit::azure().await;
        let pushed = azure.push(acr_emulator::Image::small("hub/library/busybox", "latest"));
        let proxy = Setup::new(&azure).cache(cache).start();
        let blob = format!("blobs/{}", pushed.blobs[1]);
        for (rest, fault, status, says) in [
            ("manifests/latest", page(200, &[]), 502, "the registry's answer cannot be used: it is no manifest"),
            ("tags/list", page(200, &[]), 502, "the registry's answer cannot be used: it is not JSON"),
            // Whoever says the digest has the manifest, by whatever type.
            ("manifests/latest", page(200, &[("Docker-Content-Digest", &pushed.index_digest)]), 200, "sign in"),
            (&*blob, page(200, &[]), 502, "the registry's answer cannot be used: it is no blob"),
            (&*blob, to(302, PORTAL), 502, "the registry's answer cannot be used: it is a redirect"),
            (&*blob, to(303, PORTAL), 502, "the registry's answer cannot be used: it is a redirect"),
            // It may be ACR's, by its status or by where it leads.
            (&*blob, to(307, PORTAL), 307, ""),
            (&*blob, to(302, STORAGE), 302, ""),
        ] {
            azure.inject(Hop::Data, fault.clone());
            let answer = wire::ask(proxy.address(), &format!("GET /v2/library/busybox/{rest}"), accept);
            assert!(answer.status == status && answer.body.contains(says), "{cache} {rest} {fault:?}: {answer:?}");
            if status != 502 || rest == "tags/list" {
                azure.clear_faults();
                continue;
            }
            let answer = wire::ask(proxy.address(), &format!("HEAD /v2/library/busybox/{rest}"), accept);
            assert_eq!(answer.status, status, "{cache} {rest} {fault:?}: {answer:?}");
            azure.clear_faults();
        }
    }
}

/// The header alone contradicts the request, and the client had it.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_header_has_another_digest_than_was_asked_for_is_not_passed() {
    let asked = format!("sha256:{}", "a".repeat(64));
    for (cache, accept) in [("off", ACCEPT), ("{}", "Accept: */*\r\n")] {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for (reference, said, status) in [
            (&*asked, format!("sha256:{}", "b".repeat(64)), 502),
            (&*asked, asked.clone(), 200),
            // It may be the same manifest's.
            (&*asked, format!("sha512:{}", "b".repeat(128)), 200),
            ("latest", format!("sha256:{}", "b".repeat(64)), 200),
        ] {
            let headers =
                [("Content-Type", "application/vnd.oci.image.index.v1+json"), ("Docker-Content-Digest", &*said)];
            azure.inject(
                Hop::Data,
                Fault::StatusWith {
                    status: 200,
                    headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
                    body: "{}".to_owned(),
                },
            );
            let answer = wire::ask(proxy.address(), &format!("GET /v2/library/busybox/manifests/{reference}"), accept);
            assert_eq!(answer.status, status, "{cache} {reference} {said}: {answer:?}");
            let says = "the registry's answer cannot be used: its Docker-Content-Digest is another digest";
            assert_eq!(answer.body.contains(says), status == 502, "{answer:?}");
            azure.clear_faults();
        }
    }
}
