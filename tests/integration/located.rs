//! What the registry says where it is asked for a blob that comes through the proxy.

use acr_emulator::{Emulator, Fault, Hop, Image, Injection, Pushed, Server};

use crate::wire::{self, Client};
use testkit::{Proxy, Setup};

/// An emulator with one image, and a proxy that serves its blobs itself and keeps nothing.
async fn proxied() -> (Emulator, Pushed, Proxy) {
    kept("off").await
}

/// The same with these settings of the cache.
async fn kept(cache: &str) -> (Emulator, Pushed, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let proxy = Setup::new(&azure).upstream(&hosts).cache(cache).start();
    // There is a token from now on.
    assert_eq!(wire::ask(proxy.address(), "HEAD /v2/library/busybox/manifests/latest", "").status, 404);
    azure.clear_requests();
    (azure, pushed, proxy)
}

fn path(pushed: &Pushed) -> String {
    format!("/v2/library/busybox/blobs/{}", pushed.blobs[1])
}

fn requests(azure: &Emulator, hop: Hop) -> usize {
    // Not those by which the proxy looks whether the registry is back.
    azure.requests().iter().filter(|request| request.hop == hop && request.target != "/v2/").count()
}

/// What the registry says in the repository's own name, with headers that are not the client's.
fn said(status: u16, body: &str) -> Fault {
    let headers = [
        ("Content-Type", "application/json"),
        ("Set-Cookie", "registry=own"),
        ("Retry-After", "7"),
        ("Docker-Content-Digest", "sha256:its"),
    ];
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Fault::StatusWith { status, headers, body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_redirect_is_the_answer_and_the_registry_is_asked_once() {
    const ERROR: &str = r#"{"errors":[{"code":"X","message":"hub/library/busybox","detail":null}]}"#;
    let (azure, pushed, proxy) = proxied().await;
    for (fault, status) in [
        (said(404, ERROR), 404),
        (said(403, ERROR), 403),
        (said(429, ERROR), 429),
        (said(500, ERROR), 500),
        (said(503, ERROR), 503),
        (said(200, "a small blob"), 200),
        (Fault::Chunked, 307),
    ] {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            azure.clear_requests();
            azure.inject(Hop::Data, fault.clone());
            let mut client = Client::new(proxy.address());
            let answer = client.ask("GET", &path(&pushed), version, "");
            azure.clear_faults();
            assert_eq!(requests(&azure, Hop::Data), 1, "{fault:?} {version}");
            if status == 307 {
                // A redirect however its body is framed.
                assert_eq!(answer.status(), 200, "{answer:?}");
                continue;
            }
            assert_eq!(answer.status(), status, "{fault:?} {version}");
            assert_eq!(answer.header("set-cookie"), None, "{:?}", answer.head);
            assert_eq!(answer.header("retry-after"), Some("7"), "{:?}", answer.head);
            let body = String::from_utf8(answer.body).expect("text");
            assert!(!body.contains("hub/"), "the client's own names: {body}");
            assert!(status >= 400 || body.starts_with("a "), "{body}");
            if version == "HTTP/1.1" {
                assert_eq!(client.ask("GET", "/v2/", version, "").status(), 200, "the connection is kept");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_for_a_blob_that_is_served_from_here_is_followed_by_a_question_for_each_new_token() {
    // One token in place of the refused one, then one of this repository alone, which the challenge asks for.
    for (challenges, status, tokens) in [(1, 200, 1), (9, 403, 2)] {
        // A token that was renewed a moment ago is not renewed again.
        let (azure, pushed, proxy) = proxied().await;
        azure.inject(Hop::Data, Fault::Challenge401.times(challenges));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), "");
        assert_eq!(answer.status, status, "{challenges}: {answer:.200?}");
        assert_eq!(requests(&azure, Hop::Token), tokens, "{challenges}");
        assert_eq!(requests(&azure, Hop::Data), 1 + tokens, "{challenges}");
        let data: Vec<_> = azure.requests().into_iter().filter(|request| request.hop == Hop::Data).collect();
        assert_eq!(data[0].connection, data[1].connection, "a challenge ended the connection");
    }
}

/// ACR answers HEAD itself; its API also allows a redirect, and other registries send one.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_head_is_followed_as_one_of_get_and_does_not_end_the_connection() {
    let (azure, pushed, proxy) = proxied().await;
    for method in ["HEAD", "GET"] {
        let location = format!("https://{}/blob?sig=s", azure.storage_addr());
        let headers = vec![("Location".to_owned(), location)];
        azure.inject(Hop::Data, Fault::StatusWith { status: 307, headers, body: String::new() }.times(1));
        let headers = vec![("x-ms-request-id".to_owned(), "its-own".to_owned())];
        azure.inject(Hop::Storage, Fault::StatusWith { status: 200, headers, body: "blob".to_owned() }.times(1));
        let answer = wire::ask(proxy.address(), &format!("{method} {}", path(&pushed)), "");
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")), "{method}: {answer:?}");
        assert_eq!((answer.header("location"), answer.header("x-ms-request-id")), (None, None), "{method}: {answer:?}");
    }
    for hop in [Hop::Data, Hop::Storage] {
        let seen: Vec<_> = azure.requests().into_iter().filter(|request| request.hop == hop).collect();
        assert_eq!(seen.len(), 2, "{hop:?}: {seen:?}");
        assert_eq!(seen[0].connection, seen[1].connection, "{hop:?}: the redirect ended the connection");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_dies_is_asked_once_more() {
    let (azure, pushed, proxy) = proxied().await;
    for (deaths, status) in [(1, 200), (9, 502)] {
        azure.clear_faults();
        azure.clear_requests();
        azure.inject(Hop::Data, Fault::DieBeforeResponse.times(deaths));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), "");
        assert_eq!(answer.status, status, "{deaths}: {answer:.200?}");
        assert_eq!(requests(&azure, Hop::Data), 2, "{deaths}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_leg_of_a_blob_may_die_once() {
    for (cache, logged) in [("off", " storage="), (ASKED_EACH_TIME, " cache=miss storage=")] {
        let (azure, pushed, proxy) = kept(cache).await;
        azure.inject(Hop::Data, Fault::DieBeforeResponse.times(1));
        azure.inject(Hop::Storage, Fault::DieBeforeResponse.times(1));
        assert_eq!(wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), "").status, 200, "{cache}");
        assert_eq!((requests(&azure, Hop::Data), requests(&azure, Hop::Storage)), (2, 2), "{cache}");
        // Tries of the registry, of which storage's are none.
        proxy.wait_for_line(&[" tries=2 ", logged]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_the_registry_itself_comes_whole_in_every_framing_and_its_end_is_seen() {
    let (azure, pushed, proxy) = proxied().await;
    let body = "x".repeat(100_000);
    for framing in [None, Some(("Transfer-Encoding", "chunked")), Some(("Connection", "close"))] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let headers = framing.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            azure.inject(Hop::Data, Fault::StatusWith { status: 200, headers, body: body.clone() }.times(1));
            let answer = Client::new(proxy.address()).ask("GET", &path(&pushed), version, "");
            assert_eq!(answer.status(), 200, "{version} {framing:?}");
            assert!(answer.body == body.as_bytes(), "{version} {framing:?}: {} bytes", answer.body.len());
        }
    }
}

/// The proxy's own request to the registry keeps the rules that Pingora has for its requests.
#[tokio::test(flavor = "multi_thread")]
async fn what_connection_lists_goes_no_further_for_a_blob_that_is_served_from_here() {
    let (azure, pushed, proxy) = proxied().await;
    for method in ["HEAD", "GET"] {
        for option in ["Host", "x-forwarded-for", ":authority", "\"X-A\"", "keep-alive, a b"] {
            let request =
                format!("{method} {} HTTP/1.1\r\nHost: mirror\r\nConnection: {option}\r\n\r\n", path(&pushed));
            let answer = wire::parse(&wire::send(proxy.address(), request.as_bytes()));
            assert_eq!(answer.status, 400, "{method} {option}: {answer:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{method} {option}: {answer:?}");
        }
    }
    assert_eq!(requests(&azure, Hop::Data), 0, "refused before the registry is asked");

    let headers = [("Connection", "close, X-Internal"), ("X-Internal", "its-own"), ("X-Other", "for-the-client")];
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for path in [path(&pushed), "/v2/library/busybox/manifests/latest".to_owned()] {
        azure.clear_requests();
        azure.inject(
            Hop::Data,
            Fault::StatusWith { status: 200, headers: headers.clone(), body: "small".to_owned() }.times(1),
        );
        let mut client = Client::new(proxy.address());
        let answer = client.ask("GET", &path, "HTTP/1.1", "Connection: Accept\r\nAccept: x/y\r\n");
        assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"small"[..]), "{answer:?}");
        assert_eq!(answer.header("x-internal"), None, "{:?}", answer.head);
        assert_eq!(answer.header("x-other"), Some("for-the-client"), "{:?}", answer.head);
        let asked: Vec<_> = azure.requests().into_iter().filter(|request| request.hop == Hop::Data).collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert_eq!((asked[0].header("connection"), asked[0].header("accept")), (None, None), "{asked:?}");
    }
}

/// Nothing is kept, but simultaneous requests share a question to the registry.
const ASKED_EACH_TIME: &str = "{redirects: 0s, missing: 0s, stale: 0s}";
/// How often the proxy tries to connect.
const CONNECTS: u32 = 3;

/// A part is asked for in the middle of a layer, where clients have no other host.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_failure_does_not_cost_a_part_of_a_layer_and_a_whole_one_is_told_at_once() {
    for cache in ["off", ASKED_EACH_TIME] {
        short_failures(kept(cache).await);
    }
}

