//! Ways that are broken before the first image is asked for, with and without an egress proxy.

use std::net::{Ipv4Addr, SocketAddr};

use acr_emulator::{Fault, Hop, ManagedIdentity, Options};
use testkit::Setup;
use testkit::forward::Does;

use crate::identity::never_ends;

use super::{Broken, FROM_EXCHANGE, FROM_MANIFEST, FROM_REGISTRY, FROM_TCP, FROM_TLS, FROM_TOKEN, plain};

/// The error that a way behind `egress` ends in.
fn behind(setup: Setup, proxy: SocketAddr) -> Setup {
    setup.by_name().env("HTTPS_PROXY", &format!("http://puller:p%40ss%3Aw%23rd@{proxy}")).env("NO_PROXY", "127.0.0.1")
}

fn error(status: u16, code: &str, message: &str) -> Fault {
    let headers = vec![("Content-Type".to_owned(), "application/json; charset=utf-8".to_owned())];
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    Fault::StatusWith { status, headers, body }
}

const FIREWALL: &str =
    "client with IP '192.0.2.7' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.";

pub(super) const BROKEN: &[Broken] = &[
    Broken { what: "nothing", options: plain, breaks: |_, _, setup| setup, found: &[], skipped: &[] },
    // Where a service signed in, this "failed", and `init` said that pulls go to the source.
    Broken {
        what: "only the unit has the secret",
        options: plain,
        breaks: |_, _, setup| {
            let file = "client_secret_file: $CREDENTIALS_DIRECTORY/client-secret";
            setup.settings(&format!("identity: {{kind: client_secret, {file}}}"))
        },
        found: &[],
        skipped: &[
            "configuration",
            "identity",
            "exchange",
            "token",
            "manifest",
            "blob",
            "storage-dns",
            "storage-tcp",
            "storage-tls",
            "storage",
        ],
    },
    Broken {
        what: "the registry's name is not in DNS",
        options: plain,
        breaks: |_, _, setup| {
            let setup = setup.edit(|config| config.replacen("example.azurecr.io", "no-such-registry.invalid", 1));
            setup.by_name()
        },
        found: &[(
            "dns",
            "failed",
            "DNS look-up of no-such-registry.invalid: check the name and this host's resolver: *",
        )],
        skipped: FROM_TCP,
    },
    Broken {
        what: "nothing listens at the registry's port",
        options: plain,
        breaks: |azure, others, _| Setup::registry(azure, others.closed).switch("--online").switch("--json"),
        found: &[(
            "tcp",
            "failed",
            "no connection: check the domain, the network path, a private endpoint's DNS and the CA: connection refused: 127.0.0.1:*",
        )],
        skipped: FROM_TLS,
    },
    Broken {
        what: "the CA of the registry's certificate is not trusted",
        options: plain,
        breaks: |_, others, setup| {
            let setup = setup.settings("identity: {kind: anonymous}");
            setup.file("ca.pem", others.authority.pem());
            setup
        },
        found: &[(
            "tls",
            "failed",
            "its certificate is not trusted: a private CA goes into ca_file: it is issued by acr-emulator CA",
        )],
        skipped: FROM_REGISTRY,
    },
    Broken {
        what: "the registry's certificate has expired",
        options: plain,
        breaks: |azure, others, _| others.trusted(azure, others.expired),
        found: &[(
            "tls",
            "failed",
            "its certificate ended on Sat, 03 Feb 2024 04:05:06 GMT: who runs the host has to renew it, or this host's clock is wrong",
        )],
        skipped: FROM_REGISTRY,
    },
    Broken {
        what: "the registry's certificate is another host's",
        options: plain,
        breaks: |azure, others, _| others.trusted(azure, others.misnamed),
        found: &[(
            "tls",
            "failed",
            "its certificate is for intranet.corp, and not for example.azurecr.io: check the domain and a private endpoint's DNS",
        )],
        skipped: FROM_REGISTRY,
    },
    Broken {
        what: "the registry's firewall answers 403 to all",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Data, error(403, "DENIED", FIREWALL));
            setup
        },
        found: &[(
            "registry",
            "failed",
            "the registry's firewall denies this host: allow its address there, or reach the registry by a private endpoint: \
             the registry answers 403 DENIED: client with IP '192.0.2.7' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.",
        )],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "the registry takes a request and never answers",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Data, Fault::Hang);
            setup
        },
        found: &[(
            "registry",
            "failed",
            "no answer within 10 s: is a middlebox between? Try again, and look at Azure's status",
        )],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "another server has the registry's name",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Data, Fault::StatusWith { status: 302, headers: vec![], body: "Sign in".to_owned() });
            setup
        },
        found: &[(
            "registry",
            "failed",
            "is this domain an Azure container registry, and nothing between? Check the domain and a private endpoint's DNS: the registry answers 302",
        )],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "this host's clock is 10 minutes behind",
        options: || Options { clock_skew: 600, ..testkit::options() },
        breaks: |_, _, setup| setup,
        found: &[(
            "clock",
            "warning",
            "this host's clock is * s behind the registry's: set it (timedatectl, chronyc makestep): from 300 s on Entra refuses to sign in a \
             client certificate, and good certificates may count as ended or not begun",
        )],
        skipped: &[],
    },
    Broken {
        what: "the machine has no identity endpoint",
        options: plain,
        breaks: |_, others, setup| {
            let endpoint = format!("http://{}/msi/token", others.closed);
            let setup = setup.nobody().settings("identity: {kind: managed_identity}");
            setup.env("IDENTITY_ENDPOINT", &endpoint).env("IDENTITY_HEADER", "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a")
        },
        found: &[(
            "identity",
            "failed",
            "entra: managed identity: no connection: check the network path, DNS and the CA: *Connection refused*",
        )],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "the machine does not have the identity that is named",
        options: || Options {
            identity_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            managed_identities: vec![ManagedIdentity::default()],
            ..testkit::options()
        },
        breaks: |azure, _, setup| {
            let id = "00000000-0000-0000-0000-0000000000ff";
            setup.managed(azure).settings(&format!("identity: {{kind: managed_identity, client_id: {id}}}"))
        },
        found: &[(
            "identity",
            "failed",
            "entra: managed identity: 400 *: no such managed identity is assigned to this machine: *",
        )],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "Entra ID gives a token that ends in 292 billion years",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Entra, never_ends());
            setup
        },
        found: &[("identity", "failed", "entra: client secret: 200: the answer is not a token: *")],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "something answers in Entra ID's place, without a token",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Entra, Fault::StatusWith { status: 200, headers: Vec::new(), body: "{}".to_owned() });
            setup
        },
        found: &[("identity", "failed", "entra: client secret: 200: the answer is not a token: *")],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "the client secret is wrong",
        options: plain,
        breaks: |_, _, setup| setup.secret("wrong~secret"),
        found: &[(
            "identity",
            "failed",
            "entra: client secret: 401 invalid_client: the client secret is wrong: AADSTS7000215: *",
        )],
        skipped: FROM_EXCHANGE,
    },
    Broken {
        what: "the identity has no role",
        options: || {
            let mut options = testkit::options();
            options.clients.iter_mut().for_each(|client| client.may_pull = false);
            options
        },
        breaks: |_, _, setup| setup,
        found: &[(
            "exchange",
            "failed",
            "acr example.azurecr.io:*: token exchange: 401 UNAUTHORIZED: the identity has no role on this registry (assign AcrPull), \
             or the registry is of another tenant: authentication required, *",
        )],
        skipped: FROM_TOKEN,
    },
    Broken {
        what: "the firewall refuses the exchange",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Exchange, error(403, "DENIED", FIREWALL));
            setup
        },
        found: &[(
            "exchange",
            "failed",
            "acr example.azurecr.io:*: token exchange: 403 DENIED: the registry's firewall denies this host: allow its address there, \
             or reach the registry by a private endpoint: client with IP '192.0.2.7' is not allowed access. *",
        )],
        skipped: FROM_TOKEN,
    },
    Broken {
        what: "the exchange is refused without a word of the firewall",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Exchange, error(403, "DENIED", "retrieving permissions failed"));
            setup
        },
        found: &[(
            "exchange",
            "failed",
            "acr example.azurecr.io:*: token exchange: 403 DENIED: the identity lacks AcrPull or a firewall rule denies this host: \
             retrieving permissions failed",
        )],
        skipped: FROM_TOKEN,
    },
    Broken {
        what: "the exchange is not there",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Exchange, Fault::Status(404));
            setup
        },
        found: &[(
            "exchange",
            "failed",
            "acr example.azurecr.io:*: token exchange: 404: no such endpoint: is this domain an Azure container registry?*",
        )],
        skipped: FROM_TOKEN,
    },
    Broken {
        what: "no token is given for the scope",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Token, error(403, "DENIED", "retrieving permissions failed"));
            setup
        },
        found: &[(
            "token",
            "failed",
            "acr example.azurecr.io:*: access token: 403 DENIED: the identity lacks AcrPull or a firewall rule denies this host: \
             retrieving permissions failed",
        )],
        skipped: FROM_MANIFEST,
    },
    Broken {
        what: "nobody signs in to a registry that wants it",
        options: plain,
        breaks: |_, _, setup| setup.nobody().settings("identity: {kind: anonymous}"),
        found: &[(
            "token",
            "failed",
            "acr example.azurecr.io:*: access token: 401*: the registry does not allow anonymous pulls*",
        )],
        skipped: FROM_MANIFEST,
    },
    Broken {
        what: "the egress proxy wants another password",
        options: plain,
        breaks: |_, others, setup| {
            others.forward.set(Does::Wants("b3RoZXI6b3RoZXI=".to_owned()));
            behind(setup, others.forward.address())
        },
        found: &[(
            "egress",
            "failed",
            "the registry is not reachable: egress proxy 127.0.0.1:*: 407: it refuses the user and the password in HTTPS_PROXY: correct them",
        )],
        skipped: FROM_TLS,
    },
    Broken {
        what: "the egress proxy does not list the registry",
        options: plain,
        breaks: |_, others, setup| {
            others.forward.set(Does::Denies);
            behind(setup, others.forward.address())
        },
        found: &[(
            "egress",
            "failed",
            "the registry is not reachable: egress proxy 127.0.0.1:*: 403 ERR_ACCESS_DENIED: it does not allow CONNECT to example.azurecr.io:*: \
             allow it there, or add the host to no_proxy if this host reaches it directly",
        )],
        skipped: FROM_TLS,
    },
    Broken {
        what: "the egress proxy does not run",
        options: plain,
        breaks: |_, others, setup| behind(setup, others.closed),
        found: &[(
            "egress",
            "failed",
            "the registry is not reachable: egress proxy 127.0.0.1:*: no connection to it: check HTTPS_PROXY, and that it runs: connection refused",
        )],
        skipped: FROM_TLS,
    },
    Broken {
        what: "the egress proxy decrypts TLS",
        options: plain,
        breaks: |_, others, setup| {
            setup.file("ca.pem", others.authority.pem());
            behind(setup.settings("identity: {kind: anonymous}"), others.forward.address())
        },
        found: &[(
            "tls",
            "failed",
            "egress proxy 127.0.0.1:*: it gave a tunnel to example.azurecr.io:*, and no answer came through it: \
             its certificate is not trusted: a private CA goes into ca_file: it is issued by acr-emulator CA",
        )],
        skipped: FROM_REGISTRY,
    },
    Broken {
        what: "the egress proxy is good",
        options: plain,
        breaks: |_, others, setup| behind(setup, others.forward.address()),
        found: &[],
        skipped: &[],
    },
];
