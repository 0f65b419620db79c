//! `serve`: the flags of the proxy itself, which `client-config` has as well.

use std::io::ErrorKind;
use std::mem;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::exit::{Exit, mistake};
use crate::config::{self, Config, DefaultValue, Flags, Row, ServingHost};
use crate::directory::{Astray, Directory, Missing};
use crate::identity;
use crate::init::CONFIG;
use crate::listen::certificate;
use crate::logger;
use crate::net::trust;

/// What `--help` says of it, of each command that reads it.
pub(super) const HOST_SETTINGS: &str = "\
Without --config and --upstream-domain, the settings are those of /etc/acr-cache-proxy/config.yaml, if it is there; other flags win
over them.";

/// An example for a command of this build only.
const DEMO: &str = if cfg!(feature = "demo") {
    "\
\n  acr-cache-proxy demo --once
      A pull through this program, against the built-in emulator of Azure."
} else {
    ""
};

/// What `--help` says below the flags.
pub(super) fn examples() -> String {
    format!(
        "\
Examples:
  acr-cache-proxy --upstream-domain example.azurecr.io --upstream-prefix hub
      Pulls from http://127.0.0.1:8080 go to example.azurecr.io/hub/..., signed in with this machine's identity.
  acr-cache-proxy --config /etc/acr-cache-proxy/config.yaml
      The same from a file.{DEMO}
  acr-cache-proxy client-config containerd
      The files with which containerd pulls through the proxy; --write puts them in place.

The identity comes from AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH or
AZURE_FEDERATED_TOKEN_FILE, or else is the machine's managed identity or who is signed in to the Azure CLI."
    )
}

/// This host.
const HOST: ServingHost = ServingHost {
    check_ca_file: |path| Ok(trust::check_ca_file(path)?),
    check_tls: |files| {
        let wrong = certificate::check(files).err().unwrap_or_default();
        wrong.iter().map(|wrong| (wrong.key, wrong.to_sentence())).collect()
    },
    has_variable: identity::is_set,
    serves: true,
};

/// This host for a process that does not serve, which need not have the credentials of a unit.
const CHECKED: ServingHost = ServingHost { serves: false, ..HOST };

/// This host as far as a service on it is concerned, whose variables a unit gives it: those of this process say nothing of them.
const SERVICE: ServingHost = ServingHost { has_variable: |_| true, ..CHECKED };

/// The flags of `serve`.
#[derive(Args)]
pub(super) struct ServeFlags {
    #[command(flatten)]
    settings: SettingFlags,
    /// A YAML file of settings; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Has no effect; accepted because command lines of the Go program have it
    #[arg(long, value_name = "HOST")]
    masquerade_domain: Option<String>,
    /// Exit when standard input ends, for a parent process that must not leave the proxy behind, however it ends itself
    #[arg(long)]
    exit_with_stdin: bool,
}

/// Hides the flags that mean nothing to a process that does not serve, of commands that take the proxy's command line.
pub(super) fn hide_of_serve(flag: Arg) -> Arg {
    let is_of_serve = ["masquerade_domain", "exit_with_stdin"].contains(&flag.get_id().as_str());
    if is_of_serve { flag.hide(true) } else { flag }
}

impl ServeFlags {
    /// Reads the file of the host below `root`, if it is there and the flags name neither a file nor a registry. This is for commands that
    /// look after a proxy of the host, not for the proxy, which a unit or a command line tells its settings. Gives whether it does. A link
    /// that a user has made there is no file of the host: what it leads to may be nobody's to read, and mistakes in it are quoted.
    pub(super) fn or_host(&mut self, root: &Path) -> Result<bool, Exit> {
        if self.config.is_some() || self.settings.0.name_registry() {
            return Ok(false);
        }
        let path = root.join(CONFIG);
        match Directory::open(root).and_then(|tree| tree.place(Path::new(CONFIG), Missing::Tell)) {
            Ok(place) if place.metadata().is_err_and(|cause| cause.kind() == ErrorKind::NotFound) => {
                return Ok(self.miss(path));
            }
            Ok(place) if place.is_linked => self.config = Some(place.path()),
            Err(Astray::Missing(_)) => return Ok(self.miss(path)),
            Err(astray @ Astray::Link(_)) => {
                return Err(mistake(&format!("{}: name it by --config", astray.sentence(&path))));
            }
            // What prevents the reader is told where it is read.
            Ok(_) | Err(Astray::Failed(..)) => self.config = Some(path),
        }
        Ok(true)
    }

