//! The variables of the sign-in: `DefaultAzureCredential`'s, the platforms', and which sources they configure.
//!
//! They cannot change while the program runs, so one that cannot be right ends the start. One that is missing does not:
//! its source says so when it is asked.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::identity::{ARC_KEY_DIRECTORY, Assigned, Kind, parse_authority};
use crate::value::{self, Form, ValueError};

pub(crate) const TENANT: &str = "AZURE_TENANT_ID";
pub(crate) const CLIENT: &str = "AZURE_CLIENT_ID";
pub(crate) const SECRET: &str = "AZURE_CLIENT_SECRET";
pub(crate) const CERTIFICATE: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
pub(crate) const PASSWORD: &str = "AZURE_CLIENT_CERTIFICATE_PASSWORD";
pub(crate) const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
pub(crate) const ENDPOINT: &str = "IDENTITY_ENDPOINT";
pub(crate) const HEADER: &str = "IDENTITY_HEADER";
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
/// Of Arc's agent.
const IMDS: &str = "IMDS_ENDPOINT";
/// Those by which a sign-in is configured: one that is there shows that somebody has thought of it.
const SIGNS_IN: [&str; 6] = [TENANT, CLIENT, SECRET, CERTIFICATE, TOKEN_FILE, ENDPOINT];
/// All by which a sign-in is configured. `IDENTITY_SERVER_THUMBPRINT`, by which Service Fabric is known, is no setting of it.
pub(crate) const ALL: [&str; 10] =
    [TENANT, CLIENT, SECRET, CERTIFICATE, PASSWORD, TOKEN_FILE, ENDPOINT, HEADER, AUTHORITY, IMDS];
/// Those whose values nobody else may see.
pub(crate) const SECRETS: [&str; 2] = [SECRET, PASSWORD];
/// Where Arc's agent is on a machine that has one (as Microsoft's own libraries look for it).
const ARC_AGENT: &str = "/opt/azcmagent/bin/himds";

/// A variable that cannot be right. Displays as a sentence that begins with its name.
#[derive(Debug)]
pub(crate) enum VariableError {
    /// Its text cannot be such a value.
    Value(&'static str, ValueError),
    /// It is not text in UTF-8.
    NotText(&'static str),
    /// It is not an address.
    NotHttp(&'static str),
    /// It is not Entra ID's address; the sentence says what would be.
    Authority(&'static str, String),
    /// It is empty, and the variables beside it show that a source was meant: to pass that over would be to pull as
    /// somebody else.
    Empty(&'static str, String),
}

impl fmt::Display for VariableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(name, cause) => write!(f, "{name}: {cause}"),
            Self::NotText(name) => write!(f, "{name}: it is not text in UTF-8"),
            Self::NotHttp(name) => write!(f, "{name}: it does not begin with http:// or https://"),
            Self::Authority(name, wrong) => write!(f, "{name}: {wrong}"),
            Self::Empty(name, beside) => write!(
                f,
                "{name} is set but empty, beside {beside}: give its value, or unset it to sign in by another identity"
            ),
        }
    }
}

impl Error for VariableError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Value(_, cause) => Some(cause),
            Self::NotText(_) | Self::NotHttp(_) | Self::Authority(..) | Self::Empty(..) => None,
        }
    }
}

/// A variable's value, cleaned. An empty one counts as none.
pub(crate) fn variable(name: &'static str, form: Form) -> Result<Option<String>, VariableError> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let text = value.to_str().ok_or(VariableError::NotText(name))?;
    let text = value::clean(text, form).map_err(|cause| VariableError::Value(name, cause))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Whether a variable is there and has a value, good or bad.
pub(crate) fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value::is_empty(&value.to_string_lossy()))
}

/// Whether the environment of this process says who signs in.
pub(crate) fn is_told() -> bool {
    SIGNS_IN.into_iter().any(is_set)
}

/// Whether a variable is there without a value, as a template leaves one that nobody filled in.
pub(crate) fn is_empty(name: &str) -> bool {
    std::env::var_os(name).is_some() && !is_set(name)
}

/// Entra ID's address by the variable, `https://…` without a path.
pub(crate) fn authority() -> Result<Option<String>, VariableError> {
    let Some(text) = variable(AUTHORITY, Form::Token)? else { return Ok(None) };
    parse_authority(&text).map(Some).map_err(|wrong| VariableError::Authority(AUTHORITY, wrong))
}

