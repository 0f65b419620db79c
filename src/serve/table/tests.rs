//! The table of routes is replaced while requests run.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use acr_emulator::{Emulator, Fault, Hop, Image, Options};
use http::Method;
use pingora_core::apps::ServerApp as _;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::configuration::ServerConf;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use oci::route::Blobs;

use super::*;
use crate::config::Flags;
use crate::load::Load;
use crate::net::trust::Bundle;
use crate::proxy::Proxy;
use oci::request::Request;

/// Limit of every wait; nothing here takes as long, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn registry() -> Emulator {
    Emulator::start(Options { anonymous_pull: true, ..Options::default() }).await.expect("an emulator")
}

/// Settings with these routes: a source, its registry, and the rest of the entry.
fn settings(routes: &[(&str, &Emulator, &str)]) -> Config {
    let files = tempfile::tempdir().expect("a directory");
    let mut text = "identity: {kind: anonymous}\nroutes:\n".to_owned();
    for (source, registry, rest) in routes {
        let domain = format!("example.azurecr.io:{}", registry.registry_addr().port());
        writeln!(text, "  - {{source: {source}, domain: '{domain}', {rest}, addresses: [127.0.0.1]}}")
            .expect("a String");
    }
    let path = files.path().join("config.yaml");
    std::fs::write(&path, text).expect("written");
    Config::load(&Flags::default().with_file(Some(path))).expect("valid")
}

/// A table made from these settings, which trusts the CAs of these registries.
fn table(config: &Config, registries: &[&Emulator]) -> (RouteTable, UpkeepService, Bundle) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = tempfile::tempdir().expect("a directory");
    let path = files.path().join("ca.pem");
    std::fs::write(&path, registries.iter().map(|registry| registry.ca_pem()).collect::<String>()).expect("written");
    let roots = TrustRoots::load(Some(path.as_path())).expect("certificates");
    let bundle = roots.bundle().expect("a bundle");
    let calls = Connections::new(Some(ConnectorOptions::from_server_conf(&server_conf(&bundle))), 1);
    let (mut table, service) = RouteTable::new(roots, calls, &Arc::default());
    table.replace(config).expect("no setting is wrong");
    (table, service, bundle)
}

fn server_conf(bundle: &Bundle) -> ServerConf {
    ServerConf { ca_file: Some(bundle.path()), ..ServerConf::default() }
}

/// The destination of a request for an image of that registry.
fn destination(table: &RouteTable, namespace: &str) -> Arc<Destination> {
    let query = format!("ns={namespace}");
    let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, "/v2/org/app/manifests/1", Some(&query)) else {
        panic!("a pull");
    };
    let routes = table.live().load_full();
    let choice = routes.choose(&pull, None).expect("a route");
    Arc::clone(&choice.route.destination)
}

/// The number of calls for a token that a registry has received.
fn token_calls(registry: &Emulator) -> usize {
    registry.requests().iter().filter(|request| request.target == "/oauth2/token").count()
}

#[tokio::test]
async fn an_unchanged_registry_keeps_its_token_and_a_removed_one_keeps_its_upkeep_until_its_last_request() {
    let (stays, goes, comes) = (registry().await, registry().await, registry().await);
    let before = settings(&[("ghcr.io", &stays, "prefix: ghcr"), ("docker.io", &goes, "prefix: hub")]);
    let (mut table, service, _bundle) = table(&before, &[&stays, &goes, &comes]);
    let mut queue = service.queue.lock().await;
    let mut next = async || queue.recv().await.expect("an upkeep").run();
    let (upkeep_of_stays, upkeep_of_goes) = (tokio::spawn(next().await), tokio::spawn(next().await));
    let (staying, going) = (destination(&table, "ghcr.io"), destination(&table, "docker.io"));
    let kept = staying.upstream.tokens.token_for("ghcr/org/app", None).await.expect("a token");
    let refused = going.upstream.tokens.token_for("hub/org/app", None).await.expect("a token");

    let after = settings(&[
        ("ghcr.io", &stays, "prefix: other, blobs: proxy"),
        ("docker.io", &comes, "prefix: hub"),
        ("quay.io", &comes, "prefix: quay"),
    ]);
    table.replace(&after).expect("no setting is wrong");
    let upkeep_of_comes = tokio::spawn(next().await);

    let staying_on = destination(&table, "ghcr.io");
    assert!(Arc::ptr_eq(&staying.upstream, &staying_on.upstream));
    assert!(Arc::ptr_eq(&staying.meter, &staying_on.meter), "its series go on");
    let token = staying_on.upstream.tokens.token_for("other/org/app", None).await.expect("the same token");
    assert!(Arc::ptr_eq(&token, &kept));
    assert_eq!(token_calls(&stays), 1);
    assert!(
        staying.blobs == Blobs::Redirect && staying_on.blobs == Blobs::Proxy,
        "blobs come through here from now on"
    );

    let coming = destination(&table, "docker.io");
    assert!(Arc::ptr_eq(&coming.upstream, &destination(&table, "quay.io").upstream), "one for both its routes");
    coming.upstream.tokens.token_for("hub/org/app", None).await.expect("the new registry's token");

    // The request that is under way meets a 401: its registry still gives it another token.
    let renewed = going.upstream.tokens.replace("hub/org/app", None, &refused, LIMIT).await;
    assert!(renewed.expect("a token").is_some());
    assert!(!upkeep_of_goes.is_finished());
    drop(going);
    timeout(LIMIT, upkeep_of_goes).await.expect("it ends").expect("no panic");
    assert!(!upkeep_of_stays.is_finished() && !upkeep_of_comes.is_finished());
}

