//! The configuration: every mistake that would end a start of the proxy, and what it would start with only with a warning.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use super::Options;
use super::report::{Group, Hop, Kind, Line, Status};
use super::warnings;
use crate::activation::Sockets;
use crate::config::credential::{self, is_elsewhere};
use crate::config::identity::Kind as IdentityKind;
use crate::config::service_user::{self, ServiceUser};
use crate::config::{self, Config, Endpoint};
use crate::host::Host;
use crate::installed::OWN_UNIT;
use crate::listen::bind::{self, BindError};
use crate::listen::certificate;
use crate::metrics::Meters;
use crate::net::egress::Egress;
use crate::net::trust::TrustRoots;
use crate::serve::registry::{Builder, Built, Shared};
use crate::serve::{ServeError, announce};
use crate::service_variables::Told;
use crate::unit::{Unit, own};
use crate::{alarm, identity};

/// What the proxy would be built of.
pub(super) struct Parts {
    pub config: Config,
    pub roots: TrustRoots,
    /// Each registry with its settings.
    pub registries: Vec<(Arc<config::Upstream>, Built)>,
    pub meters: Arc<Meters>,
}

/// The lines about it.
pub(super) struct Findings {
    name: String,
    lines: Vec<Line>,
}

impl Findings {
    fn add(&mut self, status: Status, text: String) {
        // The same variable may be wrong for several registries.
        if !self.lines.iter().any(|line| line.text == text) {
            self.lines.push(Line { hop: Hop::Configuration, status, elapsed: None, text, value: None });
        }
    }

    /// A mistake.
    pub(super) fn failed(&mut self, text: impl ToString) {
        self.add(Status::Failed, text.to_string());
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.add(Status::Warning, text.into());
    }

    pub(super) fn into_group(self) -> Group {
        Group { kind: Kind::Configuration, name: self.name, lines: self.lines }
    }
}

/// Checks the settings, and builds what the proxy is built of, without any I/O but that of reading files. `before` is what is found
/// already.
pub(super) fn check(
    options: &Options,
    before: Vec<Told>,
    load: impl FnOnce() -> Result<Config, String>,
) -> (Findings, Option<Parts>) {
    let name = options.file.clone().unwrap_or_else(|| "of the command line".to_owned());
    let mut findings = Findings { name, lines: Vec::new() };
    for told in before {
        match told {
            Told::Fact(text) => findings.add(Status::Ok, text),
            Told::Warning(text) => findings.warn(text),
        }
    }
    // Both Pingora and reqwest take the process's provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (parts, heard) = warnings::during(|| build(&mut findings, load));
    options.warnings.iter().cloned().chain(heard).for_each(|warning| findings.warn(warning));
    let Some(parts) = parts else { return (findings, None) };
    if options.file.as_ref().is_some_and(|file| config::is_sample(Path::new(file))) {
        findings.warn("it is the package's example, whose registry nobody has: acr-cache-proxy init writes yours");
    }
    if let Some(host) = host_of_service(options) {
        // Its socket unit keeps the service from a start, although the settings are right by themselves.
        let refusal = Sockets::look_and_wait(&host).own().and_then(|socket| socket.refusal(&parts.config));
        refusal.into_iter().for_each(|sentence| findings.failed(sentence));
        closed(&host, options, &parts.config, &mut findings);
    }
    warn(&mut findings, &parts.config);
    not_here(&parts.config, options, &mut findings);
    if findings.lines.iter().any(|line| line.status == Status::Failed) {
        return (findings, None);
    }
    let [registries, routes] = [parts.registries.len(), parts.config.routes().iter().count()];
    let plural = |count: usize, one: &'static str, more: &'static str| if count == 1 { one } else { more };
    let text = format!(
        "{routes} {} to {registries} {}",
        plural(routes, "route", "routes"),
        plural(registries, "registry", "registries")
    );
    findings.add(Status::Ok, text);
    (findings, Some(parts))
}

fn build(findings: &mut Findings, load: impl FnOnce() -> Result<Config, String>) -> Option<Parts> {
    let config = match load() {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes.lines().for_each(|mistake| findings.failed(mistake));
            return None;
        }
    };
    for listener in config.listeners() {
        if let Some(cause) = no_socket(&listener.endpoint) {
            findings.failed(ServeError::cannot_listen(listener.endpoint.clone(), cause));
        }
    }
    let ca_file = config.ca_file().filter(|path| !is_elsewhere(path));
    let roots = TrustRoots::load(ca_file).map_err(|cause| findings.failed(cause)).ok();
    let (meters, shared) = (Arc::new(Meters::default()), Shared::of(&config));
    let builder = Builder::new(roots.clone().unwrap_or_else(TrustRoots::none), &meters);
    let egress = builder.egress(config.egress()).map_err(|cause| findings.failed(cause)).ok();
    let way = egress.clone().unwrap_or_else(Egress::direct);
    let mut registries = Vec::new();
    for settings in config.upstreams() {
        match builder.build(settings, shared, &way, None) {
            Ok(built) => registries.push((Arc::clone(settings), built)),
            Err(cause) => findings.failed(cause),
        }
    }
    egress.and(Some(Parts { config, roots: roots?, registries, meters }))
}

