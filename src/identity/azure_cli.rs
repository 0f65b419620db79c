//! Signing in as the user of `az` or `azd`. azure_identity would leave a tool that hangs running, one more process for
//! each sign-in that is given up; here a tool ends with its sign-in.

use std::ffi::OsStr;
use std::io;
use std::process::Output;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, AzureDeveloperCliCredential, AzureDeveloperCliCredentialOptions,
    Executor,
};
use tokio::process::Command;

use super::inputs::SourceError;
use crate::program::{self, Printed};

/// A tool's output: a token has some KiB.
const MAX_OUTPUT: usize = 64 << 10;

/// Who is signed in to `az`.
pub(crate) fn azure() -> Result<Arc<dyn TokenCredential>, SourceError> {
    let options = AzureCliCredentialOptions { executor: Some(Arc::new(Tool)), ..AzureCliCredentialOptions::default() };
    Ok(AzureCliCredential::new(Some(options))?)
}

/// Who is signed in to `azd`.
pub(crate) fn developer() -> Result<Arc<dyn TokenCredential>, SourceError> {
    let options = AzureDeveloperCliCredentialOptions {
        executor: Some(Arc::new(Tool)),
        ..AzureDeveloperCliCredentialOptions::default()
    };
    Ok(AzureDeveloperCliCredential::new(Some(options))?)
}

/// Runs a tool, and ends it with its process group when the future that runs it is dropped.
#[derive(Debug)]
struct Tool;

#[async_trait]
impl Executor for Tool {
    async fn run(&self, tool: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        let mut printed = Printed::all(MAX_OUTPUT);
        // azure_identity runs a shell that runs the tool.
        let status = program::run(Command::new(tool).args(args), &mut printed).await.map_err(no_token)?;
        Ok(Output { status, stdout: printed.stdout, stderr: printed.stderr })
    }
}

fn no_token(cause: io::Error) -> io::Error {
    match cause.kind() {
        io::ErrorKind::FileTooLarge => io::Error::other(format!("{cause}, which is no token")),
        _ => cause,
    }
}
