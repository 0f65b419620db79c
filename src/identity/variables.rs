//! The variables of the sign-in: `DefaultAzureCredential`'s, the platforms', and which sources they configure.
//!
//! They cannot change while the program runs, so one that cannot be right ends the start. One that is missing does not:
//! its source says so when it is asked.

use std::path::{Path, PathBuf};

use crate::config::identity::{ARC_KEY_DIRECTORY, Assigned, Kind, parse_authority};
use crate::value::{self, Form};

pub const TENANT: &str = "AZURE_TENANT_ID";
pub const CLIENT: &str = "AZURE_CLIENT_ID";
pub const SECRET: &str = "AZURE_CLIENT_SECRET";
pub const CERTIFICATE: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
pub const PASSWORD: &str = "AZURE_CLIENT_CERTIFICATE_PASSWORD";
pub const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
pub const ENDPOINT: &str = "IDENTITY_ENDPOINT";
pub const HEADER: &str = "IDENTITY_HEADER";
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
/// Where Arc's agent is on a machine that has one (as Microsoft's own libraries look for it).
const ARC_AGENT: &str = "/opt/azcmagent/bin/himds";

/// A variable's value, cleaned; an empty one is as good as none. `Err` names it and says what is wrong with it.
pub fn variable(name: &str, form: Form) -> Result<Option<String>, String> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let text = value.to_str().ok_or_else(|| format!("{name}: it is not text in UTF-8"))?;
    let text = value::clean(text, form).map_err(|wrong| format!("{name}: {wrong}"))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Whether a variable is there and has a value, good or bad.
pub fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value::is_empty(&value.to_string_lossy()))
}

/// Whether a variable is there without a value, as an unset one of a template is.
pub fn is_empty(name: &str) -> bool {
    std::env::var_os(name).is_some() && !is_set(name)
}

/// Entra ID's address by the variable, `https://…` without a path.
pub fn authority() -> Result<Option<String>, String> {
    let Some(text) = variable(AUTHORITY, Form::Token)? else { return Ok(None) };
    parse_authority(&text).map(Some).map_err(|wrong| format!("{AUTHORITY}: {wrong}"))
}

/// The sources that this environment has, and whether each was configured on purpose. `Err` if one was begun and has
/// an empty variable: to pass it over would be to pull as somebody else.
pub fn default_chain() -> Result<Vec<(Kind, bool)>, String> {
    let proofs = [SECRET, CERTIFICATE, TOKEN_FILE];
    let mut chain = Vec::new();
    if is_set(TENANT) && is_set(CLIENT) {
        if let (false, Some(name)) = (proofs.into_iter().any(is_set), proofs.into_iter().find(|name| is_empty(name))) {
            return Err(empty(name, &format!("{TENANT} and {CLIENT}")));
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
        return Err(empty(name, proof));
    }
    // Arc sets an endpoint, too, but App Service's comes with a secret.
    let app_service = is_set(ENDPOINT) && is_set(HEADER);
    let arc = is_set("IMDS_ENDPOINT") || Path::new(ARC_AGENT).exists();
    chain.push(if arc && !app_service {
        (Kind::AzureArc { key_directory: PathBuf::from(ARC_KEY_DIRECTORY) }, false)
    } else {
        // An id that cannot be one is a mistake of somebody's, and not a reason to go on to the next source.
        variable(CLIENT, Form::Id)?;
        (Kind::ManagedIdentity(Assigned::System), false)
    });
    chain.extend([(Kind::AzureCli, false), (Kind::AzureDeveloperCli, false)]);
    Ok(chain)
}

/// What the default chain passes over though one of its proofs is there: an identity without a name. It may belong to
/// another program, as the webhook's token file does in a pod that has no client id, so it is no error.
pub fn passed_over() -> Option<String> {
    let missing: Vec<_> = [TENANT, CLIENT].into_iter().filter(|name| !is_set(name)).collect();
    let proof = [SECRET, CERTIFICATE, TOKEN_FILE].into_iter().find(|name| is_set(name))?;
    (!missing.is_empty()).then(|| {
        let missing = missing.join(" and ");
        format!("{proof} counts for nothing without {missing}: set that as well; until then another identity signs in")
    })
}

fn empty(name: &str, beside: &str) -> String {
    format!("{name} is set but empty, beside {beside}: give its value, or unset it to sign in by another identity")
}

/// Whether a source's variables can be right; those that a setting stands in for are not looked at.
pub fn check(kind: &Kind) -> Result<(), String> {
    let ids = |tenant_id: &Option<String>, client_id: &Option<String>| {
        look(tenant_id.is_none(), TENANT, Form::Id).and_then(|()| look(client_id.is_none(), CLIENT, Form::Id))
    };
    match kind {
        Kind::ClientSecret { tenant_id, client_id, secret_file } => {
            ids(tenant_id, client_id)?;
            look(secret_file.is_none(), SECRET, Form::Secret)
        }
        Kind::ClientCertificate { tenant_id, client_id, certificate_file, password_file } => {
            ids(tenant_id, client_id)?;
            look(certificate_file.is_none(), CERTIFICATE, Form::Line)?;
            look(password_file.is_none(), PASSWORD, Form::Line)
        }
        Kind::WorkloadIdentity { tenant_id, client_id, token_file } => {
            ids(tenant_id, client_id)?;
            look(token_file.is_none(), TOKEN_FILE, Form::Line)
        }
        Kind::ManagedIdentity(assigned) => {
            look(*assigned == Assigned::System, CLIENT, Form::Id)?;
            look(true, HEADER, Form::Token)?;
            endpoint().map(drop)
        }
        Kind::AzureArc { .. } => endpoint().map(drop),
        Kind::Default | Kind::AzureCli | Kind::AzureDeveloperCli | Kind::Anonymous => Ok(()),
    }
}

fn look(used: bool, name: &str, form: Form) -> Result<(), String> {
    if used { variable(name, form).map(drop) } else { Ok(()) }
}

/// The address of the platform's identity endpoint.
pub fn endpoint() -> Result<Option<String>, String> {
    let Some(url) = variable(ENDPOINT, Form::Token)? else { return Ok(None) };
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(Some(url))
    } else {
        Err(format!("{ENDPOINT}: it does not begin with http:// or https://"))
    }
}
