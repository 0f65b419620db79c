//! The options of an emulator.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::rate_limits::RateLimits;

/// The tenant of [`Client::default`].
pub const TENANT: &str = "72f988bf-0000-4000-8000-000000000001";
/// The application of [`Client::default`].
pub const CLIENT_ID: &str = "72f988bf-0000-4000-8000-000000000002";
/// The secret of [`Client::default`].
pub const CLIENT_SECRET: &str = "a~secret-of-the-emulator";

/// The options of an emulator, set before it starts.
///
/// The defaults describe a registry as Azure makes one: an access token for 75 minutes, a
/// refresh token for three hours, no anonymous pull, no ABAC (Azure/acr AAD-OAuth.md); an address of a blob for 20 minutes,
/// as in every recording.
#[derive(Clone, Debug)]
pub struct Options {
    /// The registry's name: the `service` of requests, the `aud` of tokens, a name in the certificate.
    pub login_server: String,
    /// More names and addresses for the certificate, beside `localhost`, `127.0.0.1` and `::1`.
    pub extra_names: Vec<String>,
    /// Where the registry listens, over TLS.
    pub registry_listen: SocketAddr,
    /// Where Entra ID listens, over TLS.
    pub entra_listen: SocketAddr,
    /// Where blob storage listens.
    pub storage_listen: SocketAddr,
    /// Where managed identity endpoints listen, in plain HTTP as in Azure; none by default.
    pub identity_listen: Option<SocketAddr>,
    /// Whether storage speaks TLS; without it a client that lacks the CA can follow a redirect.
    pub storage_tls: bool,
    /// The host of `Location` in blob redirects; the port is [`Options::storage_port`].
    pub storage_host: String,
    /// The port in a challenge's realm, where something stands in front of the registry; else the listener's.
    pub registry_port: Option<u16>,
    /// The port of `Location` in blob redirects, where something stands in front of storage; else the listener's.
    pub storage_port: Option<u16>,
    /// Dedicated data endpoints: blob redirects have another form of address, without a path.
    pub data_endpoints: bool,
    /// Life of the address in a blob redirect, in whole seconds.
    pub redirect_lifetime: Duration,
    /// Role assignments by repository: the wildcard scope is ignored in silence.
    pub abac: bool,
    /// A registry that grants the wildcard scope, claim and all, and then answers a token of it with 401 and a challenge
    /// for the repository.
    pub refuses_wildcard_tokens: bool,
    /// Whether a token is given to callers without credentials.
    pub anonymous_pull: bool,
    /// False is `azureADAuthenticationAsArmPolicy=disabled`: only the registry's own audience is accepted.
    pub accept_arm_audience: bool,
    /// Life of a refresh token.
    pub refresh_lifetime: Duration,
    /// Life of an access token.
    pub access_lifetime: Duration,
    /// Life of an Entra token.
    pub entra_lifetime: Duration,
    /// Seconds that the emulator's clock is ahead of the machine's.
    pub clock_skew: i64,
    /// The applications that Entra knows.
    pub clients: Vec<Client>,
    /// The identities of the machine; the first one is taken when a request names none.
    pub managed_identities: Vec<ManagedIdentity>,
    /// The secret that App Service gives to its programs as `IDENTITY_HEADER`.
    pub identity_header: String,
    /// Where the Azure Arc agent writes its challenge keys; without it there is no Arc endpoint.
    pub arc_key_directory: Option<PathBuf>,
    /// Calls a minute that the registry answers; no limits by default.
    pub rate_limits: RateLimits,
    /// Delay before each answer.
    pub latency: Duration,
}

impl Default for Options {
    fn default() -> Options {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Options {
            login_server: "example.azurecr.io".to_owned(),
            extra_names: Vec::new(),
            registry_listen: any_port,
            entra_listen: any_port,
            storage_listen: any_port,
            identity_listen: None,
            storage_tls: true,
            storage_host: "127.0.0.1".to_owned(),
            registry_port: None,
            storage_port: None,
            data_endpoints: false,
            redirect_lifetime: Duration::from_secs(20 * 60),
            abac: false,
            refuses_wildcard_tokens: false,
            anonymous_pull: false,
            accept_arm_audience: true,
            refresh_lifetime: Duration::from_secs(3 * 60 * 60),
            access_lifetime: Duration::from_secs(75 * 60),
            entra_lifetime: Duration::from_secs(3_599),
            clock_skew: 0,
            clients: vec![Client::default()],
            managed_identities: vec![ManagedIdentity::default()],
            identity_header: "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a".to_owned(),
            arc_key_directory: None,
            rate_limits: RateLimits::NONE,
            latency: Duration::ZERO,
        }
    }
}

/// An application (service principal) that Entra knows, with what proves its identity.
///
/// Any of the three credentials may be set, as an application may have several of them
/// (entra-docs v2-oauth2-client-creds-grant-flow).
#[derive(Clone, Debug)]
pub struct Client {
    /// The directory that the application lives in.
    pub tenant: String,
    /// The application's identifier.
    pub client_id: String,
    /// A client secret.
    pub secret: Option<String>,
    /// The public certificate that signs assertions, in PEM.
    pub certificate_pem: Option<String>,
    /// The `sub` of tokens of a federated issuer, such as `system:serviceaccount:ns:name`.
    pub federated_subject: Option<String>,
    /// The `iss` of the same tokens; any issuer when there is none.
    pub federated_issuer: Option<String>,
    /// Whether the identity holds AcrPull (or, with ABAC, Repository Reader) on the registry.
    pub may_pull: bool,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            tenant: TENANT.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            secret: Some(CLIENT_SECRET.to_owned()),
            certificate_pem: None,
            federated_subject: None,
            federated_issuer: None,
            may_pull: true,
        }
    }
}

/// A managed identity of the machine, system-assigned or user-assigned.
///
/// A request picks one by client, object or resource identifier
/// (entra-docs how-to-use-vm-token).
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    /// The directory that the identity lives in.
    pub tenant: String,
    /// What `client_id` names.
    pub client_id: String,
    /// What `object_id` names, and App Service's `principal_id`.
    pub object_id: String,
    /// What the metadata service's `msi_res_id` and App Service's `mi_res_id` names.
    pub resource_id: Option<String>,
    /// Whether the identity holds AcrPull on the registry.
    pub may_pull: bool,
}

impl Default for ManagedIdentity {
    fn default() -> ManagedIdentity {
        ManagedIdentity {
            tenant: TENANT.to_owned(),
            client_id: "72f988bf-0000-4000-8000-000000000003".to_owned(),
            object_id: "72f988bf-0000-4000-8000-000000000004".to_owned(),
            resource_id: None,
            may_pull: true,
        }
    }
}
