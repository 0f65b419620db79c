//! One token a repository: in ABAC mode, and where one for all is refused.

use std::net::SocketAddr;
use std::ops::Range;

use acr_emulator::{Emulator, Fault, Hop, Image, Options};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::wire::{self, Answer};
use testkit::{Proxy, Setup};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";

/// A registry with these repositories.
async fn azure(options: Options, names: &[&str]) -> Emulator {
    let azure = Emulator::start(options).await.expect("started");
    for name in names {
        azure.push(Image::small(&format!("hub/library/{name}"), "latest"));
    }
    azure
}

fn manifest(proxy: &Proxy, name: &str) -> Answer {
    let line = format!("GET /v2/library/{name}/manifests/latest");
    wire::ask(proxy.address(), &line, &format!("Accept: {ACCEPT}\r\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abac_registry_gets_one_scope_a_repository() {
    for cache in testkit::ASKING {
        let azure = azure(Options { abac: true, ..testkit::options() }, &["busybox", "alpine"]).await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for _ in 0..3 {
            for name in ["busybox", "alpine"] {
                assert_eq!(manifest(&proxy, name).status, 200);
            }
        }
        let scopes: Vec<_> = azure.requests().into_iter().filter(|request| request.hop == Hop::Token).collect();
        assert_eq!(scopes.len(), 2, "one call a repository: {scopes:?}");
    }
}

/// The claim says all repositories, and the data plane takes it for none.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_granted_for_all_and_then_refused_is_followed_by_one_a_repository() {
    for cache in testkit::ASKING {
        let options = Options { refuses_wildcard_tokens: true, ..testkit::options() };
        let azure = azure(options, &["busybox", "alpine", "debian"]).await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for _ in 0..3 {
            for name in ["busybox", "alpine", "debian"] {
                let answer = manifest(&proxy, name);
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
        let requests = azure.requests();
        let refused = requests.iter().filter(|request| request.hop == Hop::Data && request.status == 401).count();
        assert_eq!(refused, 2, "the token that was there and a fresh one, once for all repositories");
        let calls = requests.iter().filter(|request| request.hop == Hop::Token).count();
        assert_eq!(calls, 2 + 3, "two for all repositories, then one for each");
        let log = proxy.end();
        assert_eq!(log.matches("one token a repository").count(), 1, "{log}");
    }
}

/// A cache rule with an unhealthy credential set answers 401 to any token, with the same challenge.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_refuses_every_token_changes_nothing_for_the_others() {
    for cache in testkit::ASKING {
        let azure = azure(testkit::options(), &["busybox", "alpine", "debian"]).await;
        azure.inject(Hop::Data, Fault::Challenge401.on_path("alpine"));
        let proxy = Setup::new(&azure).cache(cache).start();
        for _ in 0..3 {
            for (name, status) in [("alpine", 403), ("busybox", 200), ("debian", 200)] {
                let answer = manifest(&proxy, name);
                assert_eq!(answer.status, status, "{answer:?}");
            }
        }
        let calls = azure.requests().iter().filter(|request| request.hop == Hop::Token).count();
        assert_eq!(calls, 3, "two for all repositories, one for the one that is refused");
        let log = proxy.end();
        assert!(!log.contains("one token a repository"), "{log}");
    }
}

/// The statuses of requests for these names, all sent at once on one HTTP/2 connection.
async fn statuses(proxy: SocketAddr, names: Range<usize>) -> Vec<u16> {
    let stream = TcpStream::connect(proxy).await.expect("connected");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for number in names {
        client = client.ready().await.expect("open");
        let uri = format!("http://{proxy}/v2/invented/name{number}/manifests/latest");
        let request = http::Request::get(uri).body(()).expect("a request");
        answers.push(client.send_request(request, true).expect("sent").0);
    }
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(answer.await.expect("an answer").status().as_u16());
    }
    statuses
}

/// Some dozen connections are enough for a thousand names that nobody has heard of: each has 32 requests at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_invented_names_keep_no_pull_from_its_token() {
    for cache in testkit::ASKING {
        const CONNECTIONS: usize = 38;
        const NAMES: usize = 30;
        let azure = azure(Options { abac: true, ..testkit::options() }, &["busybox", "alpine", "debian"]).await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for name in ["busybox", "alpine"] {
            assert_eq!(manifest(&proxy, name).status, 200);
        }
        azure.inject(Hop::Token, Fault::Hang);
        let address = proxy.address();
        let mut clients = JoinSet::new();
        for client in 0..CONNECTIONS {
            clients.spawn(statuses(address, client * NAMES..(client + 1) * NAMES));
        }
        let mut told = Vec::new();
        while told.len() < CONNECTIONS * NAMES {
            for name in ["busybox", "alpine"] {
                let answer = manifest(&proxy, name);
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            if let Some(done) = clients.try_join_next() {
                told.extend(done.expect("no panic"));
            }
        }
        assert!(told.iter().all(|status| *status == 503), "each has waited for a token of its own: {told:?}");
        // And a name that is no invention has its turn.
        azure.clear_faults();
        assert_eq!(manifest(&proxy, "debian").status, 200);
    }
}
