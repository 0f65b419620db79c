//! The command line: arguments become one command, whose settings are valid. A file a command.

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client_config::Task;
use crate::config::Flags;

#[cfg(feature = "bench")]
mod bench;
mod check;
mod client_config;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod exit;
mod generate;
mod init;
mod mirror;
#[cfg(not(all(feature = "bench", feature = "demo")))]
mod missing;
mod reload;
mod serve;
mod taken;
mod warm;

#[cfg(feature = "demo")]
pub(crate) use demo::DemoOptions;
pub(crate) use exit::{Exit, WRONG};
pub(crate) use generate::generate;
pub(crate) use serve::{Serve, read_again, read_for_service, read_to_check};

/// What `--version` says behind the program's name; build.rs finds the commit and the features.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ACR_CACHE_PROXY_BUILD"), ")");

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run the proxy.
    Serve(Box<Serve>),
    /// Have a running proxy read its settings again: the one with this process id, or the only one.
    Reload(Option<u32>),
    /// Check the settings that these flags give.
    Check(Box<(crate::check::Options, Flags)>),
    /// Look at the container engines of this host, for the settings that these flags give.
    Doctor(Box<(crate::doctor::Options, Flags)>),
    /// Prepare this host.
    Init(Box<crate::init::Options>),
    /// Show a pull.
    #[cfg(feature = "demo")]
    Demo(DemoOptions),
    /// Show, install or remove a client's files.
    ClientConfig(Task),
    /// Ask a proxy for images before a fleet does.
    Warm(crate::warm::Options),
    /// Write what a package has besides the program to this directory.
    Generate(std::path::PathBuf),
    /// Measure pulls to these two sides.
    #[cfg(feature = "bench")]
    Bench(Box<acr_bench::Options>, crate::bench::Target),
}

/// Pull images through Azure Container Registry's cache, signed in with the machine's own identity
#[derive(Parser)]
#[command(name = "acr-cache-proxy", version = VERSION, propagate_version = true)]
#[command(after_help = serve::examples(), args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    serve: serve::ServeFlags,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run the proxy; this is what happens without a subcommand, too
    #[command(after_help = serve::examples())]
    Serve(serve::ServeFlags),
    /// Have a running proxy read its settings again, and tell whether it took them
    #[command(after_help = reload::AFTER)]
    Reload(reload::ReloadFlags),
    /// Say what is wrong with the settings, and with --online where the way to the registry breaks
    #[command(after_help = check::examples(), mut_args(serve::hide_of_serve))]
    Check(Box<check::CheckFlags>),
    /// Say whether the container engines of this host pull through the proxy, and what to do where they do not
    #[command(after_help = doctor::examples(), mut_args(serve::hide_of_serve))]
    Doctor(Box<doctor::DoctorFlags>),
    /// Prepare this host: ask for the registry, try the way to it, write the configuration, start the service
    #[command(after_help = init::EXAMPLES)]
    Init(Box<init::InitFlags>),
    /// Show a pull through the proxy without Azure, against a built-in emulator
    #[cfg(feature = "demo")]
    Demo(demo::DemoFlags),
    /// Not in this build
    #[cfg(not(feature = "demo"))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Demo(missing::AnyArguments),
    /// Show the files with which a container client pulls through the proxy, or put them in place
    #[command(after_help = client_config::examples(), mut_args(serve::hide_of_serve))]
    ClientConfig(client_config::ClientConfigFlags),
    /// Pull images through a proxy before a roll-out, so that the registry imports them and the proxy has them ready
    #[command(after_help = warm::EXAMPLES)]
    Warm(warm::WarmFlags),
    /// Write the manual pages, the completions of shells and the schema of the configuration to a directory, for packages
    #[command(hide = true)]
    Generate(generate::GenerateFlags),
    /// Measure pulls through a proxy against direct pulls, in turns
    #[cfg(feature = "bench")]
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::BenchFlags>),
    /// Not in this build
    #[cfg(not(feature = "bench"))]
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    Bench(missing::AnyArguments),
}

/// Takes the arguments, the program's name first. `Err` holds what to print and the exit status.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let arguments: Vec<_> = arguments.into_iter().map(two_dashes).collect();
    let first = arguments.get(1).and_then(|word| word.to_str());
    let Program { command, serve } =
        Program::try_parse_from(&arguments).map_err(|error| exit::from_clap(&error, &Program::command(), first))?;
    match command.unwrap_or(Subcommands::Serve(serve)) {
        Subcommands::Serve(arguments) => serve::parse(arguments).map(|serve| Command::Serve(Box::new(serve))),
        Subcommands::Reload(flags) => reload::parse(flags).map(Command::Reload),
        Subcommands::Check(flags) => check::parse(*flags).map(|check| Command::Check(Box::new(check))),
        Subcommands::Doctor(flags) => doctor::parse(*flags).map(|doctor| Command::Doctor(Box::new(doctor))),
        Subcommands::Init(flags) => init::parse(*flags).map(|options| Command::Init(Box::new(options))),
        #[cfg(feature = "demo")]
        Subcommands::Demo(arguments) => demo::parse(&arguments).map(Command::Demo),
        #[cfg(not(feature = "demo"))]
        Subcommands::Demo(_) => Err(missing::command("demo")),
        Subcommands::ClientConfig(arguments) => client_config::parse(arguments).map(Command::ClientConfig),
        Subcommands::Warm(flags) => warm::parse(flags).map(Command::Warm),
        Subcommands::Generate(flags) => Ok(Command::Generate(flags.directory)),
        #[cfg(feature = "bench")]
        Subcommands::Bench(flags) => {
            bench::parse(*flags).map(|(options, target)| Command::Bench(Box::new(options), target))
        }
        #[cfg(not(feature = "bench"))]
        Subcommands::Bench(_) => Err(missing::command("bench")),
    }
}

/// Adds the second dash to a long flag that has one. Go's flags take one dash or two, and command lines of the Go program
/// have to work as they are. Nothing else begins with a dash and two characters: short flags have one letter, and no value
/// begins with a dash.
fn two_dashes(argument: OsString) -> OsString {
    let is_long = |name: &str| name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic());
    match argument.to_str().filter(|text| text.strip_prefix('-').is_some_and(is_long)) {
        Some(text) => format!("-{text}").into(),
        None => argument,
    }
}

#[cfg(test)]
mod tests;
