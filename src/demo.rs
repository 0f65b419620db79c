//! `demo`: a pull through this program, against an emulator of Azure.
//!
//! The emulator runs in this process. The proxy is a child process of the same program, started with the flags and
//! variables that a user would set, and ends with this one.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use acr_bench::{Connector, Exchange, Image, Job, Layers, Order, Origin, Pool, Route, inspect};
use acr_emulator::{Client, Emulator, Hop, Options, Recorded, static_busybox};
use oci::platform::Platform;
use tokio::signal::unix::{SignalKind, signal};

use crate::child::{ProxyProcess, Scratch};
use crate::cli::DemoOptions;
use crate::net::addresses::system_lookup;
use crate::net::egress::PROXY_VARIABLES;

/// The identity that the emulator knows. It is of no use elsewhere.
const TENANT: &str = "00000000-0000-4000-8000-00000000de30";
const CLIENT_ID: &str = "00000000-0000-4000-8000-0000000c11e7";
const SECRET: &str = "only-for-the-demo";
const PREFIX: &str = "hub";
const IMAGE: &str = "library/hello";
/// The emulator's image has a manifest for it.
const PLATFORM: &str = "linux/amd64";
/// Limit of the wait for log lines. The line of a request follows its response at once, unless the machine is busy.
const LOG_LIMIT: Duration = Duration::from_secs(2);
const LOG_STEP: Duration = Duration::from_millis(5);

/// Runs until Ctrl-C, SIGTERM or SIGHUP, or with `--once` until one image is pulled. The error is one sentence.
pub(crate) fn run(options: &DemoOptions) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().map_err(|cause| format!("demo: runtime: {cause}"))?;
    runtime.block_on(async {
        let ended = ended().map_err(|cause| format!("demo: signals: {cause}"))?;
        tokio::select! {
            shown = demo(options) => shown,
            // Dropping the demo stops what it started.
            () = ended => Ok(()),
        }
    })
}

/// Resolves with the first signal that ends the demo.
fn ended() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// The log of the proxy. Lines are collected until they are shown, and printed at once from then on.
#[derive(Clone)]
struct ProxyLog(Arc<Mutex<Option<Vec<String>>>>);

impl ProxyLog {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &str) {
        match &mut *self.lock() {
            Some(collected) => collected.push(line.to_owned()),
            None => {
                let _ = writeln!(io::stderr(), "  | {line}");
            }
        }
    }

    /// Waits for the lines of this many requests, [`LOG_LIMIT`] at most.
    async fn of_requests(&self, requests: usize) {
        let begun = Instant::now();
        let is_access = |line: &&String| line.contains(" access] ");
        while begun.elapsed() < LOG_LIMIT && self.lock().iter().flatten().filter(is_access).count() < requests {
            tokio::time::sleep(LOG_STEP).await;
        }
    }

    fn show(&self) -> Result<(), String> {
        say("\nWhat the proxy logged:")?;
        self.lock().take().unwrap_or_default().iter().try_for_each(|line| say(format_args!("  | {line}")))
    }
}

/// Prints a line. It fails if the reader, such as `head`, has closed the output.
fn say(line: impl Display) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|cause| format!("demo: output: {cause}"))
}

