//! Hidden flags, by which a command that was started anew with the service's variables knows it.

use std::path::PathBuf;

use clap::Args;

use crate::service_variables::{FLAG, LEFT_OUT, Taken};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct TakenFlags {
    /// The file of variables with which this command was started anew, by itself
    #[arg(long = FLAG, value_name = "FILE", hide = true)]
    variables_of: Option<PathBuf>,
    /// What that left out
    #[arg(long = LEFT_OUT, value_name = "NAME", hide = true)]
    left_out: Vec<String>,
}

impl TakenFlags {
    /// What was taken, if something was.
    pub(super) fn parse(self) -> Option<Taken> {
        let Self { variables_of, left_out } = self;
        variables_of.map(|file| Taken { file, left_out })
    }
}
