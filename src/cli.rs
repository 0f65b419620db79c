//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::bench::flags::Flags as BenchFlags;
use crate::bench::options::Options as BenchOptions;
use crate::client_config::{self, Client, Mirror, Task};
use crate::config::{self, Config, Flags};

/// A wrong flag or setting.
pub const WRONG: u8 = 2;
/// What `--version` says behind the program's name; build.rs finds the commit and the features.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ACR_CACHE_PROXY_BUILD"), ")");
/// An own default, so that a proxy on the usual port does not keep the demo from starting.
const DEMO_LISTEN: &str = "127.0.0.1:0";

const EXAMPLES: &str = "\
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

const BENCH_EXAMPLES: &str = "\
Examples:
  acr-cache-proxy bench --image library/nginx:1.27 --via http://127.0.0.1:8080 --direct example.azurecr.io/hub
      50 pulls through the proxy and 50 direct ones, in turns.
  acr-cache-proxy bench ... --concurrency 1,8,64 --cold --warm --html report.html
      Six loads one after the other, with and without kept connections, and plots.
  acr-cache-proxy bench ... --rate 20 --duration 1m --layers head
      20 pulls a second begin on each side whatever happens; a pull that has to wait counts its wait.
  acr-cache-proxy bench --emulated --rtt 20ms
      The same without Azure: stand-in, proxy and distance are built in.

A direct pull does what docker does: GET /v2/, the token that the challenge asks for by the registry's refresh token,
HEAD of the tag, index, manifest and config by digest, layers by three at a time, redirects followed to blob storage.
A pull through the proxy does the same without any credentials. Content is checked by its digest and thrown away.

Phases do not overlap: a request counts from when its connection stands, and connecting is a phase of its own. Each
image is pulled once on each side, without its layers, before the run. Ctrl-C or SIGTERM ends the run and prints what
there is. Exit status: 0 with a report; 1 if the run cannot begin, the report cannot be written or no pull of a side
succeeds; 2 for a wrong flag, or a report that could not be written where it says.";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Run the proxy; the texts are worth a warning each.
    Serve(Box<Config>, Vec<String>),
    /// Show a pull.
    Demo(DemoOptions),
    /// Show a client's files, put them in place or remove them.
    ClientConfig(client_config::Task),
    /// Measure pulls.
    Bench(Box<BenchOptions>),
}

/// Settings of the demo.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Where its proxy listens.
    pub listen: SocketAddr,
    /// End after the pull.
    pub once: bool,
}

/// The program ends here, with these words.
#[derive(Debug)]
pub struct Exit {
    /// A line for each sentence.
    pub message: String,
    /// Asked for, as by `--help`.
    pub to_stdout: bool,
    /// The exit status.
    pub status: u8,
}

/// Pull images through Azure Container Registry's cache, signed in with the machine's own identity
#[derive(Parser)]
#[command(name = "acr-cache-proxy", version = VERSION, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the proxy; this is what happens without a subcommand, too
    #[command(after_help = EXAMPLES)]
    Serve(ServeArguments),
    /// Show a pull through the proxy without Azure: a stand-in for it is built in
    Demo(DemoArguments),
    /// Show the files with which a container client pulls through the proxy, or put them in place
    ClientConfig(ClientConfigArguments),
    /// Measure pulls through a proxy against direct pulls, in turns
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<BenchFlags>),
}

// All values are texts here: what they have to be is said by config, in the same words as for the file.
#[derive(Args)]
struct ServeArguments {
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
    /// Has no effect; accepted because older command lines have it
    #[arg(long, value_name = "HOST")]
    masquerade_domain: Option<String>,
}

#[derive(Args)]
struct DemoArguments {
    /// Where the proxy listens [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", default_value = DEMO_LISTEN, hide_default_value = true)]
    listen_address: String,
    /// End after the pull, with status 0 if it went well
    #[arg(long)]
    once: bool,
}

#[derive(Args)]
struct ClientConfigArguments {
    /// docker, containerd, podman (and buildah, skopeo, CRI-O), buildkit or kubernetes
    client: Option<String>,
    // As an attribute: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "URL",
        help = "Where clients reach the proxy, as http://HOST[:PORT] or https:// [default: where it listens]"
    )]
    mirror: Option<String>,
    /// Put the files in place, but never over a file that this program did not write
    #[arg(long)]
    write: bool,
    /// Also remove files that this program wrote for routes that are gone; without --write, only list them
    #[arg(long)]
    prune: bool,
    /// Remove every file that this program wrote for the client; without --write, only list them; needs no settings
    #[arg(long)]
    remove: bool,
    /// The directory below which files are, such as the tree of an image [default: /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    serve: ServeArguments,
}

