//! A whole request: from the first byte that a client sends to the last one that it gets, answered from what is kept.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use oci::name::Prefix;
use oci::route::{Blobs, Route, Routes, Source};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::{CACHE, LIFETIME, OneManifest, REPOSITORY, lifetimes};
use crate::access::{Access, Network, Networks, PerClient, Rate, Rules};
use crate::cache::{Cache, KeyRef, Part};
use crate::listen::http::{Http, Keepalive, Speaks};
use crate::listen::tls::Revocation;
use crate::listen::{Connection, Kind, Socket};
use crate::load::Load;
use crate::proxy::{Destination, Kept, Proxy, Table};

/// The number of the registry.
const REGISTRY: u64 = 1;

/// What containerd sends for the manifest of a tag.
const REQUEST: &[u8] = b"GET /v2/library/nginx/manifests/1.27?ns=docker.io HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    User-Agent: containerd/2.1.4\r\n\
    Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*\r\n\
    Accept-Encoding: gzip\r\n\r\n";

/// A proxy that keeps the manifest of one tag, and a client's connection to it.
pub struct Served {
    runtime: Runtime,
    client: UnixStream,
    buffer: Vec<u8>,
}

impl Served {
    /// A proxy of one thread, which asks nobody. Its client has no address, so no rule is about it.
    pub fn warm() -> Self {
        let address = std::os::unix::net::SocketAddr::from_pathname("client").expect("a valid path");
        Self::new(address.into(), Rules::default())
    }

    /// The same with a client whose address is looked up in the networks that may pull, and which has a limit of requests.
    pub fn guarded() -> Self {
        let networks =
            |list: &[&str]| Networks::new(list.iter().filter_map(|text| Network::parse(text).ok()).collect());
        let allow = networks(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8", "198.51.100.0/24"]);
        let deny = networks(&["10.9.0.0/16", "192.168.7.7"]);
        let access = Access { allow, deny, ..Access::default() };
        // More than any measurement asks for.
        let requests = NonZeroU32::new(100_000).map(|most| Rate { per_second: most, burst: most });
        let per_client = PerClient { connections: NonZeroUsize::new(200), requests, ..PerClient::default() };
        let address = SocketAddr::from(([10, 1, 2, 3], 32768));
        Self::new(address.into(), Rules { access, per_client, ..Rules::default() })
    }

    fn new(address: pingora_core::protocols::l4::socket::SocketAddr, rules: Rules) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime of this thread");
        let client = runtime.block_on(async {
            let (server, client) = UnixStream::pair().expect("a pair of sockets");
            let load = Arc::new(Load::new(8, 8));
            load.gate.replace(rules);
            let rate = load.gate.bounds().reader_rate;
            let mut connection = Box::new(Connection::new(Socket::new(server, rate), address));
            let conf = Arc::new(ServerConf::default());
            let app = http_proxy(&conf, Proxy::new(table().await, &load, Arc::default()));
            let http = Http::new(Kind::Clients, app, &Keepalive::new(LIFETIME), &load);
            tokio::spawn(async move {
                let (_shutdown, watch) = watch::channel(false);
                if let Ok(place) = http.admit(&mut connection).await {
                    http.serve(connection, place, Speaks::Either, &watch, Revocation::never()).await;
                }
            });
            client
        });
        Self { runtime, client, buffer: vec![0; 16 << 10] }
    }

    /// One request and its whole answer.
    pub fn hit(&mut self) {
        let Self { runtime, client, buffer } = self;
        runtime.block_on(async {
            client.write_all(REQUEST).await.expect("the connection is open");
            let mut length = 0;
            while length < OneManifest::BYTES || !is_whole(&buffer[..length]) {
                let read = client.read(&mut buffer[length..]).await.expect("the connection is open");
                assert!(read > 0, "the connection is kept");
                length += read;
            }
            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "the manifest is kept");
        });
    }
}

fn is_whole(answer: &[u8]) -> bool {
    answer.windows(4).position(|end| end == b"\r\n\r\n").is_some_and(|end| answer.len() - end - 4 == OneManifest::BYTES)
}

/// One route, of whose repository one manifest is kept.
async fn table() -> Arc<Table> {
    let cache = Arc::new(Cache::new(CACHE));
    let path = format!("/v2/{REPOSITORY}/manifests/1.27");
    let key = KeyRef { registry: REGISTRY, part: Part::Manifest, path: &path };
    cache.look_up(key, &lifetimes(), || OneManifest).await;
    let kept = Kept { cache, lifetimes: lifetimes(), prefetch: Arc::new([]) };
    let destination = Arc::new(Destination::example(REGISTRY, Blobs::default(), Some(kept)));
    let route = Route {
        source: Source::docker_hub(),
        prefix: Prefix::parse("hub").expect("a valid prefix"),
        hosts: Vec::new(),
        destination,
    };
    Arc::new(Table::from_pointee(Routes::new(vec![route], None)))
}
