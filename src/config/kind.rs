//! The values of `identity` that are one of a list: kinds, clouds and audiences.

/// Makes the enum of the kinds: a row a kind.
macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident = $name:literal {
        keys: $keys:expr, needs: $needs:expr, works: $works:literal
    })*) => {
        /// A kind of identity, as `identity.kind` names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum KindName {
            $($(#[$about])* $kind,)*
        }

        impl KindName {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),*];

            /// As the file has it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The keys of `identity`, besides `kind`, that mean something to it.
            pub(crate) fn keys(self) -> &'static [&'static str] {
                match self {
                    $(Self::$kind => $keys,)*
                }
            }

            /// The keys without which it cannot sign in, each with the variable that does as well.
            pub(crate) fn needs(self) -> &'static [(&'static str, &'static str)] {
                match self {
                    $(Self::$kind => $needs,)*
                }
            }

            /// Where it works, for the reference.
            #[cfg(test)]
            pub(crate) fn works(self) -> &'static str {
                match self {
                    $(Self::$kind => $works,)*
                }
            }
        }
    };
}

const TENANT: (&str, &str) = ("tenant_id", "AZURE_TENANT_ID");
const CLIENT: (&str, &str) = ("client_id", "AZURE_CLIENT_ID");

kinds! {
    /// The default chain.
    Default = "default" {
        keys: &["cloud", "authority", "audience"],
        needs: &[],
        works: "everywhere: the first of the others that this host has"
    }
    /// An application with a secret.
    ClientSecret = "client_secret" {
        keys: &["cloud", "authority", "audience", "tenant_id", "client_id", "client_secret_file"],
        needs: &[TENANT, CLIENT, ("client_secret_file", "AZURE_CLIENT_SECRET")],
        works: "everywhere"
    }
    /// An application with a certificate.
    ClientCertificate = "client_certificate" {
        keys: &[
            "cloud", "authority", "audience", "tenant_id", "client_id", "certificate_file", "certificate_password_file",
        ],
        needs: &[TENANT, CLIENT, ("certificate_file", "AZURE_CLIENT_CERTIFICATE_PATH")],
        works: "everywhere"
    }
    /// A federated token.
    WorkloadIdentity = "workload_identity" {
        keys: &["cloud", "authority", "audience", "tenant_id", "client_id", "token_file"],
        needs: &[TENANT, CLIENT, ("token_file", "AZURE_FEDERATED_TOKEN_FILE")],
        works: "Kubernetes with the workload identity webhook, which sets everything"
    }
    /// A managed identity.
    ManagedIdentity = "managed_identity" {
        keys: &["cloud", "audience", "client_id", "object_id", "resource_id"],
        needs: &[],
        works: "virtual machines, AKS nodes, App Service, Container Apps"
    }
    /// Azure Arc's agent.
    AzureArc = "azure_arc" {
        keys: &["cloud", "audience", "key_directory"],
        needs: &[],
        works: "machines with Azure Arc's agent"
    }
    /// The Azure CLI.
    AzureCli = "azure_cli" {
        keys: &["cloud", "audience"],
        needs: &[],
        works: "where somebody has signed in with `az login`"
    }
    /// The Azure Developer CLI.
    AzureDeveloperCli = "azure_developer_cli" {
        keys: &["cloud", "audience"],
        needs: &[],
        works: "where somebody has signed in with `azd auth login`"
    }
    /// Nobody.
    Anonymous = "anonymous" {
        keys: &[],
        needs: &[],
        works: "registries that allow anonymous pulls"
    }
}

/// A cloud of Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cloud {
    name: &'static str,
    /// Entra ID's address.
    pub authority: &'static str,
    /// The audience of Azure Resource Manager.
    pub resource_manager: &'static str,
}

/// Names as in the Azure SDKs, addresses as in azcore's `cloud.go`.
const CLOUDS: [Cloud; 3] = [
    Cloud {
        name: "public",
        authority: "https://login.microsoftonline.com",
        resource_manager: "https://management.azure.com",
    },
    Cloud {
        name: "usgovernment",
        authority: "https://login.microsoftonline.us",
        resource_manager: "https://management.usgovcloudapi.net",
    },
    Cloud {
        name: "china",
        authority: "https://login.chinacloudapi.cn",
        resource_manager: "https://management.chinacloudapi.cn",
    },
];

/// What an Entra token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The registries' own.
    Registry,
    /// Azure Resource Manager, at an address that differs from cloud to cloud.
    ResourceManager,
    /// An address of the user's.
    Own(String),
}

/// A kind of identity by its name.
pub(crate) fn parse_kind(text: &str) -> Result<KindName, String> {
    let names = || KindName::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let found = KindName::ALL.iter().copied().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("unknown value {text:?}: use one of {}", names()))
}

/// A cloud by its name.
pub(crate) fn parse_cloud(text: &str) -> Result<Cloud, String> {
    let found = CLOUDS.into_iter().find(|cloud| cloud.name == text);
    found.ok_or_else(|| format!("unknown value {text:?}: use one of {}", CLOUDS.map(|cloud| cloud.name).join(", ")))
}

/// An audience by its name or address.
pub(crate) fn parse_audience(text: &str) -> Result<Audience, String> {
    match text {
        "registry" => Ok(Audience::Registry),
        "arm" => Ok(Audience::ResourceManager),
        own if own.starts_with("https://") && own.len() > "https://".len() => {
            Ok(Audience::Own(own.trim_end_matches('/').to_owned()))
        }
        _ => Err(format!("unknown value {text:?}: use registry, arm or an https:// address")),
    }
}

impl Default for Cloud {
    /// The public cloud.
    fn default() -> Self {
        let [public, ..] = CLOUDS;
        public
    }
}