async fn demo(options: &DemoOptions) -> Result<(), String> {
    let azure = Emulator::start(Options {
        clients: vec![Client {
            tenant: TENANT.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            secret: Some(SECRET.to_owned()),
            ..Client::default()
        }],
        // Docker on this machine follows the redirect and does not trust the emulator's CA.
        storage_tls: false,
        login_server: "127.0.0.1".to_owned(),
        ..Options::default()
    })
    .await
    .map_err(|cause| format!("demo: emulator: {cause}"))?;
    let binary = static_busybox();
    let mut image = acr_emulator::Image::small(&format!("{PREFIX}/{IMAGE}"), "latest");
    image.binary.clone_from(&binary);
    azure.try_push(&image).map_err(|cause| format!("demo: image: {cause}"))?;

    say(format_args!(
        "An emulator of Azure runs in this process: Entra ID on {}, a registry on {}, its blob storage on {}.",
        azure.entra_addr(),
        azure.registry_addr(),
        azure.storage_addr()
    ))?;
    say(format_args!("It holds {PREFIX}/{IMAGE}:latest, as a cache rule docker.io/* => {PREFIX}/* would."))?;
    say(match &binary {
        Some(binary) => format!("The image runs: in it is {} of this machine.\n", binary.display()),
        None => "The image can be pulled but not run: this machine has no static busybox to put into it.\n".to_owned(),
    })?;
    let files = Scratch::new("demo").map_err(|cause| format!("demo: {cause}"))?;
    let log = ProxyLog::new();
    let proxy = proxy(&azure, options.listen, &files, &log).await?;
    say(format_args!("The proxy is ready on http://{}.\n", proxy.address()))?;

    say(format_args!("A pull of {IMAGE}:latest, as docker does it, without any credentials:"))?;
    let (origin, _) =
        Origin::parse_url(&format!("http://{}", proxy.address())).ok_or("demo: no address of the proxy")?;
    let (exchanges, pulled) = pull(&origin).await;
    for exchange in &exchanges {
        say(format_args!("  {}", line(exchange)))?;
    }
    let asked = to(&origin, &exchanges);
    log.of_requests(asked).await;
    if let Err(cause) = pulled {
        log.show()?;
        return Err(format!("demo: pull: {cause}"));
    }
    say("Every manifest and blob matches its digest.")?;
    say("\nWhat the emulator received:")?;
    for line in received(&azure.take_requests()) {
        say(format_args!("  {line}"))?;
    }

    say("\nThe same pull by another host:")?;
    let (exchanges, pulled) = pull(&origin).await;
    log.of_requests(asked + to(&origin, &exchanges)).await;
    if let Err(cause) = pulled {
        log.show()?;
        return Err(format!("demo: second pull: {cause}"));
    }
    let requests = azure.requests();
    let reached = requests.iter().filter(|request| request.hop == Hop::Data).count();
    say(format_args!("  requests to the proxy: {}, of these on to the registry: {reached}", to(&origin, &exchanges)))?;
    say("Manifests come from the proxy's memory, and so does where each blob is stored; blobs come from storage.")?;
    log.show()?;
    if options.once {
        return say("\nThe demo is complete.");
    }
    say(format_args!("\n{}", commands(proxy.address(), binary.as_deref())))?;
    std::future::pending().await
}

