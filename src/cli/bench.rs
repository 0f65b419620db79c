//! `bench`: the flags that name the two sides; those of the run are parsed by the benchmark itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use acr_bench::{Options, Origin, parse_flag, parse_time};
use clap::Args;
use oci::name::Prefix;
use oci::route::Blobs;

use super::exit::{Exit, mistake};
use super::taken::TakenFlags;
use crate::bench::{IMAGE, Target};
use crate::client_tls::Presented;
use crate::config::{self, Config, Domain};
use crate::service_variables::{self, Told};

pub(super) const EXAMPLES: &str = "\
Examples:
  acr-cache-proxy bench --image library/nginx:1.27 --via http://127.0.0.1:8080 --direct example.azurecr.io/hub
      50 pulls through the proxy and 50 direct ones, in turns.
  acr-cache-proxy bench ... --concurrency 1,8,64 --cold --warm --html report.html
      Six loads one after the other, with and without kept connections, and plots.
  acr-cache-proxy bench ... --rate 20 --duration 1m --layers head
      20 pulls a second begin on each side whatever happens; a pull that has to wait counts its wait.
  acr-cache-proxy bench --emulated --rtt 20ms
      The same without Azure: emulator, proxy and delay are built in.

A direct pull does what docker does: GET /v2/, the token that the challenge asks for by the registry's refresh token,
HEAD of the tag, index, manifest and config by digest, layers three at a time, redirects followed to blob storage.
A pull through the proxy does the same without any credentials. Content is checked by its digest and thrown away.

Phases do not overlap: a request counts from when its connection stands, and connecting is a phase of its own. Each
image is pulled once on each side, without its layers, before the run. Ctrl-C or SIGTERM ends the run and prints what
there is. Exit status: 0 with a report; 1 if the run cannot begin, the report cannot be written or more pulls of a side
fail than succeed; 2 for a wrong flag, or a report that could not be written where it says.";

/// A neighbouring region.
const DEFAULT_RTT: Duration = Duration::from_millis(20);
/// Longer than any path on Earth; more is a mistake.
const MAX_RTT: Duration = Duration::from_secs(2);
/// The text is left out because it holds a password.
const NO_CREDENTIALS: &str = "an address has no user name or password here";

#[derive(Args, Clone, Debug, Default)]
pub(super) struct BenchFlags {
    /// The proxy, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// The registry and the cache rule's prefix, such as example.azurecr.io/hub, pulled from as docker does
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    direct: Option<String>,
    /// The proxy's configuration file, for the identity of direct pulls [default: the default chain]. Unless the environment says who
    /// signs in, the variables of the sign-in are those of the file environment beside it, as for the service
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A PEM file of private CA certificates, trusted besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A PEM file of the certificate that the proxy of --via asks for (client_auth), with its chain
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// A PEM file of its private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    run: acr_bench::Flags,
    /// Measure against the built-in emulator of Azure, with a proxy of its own; nothing else is needed
    #[arg(long)]
    emulated: bool,
    /// The round-trip time to the emulator [default: 20ms]
    #[arg(long, value_name = "TIME")]
    rtt: Option<String>,
    /// How the emulator's proxy serves blobs, as in its settings: redirect, proxy_config or proxy [default: redirect]
    #[arg(long, value_name = "HOW")]
    blobs: Option<String>,
    #[command(flatten)]
    taken: TakenFlags,
}

/// What to measure. The error has all mistakes.
pub(super) fn parse(mut flags: BenchFlags) -> Result<(Options, Target), Exit> {
    let mut mistakes = Vec::new();
    // Before files are read: one that is a pipe is read once, and this may start the program anew.
    let taken = std::mem::take(&mut flags.taken).parse();
    let signs_in = flags.direct.is_some() && !flags.emulated;
    let variables = service_variables::take(flags.config.as_deref().filter(|_| signs_in), taken.as_ref());
    let emulated = flags.emulated.then(|| emulated(&mut flags, &mut mistakes));
    let options = Options::parse(&flags.run, &mut mistakes);
    let target = emulated.unwrap_or_else(|| named(&flags, variables, &mut mistakes));
    match (options, target) {
        (Some(options), Some(target)) if mistakes.is_empty() => Ok((options, target)),
        _ => Err(mistake(&mistakes.join("\n"))),
    }
}

