//! The `identity` table: who signs in, to which cloud, for which audience.

use std::path::PathBuf;

use super::Mistakes;
use super::file::{Place, Text};
use crate::value::{self, Form};

/// Where Azure Arc's agent puts the keys that prove local access.
pub const ARC_KEY_DIRECTORY: &str = "/var/opt/azcmagent/tokens";
/// The registry's own audience, in every cloud: the one that works whatever a registry's policy for ARM tokens says
/// (Microsoft Learn, "Disable authentication as ARM template").
const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

/// Who signs in. What is `None` comes from the variable of the same purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
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
    /// Entra ID itself is asked, at an address that differs from cloud to cloud.
    pub fn asks_entra(&self) -> bool {
        matches!(self, Self::ClientSecret { .. } | Self::ClientCertificate { .. } | Self::WorkloadIdentity { .. })
    }
}

/// Which of a machine's identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Assigned {
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

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    kind: Kind,
    authority: Option<String>,
    scope: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { kind: Kind::Default, authority: None, scope: scope(REGISTRY_AUDIENCE) }
    }
}

/// The cloud's name, Entra ID's host there, and the audience of its resource manager (azcore, `cloud.go`).
const CLOUDS: [(&str, &str, &str); 3] = [
    ("public", "https://login.microsoftonline.com", "https://management.azure.com"),
    ("usgovernment", "https://login.microsoftonline.us", "https://management.usgovcloudapi.net"),
    ("china", "https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
];

const TENANT: &str = "tenant_id";
const CLIENT: &str = "client_id";
const OBJECT: &str = "object_id";
const RESOURCE: &str = "resource_id";
const SECRET_FILE: &str = "client_secret_file";
const CERTIFICATE_FILE: &str = "certificate_file";
const PASSWORD_FILE: &str = "certificate_password_file";
const TOKEN_FILE: &str = "token_file";
const KEY_DIRECTORY: &str = "key_directory";

/// Every key that the table can have.
pub const KEYS: [&str; 13] = [
    "kind",
    "cloud",
    "authority",
    "audience",
    TENANT,
    CLIENT,
    OBJECT,
    RESOURCE,
    SECRET_FILE,
    CERTIFICATE_FILE,
    PASSWORD_FILE,
    TOKEN_FILE,
    KEY_DIRECTORY,
];

/// Each kind, and the keys that mean something to it.
const KINDS: [(&str, &[&str]); 9] = [
    ("default", &["cloud", "authority", "audience"]),
    ("client_secret", &["cloud", "authority", "audience", TENANT, CLIENT, SECRET_FILE]),
    ("client_certificate", &["cloud", "authority", "audience", TENANT, CLIENT, CERTIFICATE_FILE, PASSWORD_FILE]),
    ("workload_identity", &["cloud", "authority", "audience", TENANT, CLIENT, TOKEN_FILE]),
    ("managed_identity", &["cloud", "audience", CLIENT, OBJECT, RESOURCE]),
    ("azure_arc", &["cloud", "audience", KEY_DIRECTORY]),
    ("azure_cli", &["cloud", "audience"]),
    ("azure_developer_cli", &["cloud", "audience"]),
    ("anonymous", &[]),
];

impl Identity {
    /// From the table's entries; what is wrong goes to `mistakes`.
    pub fn parse(entries: Vec<(String, Text)>, mistakes: &mut Mistakes) -> Self {
        let mut table = Table { entries, mistakes };
        let name = table.take("kind").unwrap_or_else(|| (Place::new("identity.kind"), "default".to_owned()));
        let Some((kind, keys)) = KINDS.iter().find(|(kind, _)| *kind == name.1) else {
            let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
            let sentence = format!("{:?} is no kind of identity: there are {}", name.1, kinds.join(", "));
            table.mistakes.add(&name.0, sentence);
            return Self::default();
        };
        for (key, (place, _)) in &table.entries {
            if !keys.contains(&key.as_str()) {
                let known = if keys.is_empty() {
                    "it takes nothing".to_owned()
                } else {
                    format!("it takes {}", keys.join(", "))
                };
                table.mistakes.add(place, format_args!("means nothing for the kind {kind}: {known}"));
            }
        }
        let cloud = table.cloud();
        let authority = table.authority().or_else(|| cloud.map(|(_, authority, _)| authority.to_owned()));
        let scope = table.scope(cloud.unwrap_or(CLOUDS[0]));
        let kind = match *kind {
            "client_secret" => Kind::ClientSecret {
                tenant_id: table.text(TENANT),
                client_id: table.text(CLIENT),
                secret_file: table.path(SECRET_FILE),
            },
            "client_certificate" => Kind::ClientCertificate {
                tenant_id: table.text(TENANT),
                client_id: table.text(CLIENT),
                certificate_file: table.path(CERTIFICATE_FILE),
                password_file: table.path(PASSWORD_FILE),
            },
            "workload_identity" => Kind::WorkloadIdentity {
                tenant_id: table.text(TENANT),
                client_id: table.text(CLIENT),
                token_file: table.path(TOKEN_FILE),
            },
            "managed_identity" => Kind::ManagedIdentity(table.assigned()),
            "azure_arc" => Kind::AzureArc {
                key_directory: table.path(KEY_DIRECTORY).unwrap_or_else(|| PathBuf::from(ARC_KEY_DIRECTORY)),
            },
            "azure_cli" => Kind::AzureCli,
            "azure_developer_cli" => Kind::AzureDeveloperCli,
            "anonymous" => Kind::Anonymous,
            _ => Kind::Default,
        };
        Self { kind, authority, scope }
    }

    /// Who signs in.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Entra ID's address, `https://…` without a path, where the file names it or its cloud.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// What the Entra token is asked for, ending in `/.default`.
    pub fn scope(&self) -> &str {
        &self.scope
    }
}

struct Table<'a> {
    entries: Vec<(String, Text)>,
    mistakes: &'a mut Mistakes,
}