/// Why there cannot be a Unix socket. Whether an address is free is not tried: a proxy that runs already has it.
fn no_socket(endpoint: &Endpoint) -> Option<BindError> {
    let Endpoint::Unix { path, .. } = endpoint else { return None };
    bind::unix_fault(path)
}

/// This host, if its own service is started with these settings.
fn host_of_service(options: &Options) -> Option<Host> {
    let host = Host::new(options.root.clone());
    (host.is_this() && own::other(&host, options.file.as_deref(), &options.given).is_none()).then_some(host)
}

/// Addresses that this host does not have now, a sentence each. The unit of a socket may listen on one that comes later.
fn absent(config: &Config) -> Vec<String> {
    let of_listeners = config.listeners().iter().filter_map(|listener| listener.endpoint.address());
    let addresses = of_listeners.map(|address| ("listen", address)).chain(config.admin().map(|at| ("admin", at)));
    let is_absent = |address: &SocketAddr| {
        // Port 0 is never in use, so only the address can be refused.
        let bound = UdpSocket::bind((address.ip(), 0));
        bound.is_err_and(|cause| cause.kind() == io::ErrorKind::AddrNotAvailable) && !address.ip().is_unspecified()
    };
    let absent = addresses.filter(|(_, address)| is_absent(address));
    absent
        .map(|(key, address)| {
            format!("{key} {address}: this host has no such address, so a start fails until it has: use one of its own")
        })
        .collect()
}

/// Credentials that only the start of the unit has, and those that it does not have either.
fn not_here(config: &Config, options: &Options, findings: &mut Findings) {
    let own = options.file.as_ref().and_then(|file| Unit::own_of(&Host::new(options.root.clone()), Path::new(file)));
    let named = service_user::files(config).into_iter().map(|(key, path)| (key, path.to_owned()));
    let read = config.upstreams().iter().flat_map(|upstream| identity::of_unit(upstream.identity().kind()));
    for (key, path) in named.chain(read).filter(|(_, path)| credential::of_unit(path).is_some()) {
        match own.as_ref().and_then(|unit| credential::not_handed_over(unit, &path)) {
            Some(name) => {
                let text = format!(
                    "{key} {}: {OWN_UNIT} hands over no such credential: LoadCredential={name}:FILE in a drop-in does",
                    path.display()
                );
                // A path as it is written has to be one at the start, and any other file may come later.
                if is_elsewhere(&path) {
                    findings.failed(text);
                } else {
                    findings.warn(text);
                }
            }
            None => {
                let text = format!("{key} {}: not tried, since only the start of the unit has it", path.display());
                findings.add(Status::Skipped, text);
            }
        }
    }
}

/// Files of the host's own settings that its service may not read, of which root, who runs this, would not know.
fn closed(host: &Host, options: &Options, config: &Config, findings: &mut Findings) {
    let file = options.file.as_deref();
    let user = ServiceUser::of(host, file, &options.given);
    for closed in user.map(|user| user.closed(file, config)).unwrap_or_default() {
        if closed.ends_start { findings.failed(closed) } else { findings.warn(closed.to_string()) }
    }
}

/// What the proxy says at its start, and goes on; and what its first sign-in would say of files.
fn warn(findings: &mut Findings, config: &Config) {
    if config.upstreams().iter().any(|upstream| matches!(upstream.identity().kind(), IdentityKind::Default)) {
        identity::passed_over().into_iter().for_each(|sentence| findings.warn(sentence));
    }
    config.doubts().into_iter().for_each(|doubt| findings.warn(doubt));
    for upstream in config.upstreams() {
        identity::unreadable(upstream.identity().kind()).into_iter().for_each(|sentence| findings.warn(sentence));
    }
    alarm::doubt(&config.notify().command).into_iter().for_each(|sentence| findings.warn(sentence));
    for listener in config.listeners() {
        let end = listener.tls.as_ref().and_then(|files| certificate::check(files).ok());
        let url = listener.endpoint.to_string();
        end.and_then(|end| announce::ended(&url, end)).into_iter().for_each(|ended| findings.warn(ended));
        let address = listener.endpoint.address();
        address
            .and_then(|address| announce::exposed(listener, address, config.access().access.asks_for_names()))
            .into_iter()
            .for_each(|exposed| findings.warn(exposed));
    }
    absent(config).into_iter().for_each(|sentence| findings.warn(sentence));
    config.admin().and_then(announce::exposed_admin).into_iter().for_each(|exposed| findings.warn(exposed));
}