fn emulated(flags: &mut BenchFlags, mistakes: &mut Vec<String>) -> Option<Target> {
    let given = [
        ("--image", !flags.run.images.is_empty()),
        ("--mix", flags.run.mix.take().is_some()),
        ("--via", flags.via.is_some()),
        ("--direct", flags.direct.is_some()),
        ("--config", flags.config.is_some()),
        ("--ca-file", flags.ca_file.is_some()),
        ("--certificate", flags.certificate.is_some()),
        ("--key", flags.key.is_some()),
    ];
    for (name, _) in given.iter().filter(|(_, given)| *given) {
        mistakes.push(format!("{name}: has no effect with --emulated, which brings its own: leave one of them out"));
    }
    flags.run.images = vec![IMAGE.to_owned()];
    let rtt = match &flags.rtt {
        Some(text) => parse_flag("--rtt", Some(text), |text| parse_time(text, MAX_RTT), mistakes),
        None => Some(DEFAULT_RTT),
    };
    let blobs = match &flags.blobs {
        Some(text) => parse_flag("--blobs", Some(text), config::parse_blobs, mistakes),
        None => Some(Blobs::default()),
    };
    Some(Target::Emulated { blobs: blobs?, rtt: rtt? })
}

fn named(flags: &BenchFlags, variables: Vec<Told>, mistakes: &mut Vec<String>) -> Option<Target> {
    if flags.rtt.is_some() {
        mistakes.push("--rtt: has no effect without --emulated: the network has its own round-trip time".to_owned());
    }
    if flags.blobs.is_some() {
        mistakes.push("--blobs: has no effect without --emulated: it is a setting of the proxy".to_owned());
    }
    let via = parse_flag("--via", flags.via.as_deref(), parse_via, mistakes);
    let direct = parse_flag("--direct", flags.direct.as_deref(), parse_direct, mistakes);
    if flags.via.is_none() && flags.direct.is_none() {
        mistakes.push(
            "nothing to measure: set --via, such as --via http://127.0.0.1:8080, or --direct, such as --direct example.azurecr.io/hub, or both, or --emulated".to_owned(),
        );
    }
    let presented = Presented::of_flags(flags.certificate.clone(), flags.key.clone());
    let presented = presented.map_err(|sentence| mistakes.push(sentence.to_owned())).ok().flatten();
    if presented.is_some() && !via.as_ref().is_some_and(Origin::is_tls) {
        let sentence = "--certificate: a proxy asks for one over TLS only: give --via as https://";
        mistakes.push(sentence.to_owned());
    }
    if flags.direct.is_none() && flags.config.is_some() {
        mistakes.push("--config: has no effect without --direct: only direct pulls sign in from here".to_owned());
    }
    let direct = match direct {
        Some((domain, prefix)) => Some(load(flags, &domain, &prefix, mistakes)?),
        None => None,
    };
    // The one of the settings is for the registry, and the flag's may be for the proxy.
    let of_settings = direct.as_ref().and_then(|config| config.ca_file().map(Path::to_owned));
    let ca_files = of_settings.into_iter().chain(flags.ca_file.clone()).collect();
    Some(Target::Named { via, presented, direct: direct.map(Box::new), ca_files, variables })
}

/// The identity and the addresses in the proxy's file, for the registry that the flag names.
fn load(flags: &BenchFlags, domain: &Domain, prefix: &Prefix, mistakes: &mut Vec<String>) -> Option<Config> {
    let given = config::Flags::default()
        .with_file(flags.config.clone())
        .with_upstream(domain.authority(), prefix.as_str())
        .in_place_of_routes();
    Config::load(&given).map_err(|wrong| mistakes.extend(wrong.to_string().lines().map(str::to_owned))).ok()
}