/// Takes the arguments, the program's name first. `Err` holds what to print and the exit status.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let arguments: Vec<_> = arguments.into_iter().map(two_dashes).collect();
    let command = arguments.get(1).and_then(|word| word.to_str());
    let arguments = Arguments::try_parse_from(&arguments).map_err(|error| exit(&error, command))?;
    let serve = match arguments.command {
        Some(Subcommands::Demo(demo)) => {
            let listen = config::parse_listen(&demo.listen_address)
                .map_err(|wrong| mistake(&format!("--listen-address: {wrong}\n")))?;
            return Ok(Command::Demo(DemoOptions { listen, once: demo.once }));
        }
        Some(Subcommands::ClientConfig(arguments)) => return client_config(arguments),
        Some(Subcommands::Bench(flags)) => {
            let options = BenchOptions::parse(*flags).map_err(|mistakes| mistake(&mistakes.join("\n")))?;
            return Ok(Command::Bench(Box::new(options)));
        }
        Some(Subcommands::Serve(serve)) => serve,
        None => arguments.serve,
    };
    let mut notices = Vec::new();
    if serve.masquerade_domain.is_some() {
        notices.push(
            "--masquerade-domain has no effect: clients are never sent to sign in, so there is no address to change"
                .to_owned(),
        );
    }
    let config = load(serve)?;
    Ok(Command::Serve(Box::new(config), notices))
}

fn load(serve: ServeArguments) -> Result<Config, Exit> {
    let flags = Flags {
        config: serve.config,
        listen: serve.listen_address,
        admin: serve.admin_address,
        domain: serve.upstream_domain,
        prefix: serve.upstream_prefix,
        ca_file: serve.ca_file,
        threads: serve.threads,
        log: serve.log,
        rust_log: std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty()),
    };
    Config::load(&flags).map_err(|mistakes| mistake(&mistakes.to_string()))
}

fn client_config(arguments: ClientConfigArguments) -> Result<Command, Exit> {
    let ClientConfigArguments { client, mirror, write, prune, remove, root, serve } = arguments;
    let wrong = |sentence: String| mistake(&format!("{sentence}\n"));
    let client = client.ok_or_else(|| {
        wrong("client-config: name the client: docker, containerd, podman, buildkit or kubernetes".to_owned())
    })?;
    let client = Client::parse(&client).map_err(|sentence| wrong(format!("client-config: {sentence}")))?;
    if root.is_some() && !(write || prune || remove) {
        return Err(wrong("--root is where --write puts the files: give both, or none to see them".to_owned()));
    }
    let root = root.unwrap_or_else(|| PathBuf::from("/"));
    if prune && remove {
        return Err(wrong("--remove removes what --prune would and all the rest: give one of them".to_owned()));
    }
    if remove {
        return Ok(Command::ClientConfig(Task::Remove { client, root, write }));
    }
    let mirror = mirror.map(|url| Mirror::parse(&url).map_err(|sentence| wrong(format!("--mirror: {sentence}"))));
    let mirror = mirror.transpose()?;
    let config = load(serve)?;
    let mirror = mirror.map_or_else(|| Mirror::at(config.listen()).map_err(wrong), Ok)?;
    let setup = client_config::setup(client, &config, &mirror).map_err(wrong)?;
    Ok(Command::ClientConfig(if write {
        Task::Write { setup, root, prune }
    } else {
        Task::Show(setup, prune.then_some(root))
    }))
}

/// Go's flags take one dash or two; a command line of the Go program works as it is, and so does every other long flag with
/// one dash. A short flag has one letter, and no value begins with a dash.
fn two_dashes(argument: OsString) -> OsString {
    let is_long = |name: &str| name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic());
    match argument.to_str().filter(|text| text.strip_prefix('-').is_some_and(is_long)) {
        Some(text) => format!("-{text}").into(),
        None => argument,
    }
}

fn mistake(sentences: &str) -> Exit {
    Exit { message: sentences.trim_end().to_owned() + "\n", to_stdout: false, status: WRONG }
}