impl Table<'_> {
    fn take(&mut self, key: &str) -> Option<Text> {
        let at = self.entries.iter().position(|(known, _)| known == key)?;
        Some(self.entries.swap_remove(at).1)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let (place, text) = self.take(key)?;
        let form = match key {
            TENANT | CLIENT | OBJECT => Form::Id,
            RESOURCE => Form::Resource,
            _ => Form::Line,
        };
        let wrong = match value::clean(&text, form) {
            Ok("") => "is empty".to_owned(),
            Ok(clean) => return Some(clean.to_owned()),
            Err(wrong) => wrong.to_string(),
        };
        self.mistakes.add(&place, wrong);
        None
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn cloud(&mut self) -> Option<(&'static str, &'static str, &'static str)> {
        let (place, name) = self.take("cloud")?;
        let found = CLOUDS.iter().find(|(known, ..)| *known == name);
        if found.is_none() {
            self.mistakes.add(&place, format_args!("{name:?} is no cloud: there are public, usgovernment, china"));
        }
        found.copied()
    }

    fn authority(&mut self) -> Option<String> {
        let (place, text) = self.take("authority")?;
        parse_authority(&text).map_err(|wrong| self.mistakes.add(&place, wrong)).ok()
    }

    fn scope(&mut self, cloud: (&str, &str, &str)) -> String {
        let Some((place, text)) = self.take("audience") else { return scope(REGISTRY_AUDIENCE) };
        match text.as_str() {
            "registry" => scope(REGISTRY_AUDIENCE),
            "arm" => scope(cloud.2),
            own if own.starts_with("https://") && own.len() > "https://".len() => scope(own.trim_end_matches('/')),
            _ => {
                let sentence = "is no audience: give registry, arm or an https:// address";
                self.mistakes.add(&place, format_args!("{text:?} {sentence}"));
                String::new()
            }
        }
    }

    fn assigned(&mut self) -> Assigned {
        let mut places = self.entries.iter().filter(|(key, _)| [CLIENT, OBJECT, RESOURCE].contains(&key.as_str()));
        if let (Some(_), Some((_, (place, _)))) = (places.next(), places.next()) {
            self.mistakes.add(place, "one of client_id, object_id and resource_id names the identity");
        }
        self.text(CLIENT)
            .map(Assigned::ClientId)
            .or_else(|| self.text(OBJECT).map(Assigned::ObjectId))
            .or_else(|| self.text(RESOURCE).map(Assigned::ResourceId))
            .unwrap_or_default()
    }
}

/// Entra ID's address, as `https://login.microsoftonline.com/`, without the slash. The error says what would be right.
pub fn parse_authority(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    match host.and_then(|host| super::Domain::parse(host).ok()) {
        Some(domain) => Ok(format!("https://{}", domain.authority())),
        None => {
            Err(format!("{text:?} is no authority: give Entra ID's host, such as https://login.microsoftonline.com"))
        }
    }
}

fn scope(audience: &str) -> String {
    format!("{audience}/.default")
}
