//! `bench`: hands the crate `acr_bench` what it needs of this program: the proxy's settings, trust roots, the look-up of
//! names, and the sign-in of direct pulls.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acr_bench::{Connector, Invocation, Io, Login, Opening, Options, Origin, Route, SignIn, Subject, Tunnels};
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use oci::printable;
use oci::route::{Blobs, Source};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::client_tls::Presented;
use crate::config::Config;
use crate::identity::Chain;
use crate::logger;
use crate::net::addresses::{Addresses, Names, Way, system_lookup};
use crate::net::egress::{Egress, EgressSettings};
use crate::net::trust::TrustRoots;
use crate::net::tunnel::Opened;
use crate::secret::Secret;
use crate::service_variables::{self, Told};
use crate::shell::shell_word;
use crate::token::acr::AcrIssuer;
use crate::token::{Granted, Issuer as _};

mod emulated;

use emulated::Emulated;
pub(crate) use emulated::IMAGE;

/// What is measured: the proxy, the registry, or both.
#[derive(Debug)]
pub(crate) enum Target {
    /// The sides that the flags name; at least one is set.
    Named {
        /// The proxy.
        via: Option<Origin>,
        /// What is presented to it, if it asks for a certificate.
        presented: Option<Presented>,
        /// The registry, and who signs in to it.
        direct: Option<Box<Config>>,
        /// CA certificates that are trusted besides the system's: those of the settings, and of the flag.
        ca_files: Vec<PathBuf>,
        /// Whose variables the sign-in of direct pulls has.
        variables: Vec<Told>,
    },
    /// The emulator, and a proxy in front of it.
    Emulated {
        /// How the proxy serves blobs.
        blobs: Blobs,
        /// The round-trip time to the emulator.
        rtt: Duration,
    },
}

/// Measures, and writes the report. The error is one sentence.
pub(crate) fn run(options: &Options, target: &Target) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variables: Vec<_> = match target {
        Target::Named { variables, .. } => variables.iter().map(|told| told.text().to_owned()).collect(),
        Target::Emulated { .. } => Vec::new(),
    };
    // Also where no report comes of it, because the sign-in fails.
    for told in &variables {
        let _ = writeln!(io::stderr(), "bench: {}", printable::line(told));
    }
    let command = command_line(service_variables::given(std::env::args_os().skip(1)));
    let invocation = Invocation { date: date(), command, variables };
    acr_bench::run(options, invocation, subject(target)).map_err(|cause| format!("bench: {cause}"))
}

async fn subject(target: &Target) -> Result<Subject, String> {
    match target {
        Target::Named { via, presented, direct, ca_files, variables: _ } => {
            let roots = roots(ca_files.iter().map(PathBuf::as_path))?;
            let mut connector = connector(&roots)?;
            let settings = direct.as_ref().map_or_else(EgressSettings::default, |config| config.egress().clone());
            let egress = egress(&settings, &roots)?;
            if let Some(tunnels) = tunnels(&egress) {
                connector.through(tunnels, via.as_ref());
            }
            if let Some((via, presented)) = via.as_ref().zip(presented.as_ref()) {
                connector.present(via, presented.client(&roots)?);
            }
            let mut routes: Vec<_> = via.iter().cloned().map(Route::via).collect();
            if let Some(config) = direct {
                routes.push(direct_route(config, &connector, &roots, &egress).await?);
            }
            Ok(Subject { routes, connector, rtt: None, guard: Box::new(()) })
        }
        Target::Emulated { blobs, rtt } => {
            let emulated = Emulated::start(*rtt, *blobs).await?;
            let roots = roots(emulated.config.ca_file())?;
            let connector = connector(&roots)?;
            let direct = direct_route(&emulated.config, &connector, &roots, &Egress::direct()).await?;
            let routes = vec![Route::via(emulated.via.clone()), direct];
            Ok(Subject { routes, connector, rtt: Some(*rtt), guard: Box::new(emulated) })
        }
    }
}

fn roots<'a>(ca_files: impl IntoIterator<Item = &'a Path>) -> Result<TrustRoots, String> {
    TrustRoots::load(ca_files).map_err(|cause| cause.to_string())
}

fn connector(roots: &TrustRoots) -> Result<Connector, String> {
    let tls = roots.client().map_err(|cause| format!("TLS client: {cause}"))?;
    Ok(Connector::new(tls, system_lookup()))
}

/// As the daemon has it by these settings: they, and where they are silent the variables, say what is behind a proxy.
fn egress(settings: &EgressSettings, roots: &TrustRoots) -> Result<Arc<Egress>, String> {
    Egress::of_process(settings, roots).map_err(|wrong| wrong.to_string())
}

/// The tunnels through the egress proxy, if there is one.
fn tunnels(egress: &Arc<Egress>) -> Option<Tunnels> {
    egress.proxy()?;
    let egress = Arc::clone(egress);
    Some(Arc::new(move |host: &str, port: u16| -> Option<Opening> {
        let way = egress.way_through(host, port)?;
        Some(Box::pin(async move {
            Ok(match way.open().await? {
                Opened::Plain(stream) => {
                    // A small request must not wait until the one before it is acknowledged.
                    let _ = stream.set_nodelay(true);
                    Box::new(stream) as Box<dyn Io>
                }
                Opened::Tls(stream) => stream as Box<dyn Io>,
            })
        }))
    }))
}