/// clap's error as one sentence; what was asked for by `--help` or `--version` as it is. `first` is the first word, which is
/// the command if there is one.
fn exit(error: &clap::Error, first: Option<&str>) -> Exit {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
    let program = Arguments::command();
    let command = first.and_then(|first| program.find_subcommand(first));
    let sentence = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return Exit { message: error.to_string(), to_stdout: true, status: 0 };
        }
        ErrorKind::UnknownArgument if !argument.starts_with('-') => match command.map(clap::Command::get_name) {
            Some("client-config") => {
                format!("{argument:?} is one word too many: client-config takes one client, and flags")
            }
            Some(name) => format!("{argument:?} is one word too many: {name} takes flags only"),
            None => format!("{argument:?} is one word too many: all settings are flags"),
        },
        ErrorKind::UnknownArgument => {
            let name = argument.trim_start_matches('-');
            let has = |command: &&clap::Command| command.get_arguments().any(|known| known.get_long() == Some(name));
            let owners: Vec<_> = program.get_subcommands().filter(has).map(clap::Command::get_name).collect();
            let of_command = command.map(|command| format!(" of {}", command.get_name())).unwrap_or_default();
            let right = match text(ContextKind::SuggestedArg) {
                Some(near) => format!(": did you mean {near}?"),
                None if owners.is_empty() => String::new(),
                None => format!(": it is one of {}", owners.join(", ")),
            };
            format!("there is no flag {argument}{of_command}{right}")
        }
        ErrorKind::InvalidSubcommand => {
            format!("there is no command {word:?}: there are serve, client-config, bench and demo")
        }
        ErrorKind::InvalidValue => format!("{argument} needs a value"),
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::ArgumentConflict if program.find_subcommand(&word).is_some() => {
            format!("the command {word} comes before its flags: acr-cache-proxy {word} --flag ...")
        }
        ErrorKind::ArgumentConflict if !word.is_empty() => {
            format!("{word:?} is one word too many: all settings are flags")
        }
        ErrorKind::ArgumentConflict => format!("{argument} is given twice"),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    mistake(&format!("{sentence}\nsee acr-cache-proxy --help"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, Exit> {
        parse(std::iter::once("acr-cache-proxy").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_go_programs_command_line_works_in_all_its_spellings() {
        for line in [
            "--upstream-domain example.azurecr.io --upstream-prefix hub --listen-address :8081",
            "-upstream-domain example.azurecr.io -upstream-prefix=hub -listen-address :8081",
            "serve --upstream-domain=example.azurecr.io --upstream-prefix=hub --listen-address=:8081",
        ] {
            let Ok(Command::Serve(config, notices)) = run(line) else { panic!("{line}") };
            assert_eq!(config.upstreams()[0].domain().host(), "example.azurecr.io", "{line}");
            assert_eq!(config.routes().iter().next().expect("a route").prefix.as_str(), "hub", "{line}");
            assert_eq!(config.listen().port(), 8081, "{line}");
            assert!(notices.is_empty(), "{line}");
        }
        let Ok(Command::Serve(_, notices)) = run("--upstream-domain a.azurecr.io --masquerade-domain b") else {
            panic!()
        };
        assert!(notices.len() == 1 && notices[0].contains("--masquerade-domain has no effect"), "{notices:?}");
    }

    #[test]
    fn a_wrong_flag_is_one_sentence_and_status_2() {
        for (line, says) in [
            ("--upstream-domian a.azurecr.io", "there is no flag --upstream-domian: did you mean --upstream-domain?"),
            ("--listen-address", "--listen-address <ADDRESS> needs a value"),
            (
                "--upstream-domain a.azurecr.io --listen-address 8080",
                "--listen-address: \"8080\" is no address to listen on",
            ),
            (
                "--upstream-domain a.azurecr.io --upstream-prefix Hub",
                "--upstream-prefix: \"Hub\" is no repository path",
            ),
            ("--upstream-domain https://a.azurecr.io/", "--upstream-domain: \"https://a.azurecr.io/\" has a scheme"),
            ("--upstream-domain a.azurecr.io --log loud", "--log: \"loud\" is no log filter"),
            ("", "the registry is not named: set --upstream-domain"),
            ("start", "there is no command \"start\""),
            ("demo --listen-address here", "--listen-address: \"here\" is no address to listen on"),
            ("bench", "no image is named: give --image"),
            ("bench --image X --via http://a", "--image: \"X\" is no image"),
            ("bench --imgae x", "there is no flag --imgae of bench: did you mean --image?"),
            ("--once", "there is no flag --once: it is one of demo"),
            ("-write", "there is no flag --write: it is one of client-config"),
            ("demo --config f", "there is no flag --config of demo: it is one of serve, client-config, bench"),
            ("-upstream-domian=a", "there is no flag --upstream-domian: did you mean --upstream-domain?"),
            ("-x", "there is no flag -x\n"),
            ("--config f demo", "the command demo comes before its flags: acr-cache-proxy demo --flag ..."),
            ("--config f client-config docker", "the command client-config comes before its flags: "),
            ("--upstream-domain a.azurecr.io extra", "\"extra\" is one word too many: all settings are flags"),
            ("serve extra", "\"extra\" is one word too many: serve takes flags only"),
            ("bench extra", "\"extra\" is one word too many: bench takes flags only"),
            (
                "client-config docker podman",
                "\"podman\" is one word too many: client-config takes one client, and flags",
            ),
            ("demo --once=yes", "--once takes no value"),
            ("--config f --config g", "--config <FILE> is given twice"),
            ("client-config", "client-config: name the client: docker, "),
            ("client-config oci", "client-config: \"oci\" is no client that is known: give docker, "),
            ("client-config docker", "the registry is not named: set --upstream-domain"),
            (
                "client-config docker --upstream-domain a.azurecr.io --listen-address :0",
                "listen: [::]:0 has a port only once the proxy runs",
            ),
            (
                "client-config docker --upstream-domain a.azurecr.io --mirror mirror.internal",
                "--mirror: \"mirror.internal\" is no address of a mirror",
            ),
            ("client-config docker --upstream-domain a.azurecr.io --root /tmp", "--root is where --write puts"),
            ("client-config docker --prune --remove", "--remove removes what --prune would"),
            ("client-config docker --wirte", "there is no flag --wirte of client-config: did you mean --write?"),
        ] {
            let exit = run(line).expect_err(line);
            assert!(exit.message.starts_with(says), "{line}: {}", exit.message);
            assert!(!exit.to_stdout && exit.status == 2, "{line}");
        }
    }

    /// The long flags of a command, each as its parser wants it: with a value if it takes one.
    fn long_flags(command: &clap::Command) -> Vec<String> {
        let long = |argument: &clap::Arg| {
            let value = if argument.get_action().takes_values() { "=x" } else { "" };
            argument.get_long().map(|name| format!("{name}{value}"))
        };
        command.get_arguments().filter_map(long).collect()
    }

    #[test]
    fn every_long_flag_of_every_command_may_have_one_dash() {
        let mut program = Arguments::command();
        // Only this adds --help and --version.
        program.build();
        let mut commands = vec![(String::new(), long_flags(&program))];
        commands
            .extend(program.get_subcommands().map(|command| (format!("{} ", command.get_name()), long_flags(command))));
        let mut seen = 0;
        for (command, flags) in commands {
            for flag in flags {
                let said = |dashes: &str| match run(&format!("{command}{dashes}{flag}")) {
                    Ok(command) => format!("{command:?}"),
                    Err(exit) => exit.message,
                };
                let (one, two) = (said("-"), said("--"));
                assert_eq!(one, two, "{command}{flag}");
                assert!(!one.contains("there is no flag"), "{command}{flag}: {one}");
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn clients_are_known_by_their_programs_names() {
        for (client, other) in [
            ("podman", &["crio", "cri-o", "CRI-O", "buildah", "skopeo"][..]),
            ("kubernetes", &["k8s"]),
            ("docker", &["dockerd"]),
            ("buildkit", &["buildkitd", "buildx"]),
        ] {
            for name in other {
                let setup = |name: &str| {
                    let line = format!("client-config {name} --upstream-domain a.azurecr.io");
                    let Ok(Command::ClientConfig(Task::Show(setup, None))) = run(&line) else { panic!("{line}") };
                    setup
                };
                assert_eq!(setup(name), setup(client), "{name}");
            }
        }
    }

    /// Neither the commit nor the features are fixed: an archive has no repository, and a packager may choose.
    #[test]
    fn the_version_has_the_commit_and_the_features() {
        let message = run("--version").expect_err("it only prints").message;
        let rest = message.strip_prefix(concat!("acr-cache-proxy ", env!("CARGO_PKG_VERSION"), " (")).expect("number");
        let (commit, features) =
            rest.strip_suffix(")\n").and_then(|rest| rest.split_once("; features: ")).expect("both");
        assert!(!commit.is_empty() && !features.is_empty(), "{message}");
        assert_eq!(run("-V").expect_err("it only prints").message, message);
    }

    #[test]
    fn help_and_version_go_to_standard_output() {
        for (line, says) in [
            ("--help", "Examples:"),
            ("serve --help", "Examples:"),
            ("client-config --help", "--write"),
            ("bench --help", "--emulated"),
            ("--version", VERSION),
        ] {
            let exit = run(line).expect_err(line);
            assert!(exit.to_stdout && exit.status == 0 && exit.message.contains(says), "{line}: {}", exit.message);
        }
    }
}
