//! Each source of an identity, by name and in the chain.

use std::net::SocketAddr;

use acr_emulator::{Client, Emulator, Hop, Image, ManagedIdentity, Options, Recorded};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p12_keystore::{Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKeyChain};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::wire;
use testkit::{CLIENT, PATIENCE, Proxy, SECRET, Setup, TENANT, wait_for};

/// Throwaway keys, shared with the emulator's own tests.
pub(crate) const CERTIFICATE: &str = include_str!("../../emulator/tests/it/keys/registered.crt");
pub(crate) const KEY: &str = include_str!("../../emulator/tests/it/keys/registered.key");
pub(crate) const STRANGER: &str = concat!(
    include_str!("../../emulator/tests/it/keys/other.crt"),
    include_str!("../../emulator/tests/it/keys/other.key")
);
const SUBJECT: &str = "system:serviceaccount:kube-system:pull";
const RESOURCE_ID: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull";

/// An Azure that knows one application by three proofs, and two managed identities: the system's, which may not pull,
/// and an assigned one, which may.
pub(crate) async fn azure(options: Options) -> Emulator {
    let client = Client {
        tenant: TENANT.to_owned(),
        client_id: CLIENT.to_owned(),
        secret: Some(SECRET.to_owned()),
        certificate_pem: Some(CERTIFICATE.to_owned()),
        federated_subject: Some(SUBJECT.to_owned()),
        ..Client::default()
    };
    let system = ManagedIdentity { tenant: TENANT.to_owned(), may_pull: false, ..ManagedIdentity::default() };
    let assigned = ManagedIdentity {
        tenant: TENANT.to_owned(),
        client_id: "c0000000-0000-4000-8000-000000000001".to_owned(),
        object_id: "0b000000-0000-4000-8000-000000000001".to_owned(),
        resource_id: Some(RESOURCE_ID.to_owned()),
        may_pull: true,
    };
    let azure = Emulator::start(Options {
        clients: vec![client],
        managed_identities: vec![system, assigned],
        identity_listen: loopback(),
        ..options
    });
    let azure = azure.await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    azure
}

fn loopback() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The address of the machine's identity endpoint.
fn endpoint(azure: &Emulator) -> SocketAddr {
    azure.identity_addr().expect("asked for in the options")
}

pub(crate) fn status(proxy: &Proxy) -> u16 {
    let accept = "Accept: application/vnd.oci.image.index.v1+json\r\n";
    wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", accept).status
}

pub(crate) fn pkcs12(password: &str) -> Vec<u8> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate");
    let certificate = Certificate::from_der(&certificate).expect("a certificate");
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(key.secret_pkcs8_der(), [1_u8], [certificate]);
    store.add_entry("client", KeyStoreEntry::PrivateKeyChain(chain));
    store
        .writer(password)
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .write()
        .expect("written")
}

/// A federated token as a cluster signs it; the emulator looks at its claims.
pub(crate) fn service_account_token(id: &str) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs();
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = serde_json::json!({
        "iss": "https://oidc.example/1", "sub": SUBJECT, "aud": "api://AzureADTokenExchange", "jti": id,
        "iat": now, "nbf": now, "exp": now + 3600,
    });
    format!("{}.{}.c2ln", encode(serde_json::json!({"alg": "RS256", "typ": "JWT"})), encode(claims))
}

/// A program that a developer has, answering with a token that it gets from the emulator by the client's secret.
fn developer_tool(setup: Setup, azure: &Emulator, name: &str, answer: &str) -> Setup {
    let ca = setup.file("tool-ca.pem", azure.ca_pem());
    let script = format!(
        "#!/bin/sh\ntoken=$(curl -s --cacert {} {}{TENANT}/oauth2/v2.0/token -d grant_type=client_credentials \
         -d client_id={CLIENT} --data-urlencode 'client_secret={SECRET}' \
         --data-urlencode scope=https://containerregistry.azure.net/.default | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\n{answer}\n",
        ca.display(),
        azure.authority()
    );
    tool(setup, name, &script)
}

