//! What to do about a sign-in that fails: the end of its message, wherever that is told.

use crate::config::identity::Kind;

const SECRET_REMEDY: &str = "set AZURE_CLIENT_SECRET to the secret's value, not its id";

/// What to do about a sign-in that fails, by what its message has; of several sources the one that is set up by somebody comes first.
const REMEDIES: [(&str, &str); 16] = [
    ("the client secret is wrong", SECRET_REMEDY),
    ("the client secret has expired", "create a new secret, put it in the place of the old one, and restart the proxy"),
    ("no certificate in it belongs to its private key", "put a certificate and its own private key into the file"),
    ("no such application in this tenant", "correct AZURE_CLIENT_ID and AZURE_TENANT_ID"),
    ("no such tenant", "correct AZURE_TENANT_ID; a tenant of a national cloud needs identity.cloud"),
    (
        "no federated credential of the application matches",
        "compare issuer, subject and audience of the federated credential with the token's, letter by letter",
    ),
    ("file system does not answer", "repair the mount that holds the file"),
    (
        "is a proxy or captive portal between?",
        "let this host reach Azure without a login page or a proxy that opens TLS",
    ),
    (
        "Azure Arc: no connection",
        "start Azure Arc's agent on this machine (systemctl start himdsd); azcmagent show tells its state",
    ),
    (
        "managed identity: no connection",
        "let this process reach the machine's own identity endpoint, 169.254.169.254 or what IDENTITY_ENDPOINT names",
    ),
    (
        "invalid peer certificate: UnknownIssuer",
        "put the CA of whoever decrypts TLS on the way to Entra ID into ca_file",
    ),
    (
        "invalid peer certificate",
        "set this host's clock if it is wrong; else another server answers in Entra ID's place: correct DNS or the way",
    ),
    (
        "check the network path, DNS and the CA",
        "open the way to Entra ID in the firewall, or name the proxy's CA with ca_file",
    ),
    (
        "is not Entra ID's sign-in",
        "correct AZURE_AUTHORITY_HOST or identity.authority; without them it is https://login.microsoftonline.com",
    ),
    (
        "no such managed identity is assigned",
        "set identity.client_id or AZURE_CLIENT_ID to an identity that is assigned to this machine",
    ),
    (
        "not on a machine with one",
        "assign a managed identity to this machine, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET for the service",
    ),
];

/// The same where `identity.kind` names the managed identity, so that no variable makes another one of it.
const NAMED: (&str, &str) = (
    "not on a machine with one",
    "assign a managed identity to this machine, or choose another identity.kind: this one reads no secret or certificate",
);

/// Somebody has named another host than Entra ID's, which may be what is wrong.
const NAMED_HOST: &str = "that host is of AZURE_AUTHORITY_HOST, identity.authority or identity.cloud";

/// A failure of the sign-in, for which this host stands in Entra ID's place, with who has named it where it is not reached.
pub(super) fn with_authority(failure: String, host: &str) -> String {
    let is_unreached = failure.contains(&format!("check the network path, DNS and the CA: {host}:"));
    if is_unreached { format!("{failure}; {NAMED_HOST}") } else { failure }
}

/// A failure of the sign-in by this kind, with what to do about it.
pub(super) fn with_remedy(failure: &str, kind: &Kind) -> String {
    // With the default chain several sources are asked.
    let named = [NAMED].into_iter().filter(|_| !matches!(kind, Kind::Default));
    let known = named.chain(REMEDIES).find(|(has, _)| failure.contains(has));
    let message = known.map_or_else(|| failure.to_owned(), |(_, remedy)| format!("{failure}; what to do: {remedy}"));
    by_setting(message, kind)
}

