//! Commands whose cargo feature is off in this build.

use std::ffi::OsString;

use clap::Args;

use super::exit::{Exit, mistake};

/// Whatever follows such a command, which is not looked at.
#[derive(Args)]
pub(super) struct AnyArguments {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

/// The message for such a command.
pub(super) fn command(name: &str) -> Exit {
    mistake(&format!("this build has no {name}: build with --features {name}"))
}