/// A program on the path of a proxy that has no other identity.
pub(crate) fn tool(setup: Setup, name: &str, script: &str) -> Setup {
    let path = setup.file(name, script);
    let mut permissions = std::fs::metadata(&path).expect("written").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&path, permissions).expect("made executable");
    let folder = path.parent().expect("a folder").to_string_lossy().into_owned();
    setup.nobody().env("PATH", &format!("{folder}:/usr/local/bin:/usr/bin:/bin"))
}

type Build = fn(&Emulator, Setup) -> Setup;
type Seen = fn(&Recorded) -> bool;

/// What is set, by which name it signs in, and what the service that gave the token saw.
const SOURCES: [(&str, Build, &str, Seen); 17] = [
    ("a secret by variables", |_, setup| setup, "client secret", |seen| seen.body.contains("client_secret=")),
    (
        "a secret by name",
        |_, setup| {
            let file = setup.file("secret", format!("{SECRET}\n"));
            setup.nobody().settings(&format!(
                "identity: {{kind: client_secret, tenant_id: {TENANT}, client_id: {CLIENT}, client_secret_file: {}}}",
                file.display()
            ))
        },
        "client secret",
        |seen| seen.body.contains("client_secret="),
    ),
    (
        "a certificate by variables",
        |_, setup| {
            let file = setup.file("client.pem", format!("{CERTIFICATE}{KEY}"));
            setup.env("AZURE_CLIENT_SECRET", "").env("AZURE_CLIENT_CERTIFICATE_PATH", &file.to_string_lossy())
        },
        "client certificate",
        |seen| seen.body.contains("client_assertion="),
    ),
    (
        "PKCS#12 by variables",
        |_, setup| {
            let file = setup.file("client.pfx", pkcs12("pass word"));
            setup
                .env("AZURE_CLIENT_SECRET", "")
                .env("AZURE_CLIENT_CERTIFICATE_PATH", &file.to_string_lossy())
                .env("AZURE_CLIENT_CERTIFICATE_PASSWORD", "pass word")
        },
        "client certificate",
        |seen| seen.body.contains("client_assertion="),
    ),
    (
        "PKCS#12 by name",
        |_, setup| {
            let (file, password) =
                (setup.file("client.pfx", pkcs12("pass word")), setup.file("password", "pass word\n"));
            setup.settings(&format!(
                "identity:\n  kind: client_certificate\n  certificate_file: {}\n  certificate_password_file: {}",
                file.display(),
                password.display()
            ))
        },
        "client certificate",
        |seen| seen.body.contains("client_assertion="),
    ),
    (
        "workload identity by variables",
        |_, setup| {
            let file = setup.file("token", service_account_token("1"));
            setup.env("AZURE_CLIENT_SECRET", "").env("AZURE_FEDERATED_TOKEN_FILE", &file.to_string_lossy())
        },
        "workload identity",
        |seen| seen.body.contains("client_assertion="),
    ),
    (
        "workload identity by name",
        |_, setup| {
            let file = setup.file("token", service_account_token("1"));
            setup.nobody().settings(&format!(
                "identity: {{kind: workload_identity, tenant_id: {TENANT}, client_id: {CLIENT}, token_file: {}}}",
                file.display()
            ))
        },
        "workload identity",
        |seen| seen.body.contains("client_assertion="),
    ),
    (
        "App Service, picked by AZURE_CLIENT_ID",
        |azure, setup| setup.managed(azure).env("AZURE_CLIENT_ID", "c0000000-0000-4000-8000-000000000001"),
        "managed identity",
        |seen| seen.target.contains("client_id=c0000000") && seen.header("x-identity-header").is_some(),
    ),
    (
        "App Service, by client id",
        |azure, setup| {
            setup
                .managed(azure)
                .settings("identity: {kind: managed_identity, client_id: c0000000-0000-4000-8000-000000000001}")
        },
        "managed identity",
        |seen| seen.target.contains("client_id=c0000000"),
    ),
    (
        "App Service, by object id",
        |azure, setup| {
            setup
                .managed(azure)
                .settings("identity: {kind: managed_identity, object_id: 0b000000-0000-4000-8000-000000000001}")
        },
        "managed identity",
        |seen| seen.target.contains("=0b000000"),
    ),
    (
        "App Service, by resource id",
        |azure, setup| {
            setup.managed(azure).settings(&format!("identity: {{kind: managed_identity, resource_id: {RESOURCE_ID}}}"))
        },
        "managed identity",
        |seen| seen.target.contains("mi_res_id=%2Fsubscriptions%2Fs%2F") && seen.header("metadata").is_none(),
    ),
    (
        "the Azure CLI by name",
        |azure, setup| {
            let answer = "printf '{\"accessToken\":\"%s\",\"expires_on\":%s,\"tokenType\":\"Bearer\"}' \"$token\" $(($(date +%s)+3600))";
            developer_tool(setup, azure, "az", answer).settings("identity: {kind: azure_cli}")
        },
        "Azure CLI",
        |seen| seen.header("user-agent").is_some_and(|agent| agent.starts_with("curl")),
    ),
    (
        "the Azure CLI at the end of the chain",
        |azure, setup| {
            let answer = "printf '{\"accessToken\":\"%s\",\"expires_on\":%s,\"tokenType\":\"Bearer\"}' \"$token\" $(($(date +%s)+3600))";
            // With a managed identity that gives nothing, and without asking this machine's own metadata service.
            developer_tool(setup, azure, "az", answer)
                .env("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
                .env("IDENTITY_HEADER", "x")
        },
        "Azure CLI",
        |seen| seen.header("user-agent").is_some_and(|agent| agent.starts_with("curl")),
    ),
    (
        "the Azure Developer CLI by name",
        |azure, setup| {
            let answer = "printf '{\"token\":\"%s\",\"expiresOn\":\"%s\"}' \"$token\" \"$(date -u -d +1hour +%Y-%m-%dT%H:%M:%SZ)\"";
            developer_tool(setup, azure, "azd", answer).settings("identity: {kind: azure_developer_cli}")
        },
        "Azure Developer CLI",
        |seen| seen.header("user-agent").is_some_and(|agent| agent.starts_with("curl")),
    ),
    (
        "the audience of Azure Resource Manager",
        |_, setup| setup.settings("identity: {audience: arm}"),
        "client secret",
        |seen| seen.body.contains("management.azure.com"),
    ),
    (
        "an authority by name",
        |azure, setup| {
            let authority = azure.authority();
            setup
                .env("AZURE_AUTHORITY_HOST", "https://login.invalid")
                .settings(&format!("identity: {{authority: '{authority}'}}"))
        },
        "client secret",
        |seen| seen.body.contains("containerregistry.azure.net"),
    ),
    (
        "a secret goes before a certificate and a managed identity",
        |azure, setup| setup.managed(azure).secret(SECRET).env("AZURE_CLIENT_CERTIFICATE_PATH", "/nonexistent"),
        "client secret",
        |seen| seen.body.contains("client_secret="),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_source_pulls() {
    for (what, build, name, saw) in SOURCES {
        let azure = azure(Options { accept_arm_audience: true, ..Options::default() }).await;
        let proxy = build(&azure, Setup::new(&azure)).start();
        assert_eq!(status(&proxy), 200, "{what}");
        proxy.wait_for_log(&format!("entra: signed in by {name}"));
        let requests = azure.requests();
        let issued = requests.iter().find(|seen| matches!(seen.hop, Hop::Entra | Hop::Imds) && seen.status == 200);
        assert!(issued.is_some_and(saw), "{what}: {requests:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_arc_gives_a_token_for_the_content_of_its_key_file() {
    let keys = tempfile::tempdir().expect("a folder");
    let options = Options { arc_key_directory: Some(keys.path().to_owned()), ..Options::default() };
    let arc = |azure: &Emulator, folder: &std::path::Path| {
        Setup::new(azure)
            .nobody()
            .env("IDENTITY_ENDPOINT", &format!("http://{}/metadata/identity/oauth2/token", endpoint(azure)))
            .env("IMDS_ENDPOINT", &format!("http://{}", endpoint(azure)))
            .settings(&format!("identity: {{kind: azure_arc, key_directory: {}}}", folder.display()))
            .start()
    };
    let azure = Emulator::start(Options { clients: Vec::new(), identity_listen: loopback(), ..options })
        .await
        .expect("started");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let proxy = arc(&azure, keys.path());
    assert_eq!(status(&proxy), 200);
    proxy.wait_for_log("entra: signed in by Azure Arc");

    // A challenge that names any other file gets no answer, for it could be any file of this machine.
    azure.clear_requests();
    let proxy = arc(&azure, std::path::Path::new("/var/opt/azcmagent/tokens"));
    proxy.wait_for_log("which is no key in /var/opt/azcmagent/tokens");
    assert!(azure.requests().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_pulls_work_where_allowed_and_are_explained_where_not() {
    for (anonymous_pull, expected) in [(true, 200), (false, 503)] {
        let azure = azure(Options { anonymous_pull, ..Options::default() }).await;
        let proxy = Setup::new(&azure).settings("identity: {kind: anonymous}").start();
        assert_eq!(status(&proxy), expected, "{}", proxy.log());
        assert!(azure.requests().iter().all(|seen| !matches!(seen.hop, Hop::Entra | Hop::Exchange)));
        if !anonymous_pull {
            proxy.wait_for_log("the registry does not allow anonymous pulls");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_setting_of_a_source_is_named() {
    let stranger = |setup: &Setup| setup.file("stranger.pem", STRANGER);
    let cases: [(&str, Build, &str); 6] = [
        (
            "no file",
            |_, setup| setup.settings("identity: {kind: client_secret, client_secret_file: /nonexistent}"),
            "identity.client_secret_file /nonexistent: No such file",
        ),
        (
            "no certificate",
            |_, setup| setup.settings("identity: {kind: client_certificate, certificate_file: /nonexistent}"),
            "/nonexistent: No such file",
        ),
        (
            "a wrong password",
            |_, setup| {
                let file = setup.file("client.pfx", pkcs12("right"));
                setup.settings(&format!("identity: {{kind: client_certificate, certificate_file: {}}}", file.display()))
            },
            "not PKCS#12, or another password opens it",
        ),
        (
            "Azure Arc's variables",
            |_, setup| {
                let setup = setup.nobody().env("IDENTITY_ENDPOINT", "http://127.0.0.1:1/").env("IMDS_ENDPOINT", "x");
                setup.settings("identity: {kind: managed_identity}")
            },
            "entra: managed identity: IDENTITY_ENDPOINT without IDENTITY_HEADER is Azure Arc's",
        ),
        (
            "Service Fabric's variables",
            |azure, setup| {
                let setup = setup.managed(azure).env("IDENTITY_SERVER_THUMBPRINT", "x");
                setup.settings("identity: {kind: managed_identity}")
            },
            "entra: managed identity: Service Fabric's managed identity is not supported",
        ),
        (
            "no az",
            |_, setup| setup.nobody().env("PATH", "/nonexistent").settings("identity: {kind: azure_cli}"),
            "entra: Azure CLI: ",
        ),
    ];
    for (what, build, says) in cases {
        let azure = azure(Options::default()).await;
        let proxy = build(&azure, Setup::new(&azure)).start();
        let line = proxy.wait_for_log(says);
        assert!(line.contains(" WARN "), "{what}: {line}");
    }
    let azure = azure(Options::default()).await;
    let setup = Setup::new(&azure).env("AZURE_CLIENT_SECRET", "");
    let file = stranger(&setup);
    let proxy = setup.env("AZURE_CLIENT_CERTIFICATE_PATH", &file.to_string_lossy()).start();
    proxy
        .wait_for_log("client certificate: 401 invalid_client: the certificate is not registered with the application");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_missing_is_read_when_it_is_there() {
    let azure = azure(Options::default()).await;
    let setup = Setup::new(&azure).env("AZURE_CLIENT_SECRET", "");
    let file = setup.path("late.pem");
    let proxy = setup.env("AZURE_CLIENT_CERTIFICATE_PATH", &file.to_string_lossy()).start();
    proxy.wait_for_log("late.pem: No such file");
    std::fs::write(&file, format!("{CERTIFICATE}{KEY}")).expect("written");
    // It is looked at again after half a minute to a minute: a person has to mend it.
    let token = azure.wait_for(|requests| requests.iter().any(|seen| seen.hop == Hop::Token && seen.status == 200));
    tokio::time::timeout(2 * PATIENCE, token).await.expect("a token");
    assert_eq!(status(&proxy), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_token_is_read_again_when_it_rotates() {
    // The token of Entra ID lasts until it is exchanged, even on a loaded machine, and has ended at the next renewal.
    let options = Options { refresh_lifetime: std::time::Duration::from_secs(12), ..Options::default() };
    let azure = azure(Options { entra_lifetime: std::time::Duration::from_secs(3), ..options }).await;
    let setup = Setup::new(&azure).env("AZURE_CLIENT_SECRET", "");
    let file = setup.file("token", service_account_token("first"));
    let proxy = setup.env("AZURE_FEDERATED_TOKEN_FILE", &file.to_string_lossy()).start();
    assert_eq!(status(&proxy), 200);
    let second = service_account_token("second");
    std::fs::write(&file, &second).expect("written");
    wait_for(&azure, "the second token", |requests| {
        requests.iter().any(|seen| seen.hop == Hop::Entra && seen.body.contains(&second))
    })
    .await;
}

/// The shell that runs it and what it runs itself would otherwise stay, one more for each try.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_hangs_is_ended_with_its_attempt() {
    let azure = azure(Options::default()).await;
    let setup = Setup::new(&azure);
    let pids = setup.path("pids");
    let script = format!("#!/bin/sh\nsleep 3600 &\necho $$ $! >> {}\nwait\n", pids.display());
    let proxy = tool(setup, "az", &script).settings("identity: {kind: azure_cli}").start();
    proxy.wait_for_log("entra: Azure CLI: no token within 15 s, trying again");
    let text = std::fs::read_to_string(&pids).expect("it ran");
    let first: Vec<_> = text.lines().next().expect("a line").split(' ').collect();
    assert_eq!(first.len(), 2, "{text}");
    let deadline = std::time::Instant::now() + PATIENCE;
    // A process that has ended and is not yet waited for has no command line.
    let runs = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    while first.iter().any(|pid| runs(pid)) {
        assert!(std::time::Instant::now() < deadline, "{text} still run");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// `az` and the metadata service keep tokens of their own, which a revoked session makes useless as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_that_its_source_gives_again_is_not_called_a_missing_role() {
    let azure = azure(Options::default()).await;
    azure.inject(Hop::Exchange, acr_emulator::Fault::Status(503));
    let setup = Setup::new(&azure);
    let kept = setup.path("token-cache");
    let answer = format!(
        "[ -f {0} ] || echo \"$token\" > {0}\nprintf '{{\"accessToken\":\"%s\",\"expires_on\":%s,\"tokenType\":\"Bearer\"}}' \
         $(cat {0}) $(($(date +%s)+3600))",
        kept.display()
    );
    let proxy = developer_tool(setup, &azure, "az", &answer).settings("identity: {kind: azure_cli}").start();
    wait_for(&azure, "an exchange", |requests| requests.iter().any(|request| request.hop == Hop::Exchange)).await;
    azure.revoke_entra_tokens();
    azure.clear_faults();
    let line = proxy.wait_for_log("token exchange: 401");
    assert!(line.contains("still gives the same one") && !line.contains("no role"), "{line}");
    let refused = azure.requests().iter().filter(|seen| seen.hop == Hop::Exchange && seen.status == 401).count();
    assert_eq!(refused, 1, "the same token is not sent twice");
}

/// It was signed in without a word, and the token counted for five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_endpoint_that_does_not_say_when_its_token_ends_is_told() {
    let azure = azure(Options::default()).await;
    for ends in ["99/99/9999 99:99:99 PM +99:99", "\\u001b[31m"] {
        let body = format!(r#"{{"access_token":"x","token_type":"Bearer","expires_on":"{ends}"}}"#);
        azure.inject(Hop::Imds, acr_emulator::Fault::StatusWith { status: 200, headers: Vec::new(), body });
        let proxy = Setup::new(&azure).managed(&azure).start();
        let line =
            proxy.wait_for_log("expires_on of its endpoint's token is no number of seconds: it counts for 300 s");
        assert!(line.contains(" WARN ") && !line.contains("31m"), "{line}");
        azure.clear_faults();
    }
}
