//! The `identity` table: who signs in, to which cloud, for which audience.

use std::path::{Path, PathBuf};

use super::ServingHost;
use super::kind::{Audience, Cloud, KindName};
use super::mistake::{Mistakes, Place, Text};
use super::setting::{IDENTITY, IdentityTable};
use super::table::Table as _;

pub(crate) use super::parse::parse_authority;
pub(crate) use super::setting::ARC_KEY_DIRECTORY;

/// The registry's own audience, in every cloud: the one that works whatever a registry's policy for ARM tokens says
/// (Microsoft Learn, "Disable authentication as ARM template").
const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

/// Who signs in. What is `None` comes from the variable of the same purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The chain: the first source that is there.
    Default,
    /// An application with a secret.
    ClientSecret {
        /// `AZURE_TENANT_ID`
        tenant_id: Option<String>,
        /// `AZURE_CLIENT_ID`
        client_id: Option<String>,
        /// A file that holds the secret, else `AZURE_CLIENT_SECRET`.
        secret_file: Option<PathBuf>,
    },
    /// An application with a certificate.
    ClientCertificate {
        /// `AZURE_TENANT_ID`
        tenant_id: Option<String>,
        /// `AZURE_CLIENT_ID`
        client_id: Option<String>,
        /// PEM or PKCS#12; `AZURE_CLIENT_CERTIFICATE_PATH`
        certificate_file: Option<PathBuf>,
        /// A file that holds the password of PKCS#12, else `AZURE_CLIENT_CERTIFICATE_PASSWORD`.
        password_file: Option<PathBuf>,
    },
    /// A federated token, as Kubernetes puts it into a pod.
    WorkloadIdentity {
        /// `AZURE_TENANT_ID`
        tenant_id: Option<String>,
        /// `AZURE_CLIENT_ID`
        client_id: Option<String>,
        /// `AZURE_FEDERATED_TOKEN_FILE`
        token_file: Option<PathBuf>,
    },
    /// What the platform gives: a virtual machine, App Service, Container Apps.
    ManagedIdentity(Assigned),
    /// Azure Arc's agent on a machine outside Azure.
    AzureArc {
        /// Keys are read from nowhere else.
        key_directory: PathBuf,
    },
    /// Who is signed in to `az`.
    AzureCli,
    /// Who is signed in to `azd`.
    AzureDeveloperCli,
    /// Nobody: the registry allows anonymous pulls.
    Anonymous,
}

impl Kind {
    /// From the keys that a kind of this name takes.
    fn parse(name: KindName, table: IdentityTable, mistakes: &mut Mistakes) -> Self {
        match name {
            KindName::Default => Self::Default,
            KindName::ClientSecret => Self::ClientSecret {
                tenant_id: IDENTITY.tenant_id.parse([table.tenant_id], mistakes),
                client_id: IDENTITY.client_id.parse([table.client_id], mistakes),
                secret_file: IDENTITY.client_secret_file.parse([table.client_secret_file], mistakes),
            },
            KindName::ClientCertificate => Self::ClientCertificate {
                tenant_id: IDENTITY.tenant_id.parse([table.tenant_id], mistakes),
                client_id: IDENTITY.client_id.parse([table.client_id], mistakes),
                certificate_file: IDENTITY.certificate_file.parse([table.certificate_file], mistakes),
                password_file: IDENTITY.certificate_password_file.parse([table.certificate_password_file], mistakes),
            },
            KindName::WorkloadIdentity => Self::WorkloadIdentity {
                tenant_id: IDENTITY.tenant_id.parse([table.tenant_id], mistakes),
                client_id: IDENTITY.client_id.parse([table.client_id], mistakes),
                token_file: IDENTITY.token_file.parse([table.token_file], mistakes),
            },
            KindName::ManagedIdentity => {
                Self::ManagedIdentity(Assigned::parse(table.client_id, table.object_id, table.resource_id, mistakes))
            }
            KindName::AzureArc => {
                let directory = IDENTITY.key_directory.parse_or_default([table.key_directory], mistakes);
                Self::AzureArc { key_directory: directory.unwrap_or_default() }
            }
            KindName::AzureCli => Self::AzureCli,
            KindName::AzureDeveloperCli => Self::AzureDeveloperCli,
            KindName::Anonymous => Self::Anonymous,
        }
    }

    /// Who signs in, for people: the kind, and the id that the settings name, if they name one. No secret.
    pub(crate) fn told(&self) -> (&'static str, Option<&str>) {
        let (kind, id) = match self {
            Self::Default => ("default chain", None),
            Self::ClientSecret { client_id, .. } => ("client secret", client_id.as_deref()),
            Self::ClientCertificate { client_id, .. } => ("client certificate", client_id.as_deref()),
            Self::WorkloadIdentity { client_id, .. } => ("workload identity", client_id.as_deref()),
            Self::ManagedIdentity(Assigned::System) => ("managed identity", None),
            Self::ManagedIdentity(Assigned::ClientId(id) | Assigned::ObjectId(id) | Assigned::ResourceId(id)) => {
                ("managed identity", Some(id.as_str()))
            }
            Self::AzureArc { .. } => ("Azure Arc", None),
            Self::AzureCli => ("Azure CLI", None),
            Self::AzureDeveloperCli => ("Azure Developer CLI", None),
            Self::Anonymous => ("anonymous", None),
        };
        (kind, id)
    }