async fn direct_route(
    config: &Config,
    connector: &Connector,
    roots: &TrustRoots,
    egress: &Arc<Egress>,
) -> Result<Route, String> {
    // Images have names of Docker Hub. Without a route for Docker Hub, the first route is measured.
    let hub = Source::docker_hub();
    let route = config.routes().iter().find(|route| route.source == hub).or(config.routes().iter().next());
    let route = route.ok_or("the settings have no route: name a registry, such as --direct example.azurecr.io/hub")?;
    let upstream = &route.destination.upstream;
    let domain = upstream.domain();
    let origin = Origin::https(domain.host(), domain.port());
    let failed = |cause: String| format!("direct {}: {cause}", domain.authority());
    connector.pin(&origin, upstream.addresses());
    // Who gives a registry's addresses says that it is reached there.
    let through = egress.way_through(domain.host(), domain.port()).filter(|_| upstream.addresses().is_empty());
    let way = match through {
        Some(way) => way,
        None => {
            let found = connector.addresses(&origin).await.map_err(failed)?;
            let found: Vec<_> = found.iter().map(SocketAddr::ip).collect();
            Way::direct(Arc::new(Addresses::new(domain.host(), domain.port(), &found)))
        }
    };
    let identity = Chain::new(upstream.identity(), roots, &Names::sign_in(), egress);
    let identity = identity.map_err(|cause| failed(cause.to_string()))?;
    let anonymous = identity.is_none();
    let issuer = AcrIssuer::new(domain.clone(), identity, way, roots, Arc::default())
        .map_err(|cause| failed(format!("TLS client: {cause}")))?;
    let sign_in = DockerLogin { issuer, anonymous, login: Mutex::new(None) };
    Ok(Route::direct(origin, route.prefix.as_str(), Arc::new(sign_in)))
}

/// The registry's refresh token, as `docker login` stores it. It is renewed after half of its lifetime.
struct DockerLogin {
    issuer: AcrIssuer,
    anonymous: bool,
    login: Mutex<Option<(Granted, Instant)>>,
}

#[async_trait]
impl SignIn for DockerLogin {
    async fn log_in(&self) -> Result<Arc<dyn Login>, String> {
        let mut login = self.login.lock().await;
        let token = match &*login {
            Some((granted, since)) if since.elapsed() < granted.lifetime / 2 => granted.token.clone(),
            _ => {
                let granted = self.issuer.login().await.map_err(|failure| failure.message)?;
                login.insert((granted, Instant::now())).0.token.clone()
            }
        };
        Ok(Arc::new(RefreshToken { token, anonymous: self.anonymous }))
    }
}

struct RefreshToken {
    token: Secret,
    anonymous: bool,
}

impl Login for RefreshToken {
    fn token_form(&self, service: &str, repository: &str) -> Bytes {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("service", service).append_pair("scope", &format!("repository:{repository}:pull"));
        if self.anonymous {
            form.append_pair("grant_type", "password");
        } else {
            form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", self.token.expose());
        }
        Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
    }

    fn bearer(&self, body: &[u8]) -> Result<HeaderValue, &'static str> {
        #[derive(Deserialize)]
        struct TokenResponse {
            access_token: String,
        }
        let response: TokenResponse =
            serde_json::from_slice(body).map_err(|_| "a body that is not the JSON of a token")?;
        Secret::new(response.access_token).to_bearer().ok_or("a token that no header may carry")
    }
}

/// The time in UTC, as `2026-11-25T14:18:00Z`.
fn date() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}Z", logger::stamp(since_1970.as_secs()))
}

/// The command line, quoted for a shell. No argument is a secret: an address with a password is rejected.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let words = arguments.map(|argument| format!(" {}", shell_word(&argument.to_string_lossy())));
    "acr-cache-proxy".to_owned() + &words.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_can_be_pasted_into_a_shell() {
        let arguments = ["bench", "--image", "library/nginx:1.27", "--html", "my report's.html", ""];
        assert_eq!(
            command_line(arguments.into_iter().map(OsString::from)),
            r"acr-cache-proxy bench --image library/nginx:1.27 --html 'my report'\''s.html' ''"
        );
    }

    #[test]
    fn the_token_form_is_dockers() {
        let form = |anonymous| {
            let login = RefreshToken { token: Secret::new("a+b".to_owned()), anonymous };
            String::from_utf8(login.token_form("example.azurecr.io", "hub/a").to_vec()).expect("text")
        };
        let common = "service=example.azurecr.io&scope=repository%3Ahub%2Fa%3Apull&grant_type=";
        assert_eq!(form(false), format!("{common}refresh_token&refresh_token=a%2Bb"));
        assert_eq!(form(true), format!("{common}password"));
    }
}
