//! What to do about a sign-in that fails: the end of its message, wherever that is told.

/// What to do about a sign-in that fails, by what its message has; of several sources the one that is set up by somebody comes first.
const REMEDIES: [(&str, &str); 14] = [
    ("the client secret is wrong", "set AZURE_CLIENT_SECRET to the secret's value, not its id"),
    ("the client secret has expired", "create a new secret, put it in the place of the old one, and restart the proxy"),
    ("no certificate in it belongs to its private key", "put a certificate and its own private key into the file"),
    ("no such application in this tenant", "correct AZURE_CLIENT_ID and AZURE_TENANT_ID"),
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

/// A failure of the sign-in, with what to do about it; `is_chain` if no kind is named, and several sources are asked.
pub(super) fn with_remedy(failure: &str, is_chain: bool) -> String {
    let named = [NAMED].into_iter().filter(|_| !is_chain);
    let known = named.chain(REMEDIES).find(|(has, _)| failure.contains(has));
    known.map_or_else(|| failure.to_owned(), |(_, remedy)| format!("{failure}; what to do: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page that explains these messages and the table have the same ones.
    #[test]
    fn every_sign_in_failure_that_is_explained_has_its_remedy_on_screen() {
        let page = include_str!("../../docs/troubleshooting.md");
        let section = page.split_once("Sign-in (`entra`):").expect("the section").1;
        let section = section.split_once("Registry (`acr`):").expect("its end").0.replace("\n  ", " ");
        let explained: Vec<_> = section.lines().filter(|line| line.starts_with("- `entra: ")).collect();
        assert_eq!(explained.len(), REMEDIES.len());
        for line in explained {
            assert!(with_remedy(line, true).contains("; what to do: "), "{line}");
        }
        let both = "entra: client secret: 401: the client secret is wrong; managed identity: not on a machine with one";
        let nobody = "entra: managed identity: not on a machine with one (no answer from 169.254.169.254)";
        let of_arc = "entra: Azure Arc: no connection: check the network path, DNS and the CA: connection refused";
        let decrypted = "entra: client secret: no connection: check the network path, DNS and the CA: client error (Connect): \
                         invalid peer certificate: UnknownIssuer";
        for (failure, is_chain, remedy) in [
            (both, true, "set AZURE_CLIENT_SECRET to the secret's value, not its id"),
            (nobody, true, "AZURE_CLIENT_SECRET for the service"),
            (nobody, false, "choose another identity.kind: this one reads no secret or certificate"),
            (of_arc, true, "azcmagent show tells its state"),
            (decrypted, true, "put the CA of whoever decrypts TLS on the way to Entra ID into ca_file"),
        ] {
            assert!(with_remedy(failure, is_chain).ends_with(remedy), "{failure}");
        }
        assert_eq!(with_remedy("entra: 503", true), "entra: 503");
    }
}