/// Serves connections with the table; returns the address.
async fn serve(table: &RouteTable, bundle: &Bundle) -> SocketAddr {
    let conf = Arc::new(server_conf(bundle));
    let proxy = Proxy::new(table.live(), &Arc::new(Load::new(16, 16)), Arc::default());
    let app = Arc::new(pingora_proxy::http_proxy(&conf, proxy));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        let (_running, shutdown) = watch::channel(false);
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
            tokio::spawn(async move {
                let mut next = Some(Box::new(Stream::from(stream)) as pingora_core::protocols::Stream);
                while let Some(stream) = next {
                    next = app.process_new(stream, &shutdown).await;
                }
            });
        }
    });
    address
}

/// What was kept stayed in memory, and the room beside it was as if the cache were in use.
#[tokio::test]
async fn a_cache_that_no_route_uses_any_more_kept_its_memory() {
    let azure = registry().await;
    let of = |rest: &str| settings(&[("docker.io", &azure, &format!("prefix: hub{rest}"))]);
    let (mut table, _service, _bundle) = table(&of(""), &[&azure]);
    let cache = table.cache();
    let memory = || cache.get().expect("the first settings have one").memory();
    let default = memory();
    assert_ne!(default, 0);
    for (rest, expected) in [(", cache: off", 0), ("", default)] {
        table.replace(&of(rest)).expect("no setting is wrong");
        assert_eq!(memory(), expected, "{rest}");
    }
}

#[tokio::test]
async fn a_request_under_way_ends_with_the_table_that_it_began_with() {
    let (before, after) = (registry().await, registry().await);
    let [first, second] = [(&before, "old/org/app"), (&after, "new/org/app")].map(|(registry, name)| {
        registry.push(Image::small(name, "1"));
        registry.manifest(name, "1").expect("pushed")
    });
    let (mut table, service, bundle) = table(&settings(&[("docker.io", &before, "prefix: old")]), &[&before, &after]);
    // Not the service itself, whose end would end the test process.
    tokio::spawn(async move {
        let mut queue = service.queue.lock().await;
        while let Some(upkeep) = queue.recv().await {
            tokio::spawn(upkeep.run());
        }
    });
    let address = serve(&table, &bundle).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let pull = || {
        let request = client.get(format!("http://{address}/v2/org/app/manifests/1"));
        request.header("accept", "application/vnd.oci.image.index.v1+json")
    };

    before.inject(Hop::Data, Fault::PauseMidBody(Duration::from_millis(500)));
    let mut answer = timeout(LIMIT, pull().send()).await.expect("in time").expect("an answer");
    let mut body = answer.chunk().await.expect("the first half").expect("it is not empty").to_vec();
    table.replace(&settings(&[("docker.io", &after, "prefix: new")])).expect("no setting is wrong");
    while let Some(part) = answer.chunk().await.expect("the rest") {
        body.extend_from_slice(&part);
    }
    assert_eq!(body, first);

    let answer = timeout(LIMIT, pull().send()).await.expect("in time").expect("an answer");
    assert_eq!(answer.bytes().await.expect("a body"), second);
    let counts = [(&before, "old/org/app"), (&after, "new/org/app"), (&before, "new/org/app"), (&after, "old/org/app")]
        .map(|(registry, name)| {
            let target = format!("/v2/{name}/manifests/1");
            registry.requests().iter().filter(|request| request.target == target).count()
        });
    assert_eq!(counts, [1, 1, 0, 0]);
}
