//! `init`: what is known without a question, and what is not to be done.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, expect_root, mistake};
use crate::config::{parse_admin, parse_listen};
use crate::init::{Options, Rule, Settings, Step};

pub(super) const EXAMPLES: &str = "\
Examples:
  acr-cache-proxy init
      Asks for the registry and its cache rule, shows each step, and asks before it is done.
  acr-cache-proxy init --registry example.azurecr.io --prefix hub --yes
      The same without a question, for scripts.
  acr-cache-proxy init --registry example.azurecr.io --source docker.io --prefix hub --source ghcr.io --prefix ghcr
      For two cache rules, docker.io/* => hub/* and ghcr.io/* => ghcr/*.

The steps are: try the way to the registry, write /etc/acr-cache-proxy/config.yaml, start the service, write the files of the
container engines of this host. Variables of the sign-in are those of /etc/acr-cache-proxy/environment, as for the service.

Exit status: 0 if what was agreed to is done, 1 if something is left to do, which the last lines say, such as the start of the
proxy where no service manager could do it, 2 for a wrong flag.";

/// The flags of `init`.
#[derive(Args)]
pub(super) struct InitFlags {
    /// The registry's login server, such as example.azurecr.io [default: asked for, or that of the configuration]
    // By the name of the setting, too: who types that means this.
    #[arg(long, alias = "upstream-domain", value_name = "HOST")]
    registry: Option<String>,
    /// The target of the cache rule, such as hub or hub/*; once for each --source
    #[arg(long = "prefix", alias = "upstream-prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// The registry whose images the cache rule is for, such as ghcr.io or ghcr.io/*; once for each rule [default: docker.io]
    #[arg(long = "source", value_name = "REGISTRY")]
    sources: Vec<String>,
    /// The client id of a user-assigned managed identity [default: the first identity that this host has]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Where the proxy listens for the engines of this host [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen_address: Option<String>,
    /// Where it answers doctor, readiness and metrics [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    admin_address: Option<String>,
    /// Do every step without asking, but never replace a configuration that somebody has edited
    #[arg(long)]
    yes: bool,
    /// Also replace a configuration that somebody has edited; a copy of it is kept
    #[arg(long)]
    replace: bool,
    /// Leave a step out: try, service or engines; may be repeated. Without service, engines come only to a proxy that runs
    #[arg(long = "skip", value_name = "STEP")]
    skips: Vec<String>,
    /// The directory below which all files are, such as the tree of an image; nothing is started there [default: /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// What to do.
pub(super) fn parse(flags: InitFlags) -> Result<Options, Exit> {
    let InitFlags { registry, prefixes, sources, client_id, listen_address, admin_address, yes, replace, skips, root } =
        flags;
    let mut wrong = Vec::new();
    let mut note = |flag: &str, sentence: String| wrong.push(format!("{flag}: {sentence}"));
    let is_about_settings = !prefixes.is_empty()
        || !sources.is_empty()
        || client_id.is_some()
        || replace
        || listen_address.is_some()
        || admin_address.is_some();
    if is_about_settings && registry.is_none() {
        note(
            "--registry",
            "name the registry beside --prefix, --source, --client-id, --listen-address, --admin-address and --replace"
                .to_owned(),
        );
    }
    let count = sources.len().max(1);
    if !prefixes.is_empty() && prefixes.len() != count || prefixes.is_empty() && !sources.is_empty() {
        let sentence = format!("{} of them for {count} of --source: give one for each", prefixes.len());
        note("--prefix", sentence);
    }
    if yes && registry.is_some() && prefixes.is_empty() && sources.is_empty() {
        note("--prefix", "--yes asks nothing: give the target of the cache rule, such as hub".to_owned());
    }
    let registry = registry.map(|text| Settings::parse_registry(&text)).transpose();
    let registry = registry.map_err(|sentence| note("--registry", sentence)).ok().flatten();
    let client_id = client_id.map(|text| Settings::parse_client_id(&text)).transpose();
    let client_id = client_id.map_err(|sentence| note("--client-id", sentence)).ok().flatten();
    let listen = listen_address.map(|text| parse_listen(&text)).transpose();
    let listen = listen.map_err(|sentence| note("--listen-address", sentence)).ok().flatten();
    let admin = admin_address.map(|text| parse_admin(&text)).transpose();
    let admin = admin.map_err(|sentence| note("--admin-address", sentence)).ok().flatten();
    let sources = if sources.is_empty() { vec![Rule::HUB.to_owned()] } else { sources };
    let mut rules = Vec::new();
    for (source, prefix) in sources.iter().zip(&prefixes) {
        let source = Rule::parse_source(source, &rules).map_err(|sentence| note("--source", sentence));
        let prefix = Rule::parse_prefix(prefix).map_err(|sentence| note("--prefix", sentence));
        rules.extend(source.ok().zip(prefix.ok()).map(|(source, prefix)| Rule { source, prefix }));
    }
    let skips: Vec<_> = skips
        .iter()
        .filter_map(|text| Step::parse_skipped(text).map_err(|sentence| note("--skip", sentence)).ok())
        .collect();
    if !wrong.is_empty() {
        return Err(mistake(&wrong.join("\n")));
    }
    let root = root.unwrap_or_else(|| PathBuf::from("/"));
    expect_root(&root)?;
    Ok(Options { registry, rules, client_id, listen, admin, yes, replace, skip: skips, root })
}
