//! `serve`: the flags of the proxy itself, which `client-config` has as well.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, mistake};
use crate::config::{Config, Flags};

pub(super) const EXAMPLES: &str = "\
Examples:
  acr-cache-proxy --upstream-domain example.azurecr.io --upstream-prefix hub
      Pulls from http://127.0.0.1:8080 go to example.azurecr.io/hub/..., signed in with this machine's identity.
  acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml
      The same from a file.
  acr-cache-proxy demo --once
      A pull through this program, against a stand-in for Azure that is built in.
  acr-cache-proxy client-config containerd --config /etc/acr-cache-proxy/config.yaml
      The files with which containerd pulls through the proxy; --write puts them in place.

The identity comes from AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH or
AZURE_FEDERATED_TOKEN_FILE, or else is the machine's managed identity or who is signed in to the Azure CLI.";
// All values are texts here: what they have to be is said by config, in the same words as for the file.
#[derive(Args)]
pub(super) struct ServeFlags {
    /// The registry's login server, such as example.azurecr.io, with a port if it is not 443
    #[arg(long, value_name = "HOST[:PORT]")]
    upstream_domain: Option<String>,
    /// What goes before every repository name: the cache rule's target without its /* [default: none]
    #[arg(long, value_name = "PATH")]
    upstream_prefix: Option<String>,
    // As an attribute: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "Where to listen: 127.0.0.1:8080, [::1]:8080, or :8080 for every address [default: 127.0.0.1:8080]"
    )]
    listen_address: Option<String>,
    /// Where /healthz and /readyz answer; :8081 is 127.0.0.1:8081 [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<String>,
    /// A YAML file of settings; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A PEM file of private CA certificates, trusted besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How many threads carry requests [default: 1, or 2 where a route has blobs: proxy]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<String>,
    /// A log level, or a list such as warn,access=info; RUST_LOG does the same [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Has no effect; accepted because command lines of the Go program have it
    #[arg(long, value_name = "HOST")]
    masquerade_domain: Option<String>,
}

/// The settings, and a warning for each flag that has no effect.
pub(super) fn parse(flags: ServeFlags) -> Result<(Config, Vec<String>), Exit> {
    let mut warnings = Vec::new();
    if flags.masquerade_domain.is_some() {
        warnings.push(
            "--masquerade-domain has no effect: clients are never sent to sign in, so there is no address to change"
                .to_owned(),
        );
    }
    Ok((load(flags)?, warnings))
}

/// The settings that these flags and the file that they name give.
pub(super) fn load(flags: ServeFlags) -> Result<Config, Exit> {
    let given = Flags {
        config: flags.config,
        listen: flags.listen_address,
        admin: flags.admin_address,
        domain: flags.upstream_domain,
        prefix: flags.upstream_prefix,
        ca_file: flags.ca_file,
        threads: flags.threads,
        log: flags.log,
        rust_log: std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty()),
    };
    Config::load(&given).map_err(|mistakes| mistake(&mistakes.to_string()))
}