fn parse_via(text: &str) -> Result<Origin, String> {
    if text.contains('@') {
        return Err(format!("{NO_CREDENTIALS}: the proxy asks for none"));
    }
    match Origin::parse_url(text) {
        Some((origin, path)) if path == "/" => Ok(origin),
        _ => Err(format!(
            "{text:?} is not the address of a proxy: use scheme, host and port, such as http://127.0.0.1:8080"
        )),
    }
}

fn parse_direct(text: &str) -> Result<(Domain, Prefix), String> {
    if text.contains('@') {
        return Err(format!("{NO_CREDENTIALS}: --config says who signs in"));
    }
    if text.contains("://") {
        return Err(format!("{text:?} has a scheme: use login server and prefix, such as example.azurecr.io/hub"));
    }
    let (domain, prefix) = text.split_once('/').unwrap_or((text, ""));
    let prefix = Prefix::parse(prefix).ok_or_else(|| {
        format!("{prefix:?} is not a repository path: use the cache rule's target without its /*, such as example.azurecr.io/hub")
    })?;
    Ok((Domain::parse(domain)?, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> BenchFlags {
        let run = acr_bench::Flags { images: vec!["library/nginx:1.27".to_owned()], ..acr_bench::Flags::default() };
        BenchFlags { run, via: Some("http://127.0.0.1:8080".to_owned()), ..BenchFlags::default() }
    }

    #[test]
    fn every_mistake_in_the_sides_is_a_sentence() {
        let some = |text: &str| Some(text.to_owned());
        for (flags, says) in [
            (BenchFlags { via: None, ..flags() }, "nothing to measure: set --via"),
            (
                BenchFlags { via: some("127.0.0.1:8080"), ..flags() },
                "--via: \"127.0.0.1:8080\" is not the address of a proxy",
            ),
            (
                BenchFlags { via: some("http://a/hub"), ..flags() },
                "--via: \"http://a/hub\" is not the address of a proxy",
            ),
            (BenchFlags { direct: some("https://a/hub"), ..flags() }, "--direct: \"https://a/hub\" has a scheme"),
            (BenchFlags { direct: some("a.azurecr.io/Hub"), ..flags() }, "--direct: \"Hub\" is not a repository path"),
            (BenchFlags { direct: some("a_b/hub"), ..flags() }, "--direct: \"a_b\" is not a host name"),
            (
                BenchFlags { via: some("http://user:pass@a/"), ..flags() },
                "--via: an address has no user name or password",
            ),
            (BenchFlags { direct: some("user:pass@a.azurecr.io"), ..flags() }, "--direct: an address has no user name"),
            (BenchFlags { certificate: Some("x".into()), ..flags() }, "--certificate: it is presented with its key"),
            (BenchFlags { key: Some("x".into()), ..flags() }, "--key: it belongs to a certificate"),
            (
                BenchFlags { certificate: Some("x".into()), key: Some("y".into()), ..flags() },
                "--certificate: a proxy asks for one over TLS only",
            ),
            (BenchFlags { emulated: true, key: Some("y".into()), ..flags() }, "--key: has no effect with --emulated"),
            (BenchFlags { rtt: some("20ms"), ..flags() }, "--rtt: has no effect without --emulated"),
            (BenchFlags { blobs: some("proxy"), ..flags() }, "--blobs: has no effect without --emulated"),
            (
                BenchFlags { emulated: true, blobs: some("x"), ..BenchFlags::default() },
                "--blobs: unknown value \"x\": use redirect, proxy_config or proxy",
            ),
            (BenchFlags { emulated: true, ..flags() }, "--image: has no effect with --emulated"),
            (BenchFlags { config: Some("x.yaml".into()), ..flags() }, "--config: has no effect without --direct"),
        ] {
            let mistakes = parse(flags).expect_err(says).message;
            assert!(mistakes.lines().any(|mistake| mistake.starts_with(says)), "{says}: {mistakes:?}");
            assert!(!mistakes.contains("user:pass"), "{mistakes:?}");
        }
    }
}
