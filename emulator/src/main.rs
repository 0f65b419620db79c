//! The emulator as a program: starts, prints where it listens, then prints each request.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use acr_emulator::{CLIENT_ID, CLIENT_SECRET, Client, Emulator, Image, Options, RateLimits, TENANT, static_busybox};
use clap::Parser;
use serde_json::json;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// An emulator of Entra ID, an Azure container registry and its blob storage
///
/// The first line of output says where they listen, as JSON; each line after it is a request.
#[derive(Parser)]
#[command(name = "acr-emulator", version)]
struct Arguments {
    /// The registry's name without a port, in tokens and in the certificate
    #[arg(long, default_value = "example.azurecr.io")]
    login_server: String,
    /// One more name or address for the certificate
    #[arg(long = "extra-name")]
    extra_names: Vec<String>,
    /// Where the registry listens, over TLS; port 0 is a free one
    #[arg(long, default_value_t = ANY_PORT)]
    registry_listen: SocketAddr,
    /// Where Entra ID listens, over TLS
    #[arg(long, default_value_t = ANY_PORT)]
    entra_listen: SocketAddr,
    /// Where blob storage listens
    #[arg(long, default_value_t = ANY_PORT)]
    storage_listen: SocketAddr,
    /// Serve managed identity endpoints too, in plain HTTP
    #[arg(long)]
    identity_listen: Option<SocketAddr>,
    /// Whether blob storage speaks TLS
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    storage_tls: bool,
    /// The host in blob redirects
    #[arg(long, default_value = "127.0.0.1")]
    storage_host: String,
    /// Dedicated data endpoints: blob redirects have another form of address
    #[arg(long)]
    data_endpoints: bool,
    /// Role assignments by repository: the wildcard scope is ignored
    #[arg(long)]
    abac: bool,
    /// Grant tokens for all repositories and then refuse them
    #[arg(long)]
    refuse_wildcard_tokens: bool,
    /// Give tokens to callers without credentials
    #[arg(long)]
    anonymous_pull: bool,
    /// The tenant of the one application that Entra ID knows
    #[arg(long, default_value = TENANT)]
    tenant: String,
    /// Its client id
    #[arg(long, default_value = CLIENT_ID)]
    client_id: String,
    /// Its secret
    #[arg(long, default_value = CLIENT_SECRET)]
    client_secret: String,
    /// The certificate that signs the client's assertions, a PEM file
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// The subject of the client's federated tokens
    #[arg(long)]
    federated_subject: Option<String>,
    /// Life of refresh tokens, in seconds
    #[arg(long, value_name = "SECONDS")]
    refresh_lifetime: Option<u64>,
    /// Life of access tokens, in seconds
    #[arg(long, value_name = "SECONDS")]
    access_lifetime: Option<u64>,
    /// Life of the addresses in blob redirects, in seconds
    #[arg(long, value_name = "SECONDS")]
    redirect_lifetime: Option<u64>,
    /// Reads a minute that the registry answers for each identity [default: any number]
    #[arg(long, value_name = "COUNT")]
    reads_per_minute: Option<u32>,
    /// Seconds that the emulator's clock is ahead
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_skew: i64,
    /// Delay before each answer, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency: u64,
    /// An image to hold; may be repeated
    #[arg(long = "image", value_name = "REPOSITORY:TAG", default_value = "hub/library/busybox:latest")]
    images: Vec<String>,
    /// A static program that becomes bin/sh of the images, so that they run [default: busybox, if this machine has a
    /// static one]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Layers of each image
    #[arg(long, default_value_t = 2)]
    layers: usize,
    /// Bytes of each layer
    #[arg(long, default_value_t = 20_000)]
    layer_bytes: usize,
    /// Docker's media types in place of OCI's
    #[arg(long)]
    docker_media_types: bool,
    /// Write the CA's certificate to a file
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has closed it, which is one way to end the program.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acr-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let binary = arguments.binary.clone().or_else(static_busybox);
    let images = arguments.images(binary.as_deref())?;
    let emulator = Emulator::start(arguments.options()?).await?;
    for image in &images {
        emulator.try_push(image)?;
    }
    if let Some(file) = &arguments.ca_out {
        std::fs::write(file, emulator.ca_pem())
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
    }
    print(&json!({"ready": {
        "registry": emulator.registry_addr(),
        "entra": emulator.entra_addr(),
        "storage": emulator.storage_addr(),
        "identity": emulator.identity_addr(),
        "authority": emulator.authority(),
        "ca": arguments.ca_out,
        "images": images.iter().map(|image| format!("{}:{}", image.repository, image.tag)).collect::<Vec<_>>(),
        // Without a program, images can be pulled but not run.
        "binary": binary,
    }}))?;
    let stop = stopped()?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = emulator.wait_for(|requests| !requests.is_empty()) => {}
        }
        for request in emulator.take_requests() {
            print(&serde_json::to_value(request)?)?;
        }
    }
}

/// Resolves at SIGINT or SIGTERM.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn print(line: &serde_json::Value) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

impl Arguments {
    fn images(&self, binary: Option<&Path>) -> io::Result<Vec<Image>> {
        let image = |name: &String| {
            let (repository, tag) = name.rsplit_once(':').ok_or_else(|| {
                let message = format!("--image {name}: a tag is missing, as in {name}:latest");
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?;
            let mut image = Image::small(repository, tag).with_layers(self.layers, self.layer_bytes);
            image.binary = binary.map(Path::to_owned);
            image.docker_media_types = self.docker_media_types;
            Ok(image)
        };
        self.images.iter().map(image).collect()
    }

    fn options(&self) -> io::Result<Options> {
        let defaults = Options::default();
        let seconds = |given: Option<u64>, default| given.map_or(default, Duration::from_secs);
        let certificate = self.client_certificate.as_ref().map(std::fs::read_to_string);
        let client = Client {
            tenant: self.tenant.clone(),
            client_id: self.client_id.clone(),
            secret: Some(self.client_secret.clone()),
            certificate_pem: certificate.transpose()?,
            federated_subject: self.federated_subject.clone(),
            ..Client::default()
        };
        Ok(Options {
            login_server: self.login_server.clone(),
            extra_names: self.extra_names.clone(),
            registry_listen: self.registry_listen,
            entra_listen: self.entra_listen,
            storage_listen: self.storage_listen,
            identity_listen: self.identity_listen,
            storage_tls: self.storage_tls,
            storage_host: self.storage_host.clone(),
            data_endpoints: self.data_endpoints,
            abac: self.abac,
            refuses_wildcard_tokens: self.refuse_wildcard_tokens,
            anonymous_pull: self.anonymous_pull,
            refresh_lifetime: seconds(self.refresh_lifetime, defaults.refresh_lifetime),
            access_lifetime: seconds(self.access_lifetime, defaults.access_lifetime),
            redirect_lifetime: seconds(self.redirect_lifetime, defaults.redirect_lifetime),
            rate_limits: RateLimits { reads: self.reads_per_minute, ..RateLimits::NONE },
            clock_skew: self.clock_skew,
            clients: vec![client],
            latency: Duration::from_millis(self.latency),
            ..defaults
        })
    }
}