    /// The files that its settings name, each with its key.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        let all = match self {
            Self::ClientSecret { secret_file, .. } => vec![("client_secret_file", secret_file.as_deref())],
            Self::ClientCertificate { certificate_file, password_file, .. } => vec![
                ("certificate_file", certificate_file.as_deref()),
                ("certificate_password_file", password_file.as_deref()),
            ],
            Self::WorkloadIdentity { token_file, .. } => vec![("token_file", token_file.as_deref())],
            Self::AzureArc { key_directory } => vec![("key_directory", Some(key_directory.as_path()))],
            _ => Vec::new(),
        };
        all.into_iter().filter_map(|(key, path)| Some((key, path?))).collect()
    }

    /// Entra ID itself is asked, at an address that differs from cloud to cloud.
    pub(crate) fn asks_entra(&self) -> bool {
        matches!(self, Self::ClientSecret { .. } | Self::ClientCertificate { .. } | Self::WorkloadIdentity { .. })
    }
}

/// Which of a machine's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Assigned {
    /// The system's, or the one of `AZURE_CLIENT_ID`.
    #[default]
    System,
    /// By client id.
    ClientId(String),
    /// By object (principal) id.
    ObjectId(String),
    /// By Azure resource id.
    ResourceId(String),
}

impl Assigned {
    fn parse(
        client_id: Option<Text>,
        object_id: Option<Text>,
        resource_id: Option<Text>,
        mistakes: &mut Mistakes,
    ) -> Self {
        if let Some((place, _)) = [&client_id, &object_id, &resource_id].into_iter().flatten().nth(1) {
            mistakes.add(place, "client_id, object_id and resource_id exclude each other: keep one of them");
        }
        let client_id = IDENTITY.client_id.parse([client_id], mistakes).map(Self::ClientId);
        let object_id = IDENTITY.object_id.parse([object_id], mistakes).map(Self::ObjectId);
        let resource_id = IDENTITY.resource_id.parse([resource_id], mistakes).map(Self::ResourceId);
        client_id.or(object_id).or(resource_id).unwrap_or_default()
    }
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    kind: Kind,
    authority: Option<String>,
    scope: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { kind: Kind::Default, authority: None, scope: scope(&Audience::Registry, Cloud::default()) }
    }
}

impl Identity {
    /// From the table; what is wrong goes to `mistakes`. Without a valid kind the other keys are not checked. With a host,
    /// what its kind needs has to be set there: by a key, or by a variable.
    pub(super) fn parse(mut table: IdentityTable, host: Option<&ServingHost>, mistakes: &mut Mistakes) -> Self {
        if table.is_flawed && table.kind.is_none() {
            return Self::default();
        }
        let given: Vec<_> = table.given().into_iter().map(|(key, place)| (key, place.clone())).collect();
        let kind = table.kind.take();
        let kind_place = kind.as_ref().map(|(place, _)| place.clone());
        let Some(name) = IDENTITY.kind.parse_or_default([kind], mistakes) else { return Self::default() };
        // With a key that is misspelt, what is missing may be that key.
        if let (Some(host), Some(place), false) = (host, kind_place, table.is_flawed) {
            find_missing(name, &place, &given, host, mistakes);
        }
        find_inapplicable(name, &given, mistakes);
        // What is a mistake already is not looked at again.
        let own = |key: &str, text: Option<Text>| text.filter(|_| name.keys().contains(&key));
        let cloud = IDENTITY.cloud.parse([own("cloud", table.cloud.take())], mistakes);
        let authority = IDENTITY.authority.parse([own("authority", table.authority.take())], mistakes);
        let authority = authority.or_else(|| cloud.map(|cloud| cloud.authority.to_owned()));
        let audience = IDENTITY.audience.parse_or_default([own("audience", table.audience.take())], mistakes);
        let scope = scope(&audience.unwrap_or(Audience::Registry), cloud.unwrap_or_default());
        let kind = Kind::parse(name, table, mistakes);
        for (key, path) in kind.files() {
            let place = given.iter().find(|(known, _)| *known == key).map(|(_, place)| place);
            if let (Some(place), Some(lack)) = (place, host.and_then(|host| host.lack(path))) {
                mistakes.add(place, lack);
            }
        }
        Self { kind, authority, scope }
    }

    /// Who signs in.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Entra ID's address, `https://…` without a path, where the file names it or its cloud.
    pub(crate) fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// What the Entra token is asked for, ending in `/.default`.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }
}

/// What the kind needs has to be in the file or in a variable of the host.
fn find_missing(
    kind: KindName,
    place: &Place,
    given: &[(&'static str, Place)],
    host: &ServingHost,
    mistakes: &mut Mistakes,
) {
    let is_given = |key: &str| given.iter().any(|(known, _)| *known == key);
    for (key, variable) in kind.needs().iter().filter(|(key, name)| !is_given(key) && !(host.has_variable)(name)) {
        let kind = kind.name();
        mistakes.add(place, format_args!("{kind} needs {key}: set it, or give the variable {variable} a value"));
    }
}

/// A key that the kind does not take would have no effect.
fn find_inapplicable(kind: KindName, given: &[(&'static str, Place)], mistakes: &mut Mistakes) {
    for (_, place) in given.iter().filter(|(key, _)| *key != "kind" && !kind.keys().contains(key)) {
        let keys = if kind.keys().is_empty() { "no other key".to_owned() } else { kind.keys().join(", ") };
        mistakes.add(place, format_args!("does not apply to kind {0}: remove it; {0} takes {keys}", kind.name()));
    }
}

fn scope(audience: &Audience, cloud: Cloud) -> String {
    let address = match audience {
        Audience::Registry => REGISTRY_AUDIENCE,
        Audience::ResourceManager => cloud.resource_manager,
        Audience::Own(address) => address,
    };
    format!("{address}/.default")
}
