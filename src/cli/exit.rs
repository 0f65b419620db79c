//! How a command line that runs no command ends: help, version, or what is wrong with it.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::client_config::Client;

/// The exit status for a wrong flag or setting.
pub(crate) const WRONG: u8 = 2;

/// The program ends before it has begun: what to print, and the exit status.
#[derive(Debug)]
pub(crate) struct Exit {
    /// One or more lines.
    pub message: String,
    /// It was asked for, by `--help` or `--version`; otherwise it goes to standard error.
    pub to_stdout: bool,
    /// The exit status.
    pub status: u8,
}

/// Ends the program because of a wrong flag or setting.
pub(super) fn mistake(sentences: &str) -> Exit {
    Exit { message: sentences.trim_end().to_owned() + "\n", to_stdout: false, status: WRONG }
}

/// A root has to be there before anything is looked for or tried below it. It is never made: a mistyped name would become a tree of
/// files that nobody reads.
pub(super) fn expect_root(root: &Path) -> Result<(), Exit> {
    let wrong = match root.metadata() {
        Ok(root) if root.is_dir() => return Ok(()),
        Ok(_) => "it is no directory".to_owned(),
        Err(cause) => cause.to_string(),
    };
    Err(mistake(&format!("--root {}: {wrong}: name a directory that is there", root.display())))
}

/// clap's error as one sentence; the text of `--help` and `--version` as it is. `first` is the first word, which is the
/// command if there is one.
pub(super) fn from_clap(error: &clap::Error, program: &clap::Command, first: Option<&str>) -> Exit {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg).unwrap_or_default();
    let other = text(ContextKind::PriorArg).filter(|other| *other != argument);
    let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
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
            let is_it = |known: &clap::Arg| known.get_long() == Some(name) && !known.is_hide_set();
            let has = |command: &&clap::Command| command.get_arguments().any(is_it);
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
            let built = program.get_subcommands().filter(|command| !command.is_hide_set());
            let commands: Vec<_> = built.map(clap::Command::get_name).collect();
            format!("there is no command {word:?}: there are {}", commands.join(", "))
        }
        ErrorKind::MissingRequiredArgument => match command.map(clap::Command::get_name) {
            Some("client-config") => format!("client-config: name the client: {}", Client::NAMES),
            _ => format!("{argument} is missing"),
        },
        ErrorKind::InvalidValue => format!("{argument} needs a value"),
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::ArgumentConflict if program.find_subcommand(&word).is_some() => {
            format!("the command {word} comes before its flags: acr-cache-proxy {word} --flag ...")
        }
        ErrorKind::ArgumentConflict if !word.is_empty() => {
            format!("{word:?} is one word too many: all settings are flags")
        }
        ErrorKind::ArgumentConflict => match other {
            Some(other) => format!("{argument} and {other} exclude each other: set one of the two"),
            None => format!("{argument} is given twice"),
        },
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let of_command = command.map(|command| format!(" {}", command.get_name())).unwrap_or_default();
    mistake(&format!("{sentence}\nsee acr-cache-proxy{of_command} --help"))
}
