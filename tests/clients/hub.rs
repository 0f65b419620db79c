//! Azure's registry, and the public ones that clients may turn to.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use acr_emulator::{Emulator, Hop, Image, Options, Pushed, Recorded};

use crate::home::Home;
use crate::namespace::{self, Bound};
use testkit::{PATIENCE, Setup};

/// Where public registries are in this network.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The hosts of Docker Hub and of the other registries that clients may turn to.
const HOSTS: [&str; 5] = ["registry-1.docker.io", "auth.docker.io", "docker.io", "ghcr.io", "quay.io"];
/// The tag of every image here.
pub(crate) const TAG: &str = "1.0";

/// A registry in Azure, and the public ones behind the clients' backs: these know the same images, give them to
/// everybody and write down who asks.
pub(crate) struct Site {
    pub azure: Emulator,
    /// Docker Hub, and whatever other registry a client means.
    pub hub: Emulator,
    _names: Bound,
    _files: tempfile::TempDir,
}

impl Site {
    /// Both, and names that lead to the public one.
    pub(crate) async fn start() -> Self {
        Self::start_with(testkit::options()).await
    }

    /// The same with an Azure that is told something.
    pub(crate) async fn start_with(options: Options) -> Self {
        namespace::assert_isolated();
        let files = tempfile::tempdir().expect("a temporary directory");
        let azure = Emulator::start(options).await.expect("the emulator starts");
        let public = Options {
            login_server: HOSTS[0].to_owned(),
            extra_names: HOSTS.map(str::to_owned).into(),
            registry_listen: SocketAddr::from((ADDRESS, 443)),
            storage_listen: SocketAddr::from((ADDRESS, 0)),
            storage_host: ADDRESS.to_string(),
            anonymous_pull: true,
            ..Options::default()
        };
        // Its port is a fixed one, which an earlier site of the same test may be about to leave.
        let begun = Instant::now();
        let hub = loop {
            match Emulator::start(public.clone()).await {
                Ok(hub) => break hub,
                Err(cause) => assert!(begun.elapsed() < PATIENCE, "the emulator starts: {cause}"),
            }
            tokio::task::yield_now().await;
        };
        let names = format!("127.0.0.1 localhost\n{ADDRESS} {}\n", HOSTS.join(" "));
        let names = Bound::new(files.path().join("hosts"), "/etc/hosts", &names);
        Self { azure, hub, _names: names, _files: files }
    }

    /// Puts an image of one architecture, this machine's, into the public registry and, below `prefix`, into the cache.
    pub(crate) fn put(&self, prefix: &str, name: &str) -> Pushed {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let public = Image::small(name, TAG).with_arches(&[arch]);
        let cached = Image { repository: format!("{prefix}/{name}"), ..public.clone() }.copy_of(name);
        let pushed = self.azure.push(cached);
        assert_eq!(pushed, self.hub.push(public), "the same image");
        pushed
    }

    /// A proxy with routes of source and prefix.
    pub(crate) fn proxy(&self, routes: &[(&str, &str)], on_failure: &str) -> Setup {
        let port = self.azure.registry_addr().port();
        let routes = routes.iter().map(|(source, prefix)| {
            format!(
                "  - {{source: {source}, prefix: {prefix}, domain: 'example.azurecr.io:{port}', \
                 addresses: [127.0.0.1], on_failure: {on_failure}}}\n"
            )
        });
        Setup::new(&self.azure).only_routes(&routes.collect::<String>()).flag("--log", "info")
    }

    /// A client's home that trusts both.
    pub(crate) fn home(&self) -> Home {
        Home::new(&[self.azure.ca_pem(), self.hub.ca_pem()])
    }
}

/// Requests of a registry's data plane for a repository, of those recorded.
pub(crate) fn of_repository(requests: &[Recorded], repository: &str) -> Vec<Recorded> {
    let (data, below) = (|request: &&Recorded| request.hop == Hop::Data, format!("/v2/{repository}/"));
    requests.iter().filter(data).filter(|request| request.target.starts_with(&below)).cloned().collect()
}

/// Whether storage has sent a blob, or a part of it.
pub(crate) fn was_sent(requests: &[Recorded], digest: &str) -> bool {
    let hex = digest.trim_start_matches("sha256:");
    let sent = |request: &Recorded| request.hop == Hop::Storage && matches!(request.status, 200 | 206);
    requests.iter().any(|request| sent(request) && request.target.contains(hex))
}