/// Commands for the same pull with curl, docker and containerd.
fn commands(proxy: SocketAddr, binary: Option<&Path>) -> String {
    let short = IMAGE.trim_start_matches("library/");
    let docker = match binary {
        Some(_) => format!("docker run --rm {short} /bin/sh -c 'echo it runs'"),
        None => format!("docker pull {short}"),
    };
    format!(
        "\
Try it with curl:
  curl -i http://{proxy}/v2/{IMAGE}/tags/list
with docker, after {{\"registry-mirrors\": [\"http://{proxy}\"]}} in /etc/docker/daemon.json and a restart:
  {docker}
with containerd:
  mkdir -p /tmp/acr-demo/docker.io
  printf '[host.\"http://{proxy}\"]\\n  capabilities = [\"pull\", \"resolve\"]\\n' > /tmp/acr-demo/docker.io/hosts.toml
  ctr images pull --hosts-dir /tmp/acr-demo docker.io/{IMAGE}:latest
Ctrl-C ends it."
    )
}

/// Starts the proxy with the flags and variables that a user would set.
async fn proxy(azure: &Emulator, listen: SocketAddr, files: &Scratch, log: &ProxyLog) -> Result<ProxyProcess, String> {
    let ca = files.write("ca.pem", azure.ca_pem()).map_err(|cause| format!("demo: {cause}"))?;
    let arguments = [
        "--upstream-domain".to_owned(),
        format!("127.0.0.1:{}", azure.registry_addr().port()),
        "--upstream-prefix".to_owned(),
        PREFIX.to_owned(),
        "--listen-address".to_owned(),
        listen.to_string(),
        "--ca-file".to_owned(),
        ca.to_string_lossy().into_owned(),
        "--log".to_owned(),
        "info".to_owned(),
    ];
    let variables = [
        ("AZURE_AUTHORITY_HOST", azure.authority()),
        ("AZURE_TENANT_ID", TENANT.to_owned()),
        ("AZURE_CLIENT_ID", CLIENT_ID.to_owned()),
        ("AZURE_CLIENT_SECRET", SECRET.to_owned()),
    ];
    // The emulator is on loopback, where no proxy of this machine's is between.
    let variables: Vec<_> = variables.into_iter().chain(PROXY_VARIABLES.map(|name| (name, String::new()))).collect();
    say("The proxy, started as on any machine, with a client secret in its environment:")?;
    say(format_args!("  acr-cache-proxy {}\n", arguments.join(" ")))?;
    let (log, socket) = (log.clone(), files.path("notify"));
    let started = tokio::task::spawn_blocking(move || {
        ProxyProcess::start(&arguments, &variables, &socket, move |line| log.add(line))
    });
    let started = started.await.map_err(|cause| format!("demo: proxy: {cause}"))?;
    started.map_err(|cause| format!("demo: {cause}"))
}

/// A pull in dockerd's order. Every digest is checked. Returns the exchanges, also of a pull that fails.
async fn pull(proxy: &Origin) -> (Vec<Exchange>, Result<(), String>) {
    let pool = match connector() {
        Ok(connector) => Pool::recording(Arc::new(connector), 0),
        Err(cause) => return (Vec::new(), Err(format!("TLS client: {cause}"))),
    };
    let route = Route::via(proxy.clone());
    let pulled = async {
        let image = Image::parse(IMAGE)?;
        let platform = Platform::parse(PLATFORM)?;
        let job = Job { image: &image, platform: &platform, layers: Layers::Full, order: Order::Docker };
        inspect(&route, &pool, job).await.map_err(|failure| failure.sentence)
    };
    let pulled = pulled.await.map(|_| ());
    (pool.exchanges(), pulled)
}

/// It trusts no CA: proxy and storage speak plain HTTP, and the CA certificates of this machine may be unusable.
fn connector() -> Result<Connector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    Ok(Connector::new(tls, system_lookup()))
}

/// How many of these requests went to this server.
fn to(server: &Origin, exchanges: &[Exchange]) -> usize {
    exchanges.iter().filter(|exchange| exchange.origin == *server).count()
}

/// One line about an exchange.
fn line(exchange: &Exchange) -> String {
    let what = if exchange.status.is_redirection() {
        format!("{} to blob storage", exchange.status.as_u16())
    } else {
        format!("{} {} B", exchange.status.as_u16(), exchange.bytes)
    };
    format!("{} -> {what} ({} ms)", exchange.request, exchange.took.as_millis())
}

/// A line for each request that reached the emulator: the hop, and whether the proxy sent a token; then how many there were.
fn received(requests: &[Recorded]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests {
        let bearer = request
            .headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("authorization") && value.starts_with("Bearer "));
        let (place, note) = match request.hop {
            Hop::Entra | Hop::Imds => ("Entra ID", ""),
            Hop::Exchange | Hop::Token => ("registry", ""),
            Hop::Data => ("registry", if bearer { ", with a bearer token" } else { ", without a token" }),
            Hop::Storage => ("storage", if bearer { ", with a bearer token" } else { ", without any credentials" }),
        };
        *kinds.entry(place).or_default() += 1;
        let path = request.target.split('?').next().unwrap_or_default();
        lines.push(format!("{place}: {} {path} -> {}{note}", request.method, request.status));
    }
    let counts: Vec<_> = kinds.iter().map(|(place, count)| format!("{place} {count}")).collect();
    lines.push(format!("requests in all: {}", counts.join(", ")));
    lines
}