    /// The host has no settings, which is said where a registry is needed.
    fn miss(&mut self, path: PathBuf) -> bool {
        self.settings.0 = mem::take(&mut self.settings.0).with_missing_file(path);
        false
    }

    /// The file of the settings.
    pub(super) fn file(&self) -> Option<String> {
        self.config.as_ref().map(|path| path.display().to_string())
    }
}

/// What `serve` does.
#[derive(Debug)]
pub(crate) struct Serve {
    /// The settings.
    pub config: Config,
    /// By which they can be read again.
    pub flags: Flags,
    /// Each is a warning for the log.
    pub warnings: Vec<String>,
    /// Exit when standard input ends.
    pub exit_with_stdin: bool,
}

/// A flag for each setting that has one. Values are texts: what they have to be is said by config, in the same words as
/// for the file.
struct SettingFlags(Flags);

impl Args for SettingFlags {
    fn augment_args(mut command: Command) -> Command {
        for row in config::flagged() {
            if let Some(flag) = row.flag {
                command = command.arg(Arg::new(flag).long(flag).value_name(row.value).help(help(row)));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self(Flags::default());
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let given = |row: &'static Row| Some((row, matches.get_one::<String>(row.flag?)?.clone()));
        let flags = mem::take(&mut self.0);
        self.0 =
            config::flagged().into_iter().filter_map(given).fold(flags, |flags, (row, text)| flags.with(row, text));
        Ok(())
    }
}

/// A row's line of `--help`.
fn help(row: &Row) -> String {
    let variable = row.variable.map(|variable| format!("; {variable} does the same")).unwrap_or_default();
    let default = match row.default {
        DefaultValue::Required => return format!("{}{variable}", row.help),
        DefaultValue::Text("") => "none",
        DefaultValue::Text(text) | DefaultValue::Unless(text, _) | DefaultValue::Words(text) => text,
    };
    format!("{}{variable} [default: {default}]", row.help)
}

/// The settings, and a warning for each flag that has no effect.
pub(super) fn parse(flags: ServeFlags) -> Result<Serve, Exit> {
    let exit_with_stdin = flags.exit_with_stdin;
    let (flags, warnings) = settings(flags);
    let config = Config::load_on(&HOST, &flags).map_err(|mistakes| mistake(&mistakes.to_string()))?;
    Ok(Serve { config, flags, warnings, exit_with_stdin })
}

/// The settings, read again by what the start had. The error has a line for each mistake.
pub(crate) fn read_again(flags: &Flags) -> Result<Config, String> {
    Config::load_on(&HOST, flags).map_err(|mistakes| mistakes.to_string())
}

/// The settings, for a look at them. The error has a line for each mistake.
pub(crate) fn read_to_check(flags: &Flags) -> Result<Config, String> {
    Config::load_on(&CHECKED, flags).map_err(|mistakes| mistakes.to_string())
}

/// The settings of a service of this host, which need not lack a variable that this process lacks. The error has a line for each mistake.
pub(crate) fn read_for_service(flags: &Flags) -> Result<Config, String> {
    Config::load_on(&SERVICE, flags).map_err(|mistakes| mistakes.to_string())
}

/// The settings that these flags, the variable and the file give, for a proxy on this host or another.
pub(super) fn load(flags: ServeFlags) -> Result<Config, Exit> {
    Config::load(&settings_of_host(flags)).map_err(|mistakes| mistake(&mistakes.to_string()))
}

/// What the settings are read by, for a command that has no log: what has no effect is said on standard error.
pub(super) fn settings_of_host(flags: ServeFlags) -> Flags {
    let (flags, warnings) = settings(flags);
    warnings.iter().for_each(|warning| logger::complain(warning));
    flags
}

/// What the settings are read by, and a warning for each flag that has no effect.
pub(super) fn settings(flags: ServeFlags) -> (Flags, Vec<String>) {
    let ServeFlags { settings: SettingFlags(given), config, masquerade_domain, exit_with_stdin: _ } = flags;
    let no_effect = masquerade_domain.map(|_| {
        "--masquerade-domain has no effect: clients are never sent to sign in, so there is no address to change"
            .to_owned()
    });
    let rust_log = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    (given.with_file(config).with_rust_log(rust_log), no_effect.into_iter().collect())
}
