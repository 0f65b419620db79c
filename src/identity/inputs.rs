//! What a source is given to sign in with: the cloud, the network, and values from settings, variables and files.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::transport::Transport;
use super::variables::{self, CERTIFICATE, CLIENT, TENANT, TOKEN_FILE, VariableError, is_empty, variable};
use crate::answer::with_causes;
use crate::config::credential;
use crate::config::identity::Kind;
use crate::file::{self, Reader};
use crate::secret::Secret;
use crate::value::{self, Form, ValueError};

/// Upper bound of a token's life; it also keeps `Instant + lifetime` from overflowing. Entra's longest tokens are valid for
/// about a day.
pub(crate) const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A secret or a password in a file is a line.
const MAX_SECRET_FILE: u64 = 4 << 10;

/// Entra ID's address, and what a token is asked for.
#[derive(Clone)]
pub(crate) struct Cloud {
    pub authority: String,
    /// The audience, ending in `/.default`.
    pub scope: String,
}

/// What every source is given.
pub(crate) struct Inputs {
    pub cloud: Cloud,
    pub transport: Arc<Transport>,
    pub reader: Arc<Reader>,
}

/// An error of any part of a source.
type Cause = Box<dyn Error + Send + Sync>;

/// Why a source cannot be asked for a token. Displays as a sentence that names the setting, the variable or the file.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// A variable cannot be right.
    Variable(VariableError),
    /// Neither the key nor the variable is set; true if the variable is there and empty.
    Missing(&'static str, &'static str, bool),
    /// The file that a setting or variable names: these two, and what is wrong with it.
    File(String, PathBuf, Cause),
    /// The platform's identity endpoint cannot be used.
    Endpoint(Cause),
    /// azure_identity makes no credential of these values.
    Azure(azure_core::Error),
    /// The default chain, or nobody, which are no source.
    NoSource,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(cause) => cause.fmt(f),
            Self::Missing(key, variable, is_empty) => {
                let empty = if *is_empty { ", which is there and empty" } else { "" };
                write!(f, "identity.{key} is not set: set it, or the variable {variable}{empty}")
            }
            Self::File(setting, path, cause) => write!(f, "{setting} {}: {cause}", path.display()),
            Self::Endpoint(cause) => cause.fmt(f),
            Self::Azure(cause) => f.write_str(&with_causes(cause)),
            Self::NoSource => f.write_str("has no token of its own"),
        }
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Variable(cause) => Some(cause),
            Self::File(_, _, cause) | Self::Endpoint(cause) => Some(cause.as_ref()),
            Self::Azure(cause) => Some(cause),
            Self::Missing(..) | Self::NoSource => None,
        }
    }
}

impl From<VariableError> for SourceError {
    fn from(cause: VariableError) -> Self {
        Self::Variable(cause)
    }
}

impl From<azure_core::Error> for SourceError {
    fn from(cause: azure_core::Error) -> Self {
        Self::Azure(cause)
    }
}

/// Why a file has no value of one line.
#[derive(Debug)]
pub(crate) enum LineError {
    Value(ValueError),
    Empty,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(cause) => cause.fmt(f),
            Self::Empty => f.write_str("it is empty"),
        }
    }
}

impl Error for LineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Value(cause) => Some(cause),
            Self::Empty => None,
        }
    }
}

impl Inputs {
    /// A secret of one line: from the file if one is named, else from the variable.
    pub(crate) async fn secret(
        &self,
        key: &'static str,
        file: Option<&Path>,
        name: &'static str,
        form: Form,
    ) -> Result<Option<Secret>, SourceError> {
        let Some(path) = file else { return Ok(variable(name, form)?.map(Secret::new)) };
        let file = (format!("identity.{key}"), path.to_owned());
        self.read(file, MAX_SECRET_FILE, move |content| one_line(content, form)).await.map(Some)
    }

    /// Reads and parses a file off the runtime. It is given with the setting that names it.
    pub(crate) async fn read<T: Send + 'static, E: Into<Cause>>(
        &self,
        (setting, path): (String, PathBuf),
        max: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, E> + Send + 'static,
    ) -> Result<T, SourceError> {
        if let Some(lack) = credential::lack(&path) {
            return Err(SourceError::File(setting, path, lack.into()));
        }
        let read = {
            let path = path.clone();
            move || file::read(&path, max).map_err(Cause::from).and_then(|content| parse(&content).map_err(E::into))
        };
        let content = self.reader.run(read).await.map_err(Cause::from).flatten();
        content.map_err(|cause| SourceError::File(setting, path, cause))
    }
}

