//! The cells of the second table in `matrix.md`: what a client sees of a fault where answers are kept.

use std::time::Duration;

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed, Server};
use testkit::forward::{Does, ForwardProxy};
use testkit::{Proxy, Setup};
use tokio::runtime::Handle;

use crate::cell::{Outcome, rows_with_cache};
use crate::client::Client;

/// Everything is asked for each time, and kept for trouble.
const CACHE: &str = "{tags: 0s, manifests: 0s, lists: 0s, redirects: 0s, missing: 0s}";
const MOMENTS: [&str; 2] = ["first", "later"];

/// How a fault begins, and the words in the log by which the proxy knows of it.
type Fail = (fn(&Stage), Option<&'static str>);

/// The proxy's tokens are refused, and so it has to sign in again.
fn sign_out(azure: &Emulator) {
    azure.revoke_tokens();
    azure.inject(Hop::Token, Fault::Status(401));
    azure.revoke_entra_tokens();
}

fn fail(name: &str) -> Option<Fail> {
    const DOWN: Option<&str> = Some("it is down, and probed");
    Some(match name {
        "Entra ID is down" => (
            |Stage { azure, .. }| {
                sign_out(azure);
                azure.inject(Hop::Entra, Fault::Status(503));
            },
            Some("entra: client secret: 503"),
        ),
        "exchange is down" => (
            |Stage { azure, .. }| {
                sign_out(azure);
                azure.inject(Hop::Exchange, Fault::Status(503));
            },
            Some("token exchange: 503"),
        ),
        "ACR answers 429" => (
            |stage| stage.azure.inject(Hop::Data, Fault::Throttled(Duration::from_secs(50))),
            Some("429: it limits requests"),
        ),
        "ACR is silent" => (|stage| stage.azure.inject(Hop::Data, Fault::Hang), DOWN),
        "ACR refuses" => (|stage| stage.azure.refuse_connections(Server::Registry, true), DOWN),
        "storage is down" => (|stage| stage.azure.refuse_connections(Server::Storage, true), None),
        "egress proxy is down" => (|stage| stage.forward().stop(), DOWN),
        "egress proxy is silent" => (|stage| stage.becomes(Does::Hangs), DOWN),
        "egress proxy refuses" => (|stage| stage.becomes(Does::Denies), DOWN),
        "egress proxy cuts" => (|stage| stage.becomes(Does::Cuts), DOWN),
        _ => return None,
    })
}

/// A registry of two images, and a proxy from which one has been pulled.
struct Stage {
    azure: Emulator,
    proxy: Proxy,
    cold: Pushed,
    /// Between the proxy and all of Azure, for faults of its own.
    forward: Option<ForwardProxy>,
}

impl Stage {
    async fn new(is_behind: bool) -> Self {
        let azure = testkit::azure().await;
        let cold = azure.push(Image::small("hub/library/cold", "latest"));
        let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
        let setup = Setup::new(&azure).upstream(&hosts).cache(CACHE);
        let (forward, setup) = if is_behind {
            let forward = ForwardProxy::start().await;
            let address = format!("http://{}", forward.address());
            (Some(forward), setup.by_name().env("HTTPS_PROXY", &address))
        } else {
            (None, setup)
        };
        Self { azure, proxy: setup.start(), cold, forward }
    }

    fn forward(&self) -> &ForwardProxy {
        self.forward.as_ref().expect("this stage has one")
    }

    /// Nothing that is kept hides what the egress proxy does from now on.
    fn becomes(&self, does: Does) {
        self.forward().set(does);
        self.forward().cut();
    }

    fn path(&self, column: &str) -> String {
        match column {
            "warm manifest" => "/v2/library/busybox/manifests/latest".to_owned(),
            "warm list" => "/v2/library/busybox/tags/list".to_owned(),
            "cold manifest" => "/v2/library/cold/manifests/latest".to_owned(),
            "cold list" => "/v2/library/cold/tags/list".to_owned(),
            "cold layer" => format!("/v2/library/cold/blobs/{}", self.cold.blobs.last().expect("a layer")),
            other => panic!("no column: {other}"),
        }
    }

    /// What is wrong with the cell, if something is.
    fn look(&self, column: &str, expected: &str) -> Option<String> {
        let outcome = Outcome::parse(expected).unwrap_or_else(|| panic!("no outcome: {expected}"));
        let seen = Client::new(self.proxy.address()).get(&self.path(column)).expect("an answer");
        outcome.differs(&seen).map(|seen| format!("{column}: expected {expected}, saw {seen}"))
    }
}

/// Runs the cells of one fault and moment. Each of the first moment has a proxy of its own, for it is the first that meets the
/// fault.
fn run(azure: &Handle, columns: &[&'static str], row: &[&'static str]) -> Vec<String> {
    let [name, moment, cells @ ..] = row else { panic!("no row: {row:?}") };
    let (begin, known_by) = fail(name).unwrap_or_else(|| panic!("the emulator has no such fault: {name}"));
    let mut wrong = Vec::new();
    let mut stage: Option<Stage> = None;
    for (column, expected) in columns.iter().zip(cells) {
        if *moment == "first" || stage.is_none() {
            let next = azure.block_on(Stage::new(name.starts_with("egress proxy")));
            for warm in columns.iter().filter(|column| column.starts_with("warm ")) {
                wrong.extend(next.look(warm, "200 in 10 s"));
            }
            begin(&next);
            if *moment == "later" {
                // Who meets the fault first makes it known, each kind of call by itself.
                for column in columns {
                    let _ = Client::new(next.proxy.address()).get(&next.path(column)).expect("an answer");
                }
                known_by.inspect(|words| drop(next.proxy.wait_for_log(words)));
            }
            stage = Some(next);
        }
        let stage = stage.as_ref().expect("made above");
        wrong.extend(
            stage.look(column, expected).map(|wrong| format!("{name}, {moment}: {wrong}\n{}", stage.proxy.log())),
        );
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_outlasts_every_fault_and_what_is_not_fails_in_time() {
    let mut rows: Vec<_> = rows_with_cache().collect();
    assert_eq!(rows.len(), 10 * MOMENTS.len());
    assert!(rows.chunks(2).all(|pair| pair[0][0] == pair[1][0] && [pair[0][1], pair[1][1]] == MOMENTS));
    const COLUMNS: [&str; 5] = ["warm manifest", "cold manifest", "warm list", "cold list", "cold layer"];
    let mut running = tokio::task::JoinSet::new();
    for row in rows.drain(..) {
        assert_eq!(row.len(), 2 + COLUMNS.len(), "{row:?}");
        let azure = Handle::current();
        // The emulator's threads must not wait for its own answers.
        running.spawn_blocking(move || run(&azure, &COLUMNS, &row));
    }
    let wrong: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}