/// With the setting in place of the variable where the file has what is wrong.
fn by_setting(message: String, kind: &Kind) -> String {
    const SECRET: &str = "put the secret's value, not its id, into the file of identity.client_secret_file";
    let (Kind::ClientSecret { tenant_id, client_id, .. }
    | Kind::ClientCertificate { tenant_id, client_id, .. }
    | Kind::WorkloadIdentity { tenant_id, client_id, .. }) = kind
    else {
        return message;
    };
    let has_secret = matches!(kind, Kind::ClientSecret { secret_file: Some(_), .. });
    let set = [
        (has_secret, SECRET_REMEDY, SECRET),
        (tenant_id.is_some(), "AZURE_TENANT_ID", "identity.tenant_id"),
        (client_id.is_some(), "AZURE_CLIENT_ID", "identity.client_id"),
    ];
    set.into_iter().filter(|(is_set, ..)| *is_set).fold(message, |text, (_, variable, key)| text.replace(variable, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::identity::Assigned;

    /// The page that explains these messages and the table have the same ones.
    #[test]
    fn every_sign_in_failure_that_is_explained_has_its_remedy_on_screen() {
        let page = include_str!("../../docs/troubleshooting.md");
        let section = page.split_once("Sign-in (`entra`):").expect("the section").1;
        let section = section.split_once("Registry (`acr`):").expect("its end").0.replace("\n  ", " ");
        let explained: Vec<_> = section.lines().filter(|line| line.starts_with("- `entra: ")).collect();
        assert_eq!(explained.len(), REMEDIES.len());
        for line in explained {
            assert!(with_remedy(line, &Kind::Default).contains("; what to do: "), "{line}");
        }
        let both = "entra: client secret: 401: the client secret is wrong; managed identity: not on a machine with one";
        let nobody = "entra: managed identity: not on a machine with one (no answer from 169.254.169.254)";
        let of_arc = "entra: Azure Arc: no connection: check the network path, DNS and the CA: connection refused";
        let decrypted = "entra: client secret: no connection: check the network path, DNS and the CA: client error (Connect): \
                         invalid peer certificate: UnknownIssuer";
        let secret = Kind::ClientSecret { tenant_id: None, client_id: None, secret_file: None };
        let machine = Kind::ManagedIdentity(Assigned::default());
        for (failure, kind, remedy) in [
            (both, &Kind::Default, "set AZURE_CLIENT_SECRET to the secret's value, not its id"),
            (nobody, &Kind::Default, "AZURE_CLIENT_SECRET for the service"),
            (nobody, &machine, "choose another identity.kind: this one reads no secret or certificate"),
            (of_arc, &Kind::Default, "azcmagent show tells its state"),
            (decrypted, &secret, "put the CA of whoever decrypts TLS on the way to Entra ID into ca_file"),
        ] {
            assert!(with_remedy(failure, kind).ends_with(remedy), "{failure}");
        }
        assert_eq!(with_remedy("entra: 503", &Kind::Default), "entra: 503");
    }

    /// Neither the host nor the variable that had named it was told.
    #[test]
    fn a_sign_in_at_a_host_of_somebodys_own_did_not_say_who_had_named_it() {
        for (at, is_named) in [("127.0.0.1:1", true), ("169.254.169.254:80", false)] {
            let failure = format!("entra: x: no connection: check the network path, DNS and the CA: {at}: refused");
            assert_eq!(with_authority(failure, "127.0.0.1").ends_with(NAMED_HOST), is_named, "{at}");
        }
    }

    /// Who had set the id in the file was told to correct a variable that nobody had set.
    #[test]
    fn what_is_wrong_in_the_file_is_named_as_the_file_has_it() {
        let wrong_secret = "entra: client secret: 401 invalid_client: the client secret is wrong: AADSTS7000215";
        let no_application = "entra: client secret: 400 unauthorized_client: no such application in this tenant, check AZURE_CLIENT_ID and AZURE_TENANT_ID";
        let no_tenant = "entra: client secret: 400 invalid_request: no such tenant, check AZURE_TENANT_ID: AADSTS90002";
        let kind = |tenant: bool, client: bool, file: bool| Kind::ClientSecret {
            tenant_id: tenant.then(|| "t".to_owned()),
            client_id: client.then(|| "c".to_owned()),
            secret_file: file.then(|| "/s".into()),
        };
        for (failure, kind, says) in [
            (wrong_secret, kind(true, true, false), "set AZURE_CLIENT_SECRET to the secret's value, not its id"),
            (
                wrong_secret,
                kind(false, false, true),
                "put the secret's value, not its id, into the file of identity.client_secret_file",
            ),
            (no_application, kind(false, true, true), "correct identity.client_id and AZURE_TENANT_ID"),
            (no_application, kind(true, false, false), "correct AZURE_CLIENT_ID and identity.tenant_id"),
            (
                no_tenant,
                kind(false, false, false),
                "correct AZURE_TENANT_ID; a tenant of a national cloud needs identity.cloud",
            ),
            (
                no_tenant,
                kind(true, false, false),
                "correct identity.tenant_id; a tenant of a national cloud needs identity.cloud",
            ),
        ] {
            let told = with_remedy(failure, &kind);
            assert!(told.ends_with(&format!("; what to do: {says}")), "{told}");
        }
        let told = with_remedy(no_tenant, &kind(true, false, false));
        assert!(told.contains("no such tenant, check identity.tenant_id: "), "{told}");
    }
}