/// The tenant's id, by the setting or the variable.
pub(crate) fn tenant_id(setting: Option<&str>) -> Result<String, SourceError> {
    id(setting, "tenant_id", TENANT)
}

/// The application's id, by the setting or the variable.
pub(crate) fn client_id(setting: Option<&str>) -> Result<String, SourceError> {
    id(setting, "client_id", CLIENT)
}

fn id(setting: Option<&str>, key: &'static str, name: &'static str) -> Result<String, SourceError> {
    match setting {
        Some(id) => Ok(id.to_owned()),
        None => variable(name, Form::Id)?.ok_or_else(|| missing(key, name)),
    }
}

/// A file, by the setting or the variable, with the one that names it.
pub(crate) fn file(
    setting: Option<&Path>,
    key: &'static str,
    name: &'static str,
) -> Result<(String, PathBuf), SourceError> {
    match setting {
        Some(path) => Ok((format!("identity.{key}"), path.to_owned())),
        None => {
            let path = variable(name, Form::Line)?.ok_or_else(|| missing(key, name))?;
            Ok((name.to_owned(), PathBuf::from(path)))
        }
    }
}

/// What is wrong with the files of a source that can be told without a sign-in, a sentence each: one that is not there, or that this process may
/// not read. It may come later, so it ends no start.
pub(crate) fn unreadable(kind: &Kind) -> Vec<String> {
    all_files(kind)
        .into_iter()
        // That is no fault of the file's.
        .filter(|(_, path)| credential::of_unit(path).is_none())
        .filter_map(|(setting, path)| {
            let cause = file::access(&path).err()?;
            Some(format!("{setting} {}: {cause}: until it can be read the sign-in fails", path.display()))
        })
        .collect()
}

/// The credentials of the unit that a source reads, which only the unit's start has, each with the setting or the variable that names it.
pub(crate) fn of_unit(kind: &Kind) -> Vec<(String, PathBuf)> {
    all_files(kind).into_iter().filter(|(_, path)| credential::of_unit(path).is_some()).collect()
}

/// The files of a source, or of all that the default chain asks.
fn all_files(kind: &Kind) -> Vec<(String, PathBuf)> {
    let chain = || variables::default_chain().unwrap_or_default().into_iter().map(|(kind, _)| kind).collect();
    let kinds: Vec<_> = if *kind == Kind::Default { chain() } else { vec![kind.clone()] };
    kinds.iter().flat_map(files).collect()
}

/// The files that a source reads, each with the setting or the variable that names it.
fn files(kind: &Kind) -> Vec<(String, PathBuf)> {
    let own = |key: &str, path: &Option<PathBuf>| Some((format!("identity.{key}"), path.clone()?));
    let found = match kind {
        Kind::ClientSecret { secret_file, .. } => vec![own("client_secret_file", secret_file)],
        Kind::ClientCertificate { certificate_file, password_file, .. } => vec![
            file(certificate_file.as_deref(), "certificate_file", CERTIFICATE).ok(),
            own("certificate_password_file", password_file),
        ],
        Kind::WorkloadIdentity { token_file, .. } => vec![file(token_file.as_deref(), "token_file", TOKEN_FILE).ok()],
        _ => Vec::new(),
    };
    found.into_iter().flatten().collect()
}

/// For a value that neither the key nor the variable gives.
pub(crate) fn missing(key: &'static str, name: &'static str) -> SourceError {
    SourceError::Missing(key, name, is_empty(name))
}

/// A file's one line. Only a password may be empty.
pub(crate) fn one_line(content: &[u8], form: Form) -> Result<Secret, LineError> {
    let line = value::text(content).and_then(|text| value::clean(text, form)).map_err(LineError::Value)?;
    if line.is_empty() && form != Form::Line {
        return Err(LineError::Empty);
    }
    Ok(Secret::new(line.to_owned()))
}