fn short_failures((azure, pushed, proxy): (Emulator, Pushed, Proxy)) {
    const PART: &str = "Range: bytes=100-199\r\n";
    let twice = |fault: Fault| fault.times(2);
    for (hop, fault, headers, status, asked) in [
        (Hop::Data, twice(Fault::Status(503)), PART, 206, 3),
        (Hop::Storage, twice(Fault::Status(503)), PART, 206, 3),
        (Hop::Storage, twice(Fault::Status(500)), PART, 206, 3),
        (Hop::Data, twice(Fault::DieBeforeResponse), PART, 206, 3),
        (Hop::Storage, twice(Fault::DieBeforeResponse), PART, 206, 3),
        (Hop::Data, twice(Fault::Status(503)), "", 503, 1),
        (Hop::Storage, twice(Fault::Status(503)), "", 503, 1),
        (Hop::Data, twice(Fault::Status(404)), PART, 404, 1),
        (Hop::Data, Injection::from(Fault::Status(502)), PART, 502, 4),
        (Hop::Storage, Injection::from(Fault::Status(502)), PART, 502, 4),
    ] {
        azure.clear_requests();
        // Not for a probe.
        azure.inject(hop, fault.clone().on_path("/blobs/"));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), headers);
        azure.clear_faults();
        assert_eq!(answer.status, status, "{hop:?} {fault:?} {headers}: {answer:.300?}");
        assert_eq!(requests(&azure, hop), asked, "{hop:?} {fault:?} {headers}");
    }
    // Storage that takes no connection for a moment: as often as a request tries to connect before it gives up.
    for (headers, status) in [(PART, 206), ("", 502)] {
        azure.close_connections(Server::Storage);
        azure.inject(Hop::Storage, Fault::RefuseConnections.times(CONNECTS));
        let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), headers);
        azure.clear_faults();
        assert_eq!(answer.status, status, "{headers}: {answer:.300?}");
    }
    // A time that the registry names is longer than any pause here. The last one: with a cache the registry is let alone then.
    azure.clear_requests();
    azure.inject(Hop::Data, said(503, "{}").times(2));
    let answer = wire::ask(proxy.address(), &format!("GET {}", path(&pushed)), PART);
    assert_eq!((answer.status, requests(&azure, Hop::Data)), (503, 1), "{answer:?}");
}