/// The sources that this environment has, and whether each was configured on purpose.
pub(crate) fn default_chain() -> Result<Vec<(Kind, bool)>, VariableError> {
    let proofs = [SECRET, CERTIFICATE, TOKEN_FILE];
    let mut chain = Vec::new();
    if is_set(TENANT) && is_set(CLIENT) {
        if let (false, Some(name)) = (proofs.into_iter().any(is_set), proofs.into_iter().find(|name| is_empty(name))) {
            return Err(VariableError::Empty(name, format!("{TENANT} and {CLIENT}")));
        }
        if is_set(SECRET) {
            chain.push((Kind::ClientSecret { tenant_id: None, client_id: None, secret_file: None }, true));
        } else if is_set(CERTIFICATE) {
            let (tenant_id, client_id) = (None, None);
            let kind = Kind::ClientCertificate { tenant_id, client_id, certificate_file: None, password_file: None };
            chain.push((kind, true));
        }
        if is_set(TOKEN_FILE) {
            chain.push((Kind::WorkloadIdentity { tenant_id: None, client_id: None, token_file: None }, true));
        }
    } else if let (Some(name), Some(proof)) =
        ([TENANT, CLIENT].into_iter().find(|name| is_empty(name)), proofs.into_iter().find(|name| is_set(name)))
    {
        return Err(VariableError::Empty(name, proof.to_owned()));
    }
    // Arc sets the endpoint as well, but App Service sets a secret with it.
    let app_service = is_set(ENDPOINT) && is_set(HEADER);
    let arc = is_set(IMDS) || Path::new(ARC_AGENT).exists();
    chain.push(if arc && !app_service {
        (Kind::AzureArc { key_directory: PathBuf::from(ARC_KEY_DIRECTORY) }, false)
    } else {
        // An invalid id is an error, and no reason to try the next source.
        variable(CLIENT, Form::Id)?;
        (Kind::ManagedIdentity(Assigned::System), false)
    });
    chain.extend([(Kind::AzureCli, false), (Kind::AzureDeveloperCli, false)]);
    Ok(chain)
}

/// A warning if a proof of an identity is there without the identity's name, or the other way around, so that the default chain does not use it.
/// It may belong to another program, as the webhook's token file does in a pod that has no client id, so it is no error.
pub(crate) fn passed_over() -> Option<String> {
    let missing: Vec<_> = [TENANT, CLIENT].into_iter().filter(|name| !is_set(name)).collect();
    let proofs = [SECRET, CERTIFICATE, TOKEN_FILE];
    match (proofs.into_iter().find(|name| is_set(name)), missing.is_empty()) {
        (Some(proof), false) => {
            let missing = missing.join(" and ");
            let then = "until then another identity signs in";
            Some(format!("{proof} is not used without {missing}: set {missing} as well; {then}"))
        }
        // The client alone names one of the machine's identities.
        (None, true) => Some(format!(
            "{TENANT} is not used without one of {}: set one as well, or unset it if {CLIENT} names an identity of this machine; until then that one signs in",
            proofs.join(", ")
        )),
        _ => None,
    }
}

/// Checks the variables that a source reads: those that no setting replaces.
pub(crate) fn check(kind: &Kind) -> Result<(), VariableError> {
    let ids = |tenant_id: &Option<String>, client_id: &Option<String>| {
        check_one(tenant_id.is_none(), TENANT, Form::Id).and_then(|()| check_one(client_id.is_none(), CLIENT, Form::Id))
    };
    match kind {
        Kind::ClientSecret { tenant_id, client_id, secret_file } => {
            ids(tenant_id, client_id)?;
            check_one(secret_file.is_none(), SECRET, Form::Secret)
        }
        Kind::ClientCertificate { tenant_id, client_id, certificate_file, password_file } => {
            ids(tenant_id, client_id)?;
            check_one(certificate_file.is_none(), CERTIFICATE, Form::Line)?;
            check_one(password_file.is_none(), PASSWORD, Form::Line)
        }
        Kind::WorkloadIdentity { tenant_id, client_id, token_file } => {
            ids(tenant_id, client_id)?;
            check_one(token_file.is_none(), TOKEN_FILE, Form::Line)
        }
        Kind::ManagedIdentity(assigned) => {
            check_one(*assigned == Assigned::System, CLIENT, Form::Id)?;
            check_one(true, HEADER, Form::Token)?;
            endpoint().map(drop)
        }
        Kind::AzureArc { .. } => endpoint().map(drop),
        Kind::Default | Kind::AzureCli | Kind::AzureDeveloperCli | Kind::Anonymous => Ok(()),
    }
}

fn check_one(used: bool, name: &'static str, form: Form) -> Result<(), VariableError> {
    if used { variable(name, form).map(drop) } else { Ok(()) }
}

/// The address of the platform's identity endpoint.
pub(crate) fn endpoint() -> Result<Option<String>, VariableError> {
    let Some(url) = variable(ENDPOINT, Form::Token)? else { return Ok(None) };
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(Some(url))
    } else {
        Err(VariableError::NotHttp(ENDPOINT))
    }
}
