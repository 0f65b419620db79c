//! `--emulated`: both sides against the emulator, at a given round-trip time, so that no Azure is needed.

use std::time::Duration;

use acr_bench::{DelayLine, Origin};
use acr_emulator::{Client, Emulator, Image, Options};
use oci::route::Blobs;
use tokio::task::JoinSet;

use crate::child::{ProxyProcess, Scratch};
use crate::config::{Config, Flags};

/// The identity that the emulator knows. It is of no use elsewhere.
const TENANT: &str = "00000000-0000-4000-8000-0000000be9c4";
const CLIENT_ID: &str = "00000000-0000-4000-8000-0000000c11e7";
const SECRET: &str = "only-for-the-bench";
const HOST: &str = "127.0.0.1";
const PREFIX: &str = "hub";
/// The image in the registry: five layers of 1 MiB each, like common images.
pub(crate) const IMAGE: &str = "library/sample:latest";
const LAYERS: usize = 5;
const LAYER_BYTES: usize = 1 << 20;
/// How often the emulator's records of requests are cleared, so that a long run does not fill the memory.
const CLEAR_RECORDS: Duration = Duration::from_secs(1);

/// The emulator and the proxy; they stop when this value is dropped.
pub(super) struct Emulated {
    /// The proxy, a child process.
    pub(super) via: Origin,
    /// The settings of the proxy and of direct pulls.
    pub(super) config: Config,
    _tasks: JoinSet<()>,
    _proxy: ProxyProcess,
    _files: Scratch,
}

impl Emulated {
    /// Starts the emulator in this process, with its registry and storage `rtt` away, and a proxy as a child process.
    pub(super) async fn start(rtt: Duration, blobs: Blobs) -> Result<Self, String> {
        let io = |cause: std::io::Error| format!("emulator: {cause}");
        let registry = DelayLine::bind().await.map_err(io)?;
        let storage = DelayLine::bind().await.map_err(io)?;
        let port = registry.address().map_err(io)?.port();
        let storage_port = storage.address().map_err(io)?.port();
        let azure = Emulator::start(Options {
            clients: vec![Client {
                tenant: TENANT.to_owned(),
                client_id: CLIENT_ID.to_owned(),
                secret: Some(SECRET.to_owned()),
                ..Client::default()
            }],
            login_server: HOST.to_owned(),
            registry_port: Some(port),
            storage_port: Some(storage_port),
            ..Options::default()
        })
        .await
        .map_err(io)?;
        let (repository, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
        let image = Image::small(&format!("{PREFIX}/{repository}"), tag).with_layers(LAYERS, LAYER_BYTES);
        azure.try_push(&image).map_err(io)?;

        let files = Scratch::new("bench")?;
        let ca = files.write("ca.pem", azure.ca_pem())?;
        let secret = files.write("client-secret", SECRET)?;
        let blobs = match blobs {
            Blobs::Redirect => String::new(),
            Blobs::ProxyConfig | Blobs::Proxy => {
                format!("  blobs: {}\n  blob_hosts: ['{HOST}:{storage_port}']\n", blobs.name())
            }
        };
        // In a file, because the environment is the user's.
        let settings = files.write(
            "config.yaml",
            &format!(
                "listen: 127.0.0.1:0\nupstream:\n  domain: {HOST}:{port}\n  prefix: {PREFIX}\n{blobs}ca_file: {ca}\nidentity:\n  kind: client_secret\n  authority: {authority}\n  tenant_id: {TENANT}\n  client_id: {CLIENT_ID}\n  client_secret_file: {secret}\negress:\n  proxy: off\nlog: info,access=off\n",
                ca = ca.display(),
                secret = secret.display(),
                authority = azure.authority(),
            ),
        )?;
        let mut tasks = JoinSet::new();
        tasks.spawn(registry.forward(azure.registry_addr(), rtt));
        tasks.spawn(storage.forward(azure.storage_addr(), rtt));
        let flags = Flags::default().with_file(Some(settings.clone()));
        let config = Config::load(&flags).map_err(|mistakes| mistakes.to_string().trim_end().to_owned())?;
        let arguments = ["--config".to_owned(), settings.to_string_lossy().into_owned()];
        let variables = [("RUST_LOG", String::new())];
        let socket = files.path("notify");
        let proxy = tokio::task::spawn_blocking(move || ProxyProcess::start(&arguments, &variables, &socket, |_| {}))
            .await
            .map_err(|cause| format!("proxy: {cause}"))??;
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(CLEAR_RECORDS).await;
                azure.clear_requests();
            }
        });
        let (via, _) = Origin::parse_url(&format!("http://{}", proxy.address()))
            .ok_or_else(|| format!("proxy: {} is no address", proxy.address()))?;
        Ok(Self { via, config, _tasks: tasks, _proxy: proxy, _files: files })
    }
}
