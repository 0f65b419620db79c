//! TLS of the listeners: versions, ALPN, client certificates, files that change, handshakes that do not end.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use crate::frames;
use crate::listeners::{connect_unix, is_served};
use crate::wire;
use testkit::certificates::{Authority, Pair};
use testkit::{AT_ONCE, PATIENCE, Proxy, Setup};

/// The proxy's own limit for all that comes before the first request.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 32768 80\r\n";

pub(crate) type Secured<S> = StreamOwned<ClientConnection, S>;

/// A client's settings: it trusts this CA, and may have a certificate.
pub(crate) fn settings(
    ca: &Authority,
    pair: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("PEM")).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match pair {
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    })
}

/// A connection, of which no byte is sent yet.
pub(crate) fn secured<S: io::Read + io::Write>(settings: &Arc<ClientConfig>, stream: S) -> Secured<S> {
    let name = "mirror.internal".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(settings), name).expect("settings"), stream)
}

pub(crate) fn connect(settings: &Arc<ClientConfig>, proxy: &Proxy) -> Secured<TcpStream> {
    secured(settings, wire::connect(proxy.address()))
}

/// One request on this connection, which stays open; its status, or why there is none.
pub(crate) fn ask(connection: &mut (impl io::Read + io::Write)) -> io::Result<u16> {
    connection.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let answer = wire::receive(&mut io::BufReader::new(connection), "GET", usize::MAX)?;
    Ok(answer.answer.status())
}

pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A folder with a pair and the CA of clients, replaced as Kubernetes does: a link to another folder takes the place of one.
pub(crate) struct Secret {
    folder: tempfile::TempDir,
    generation: usize,
}

impl Secret {
    pub(crate) fn new(pair: &Pair, clients: &[&Authority]) -> Self {
        let mut secret = Self { folder: tempfile::tempdir().expect("a folder"), generation: 0 };
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), secret.folder.path().join(name)).expect("a link");
        }
        secret.put(&pair.certificate, &pair.key, clients);
        secret
    }

    pub(crate) fn put(&mut self, certificate: &str, key: &str, clients: &[&Authority]) {
        self.generation += 1;
        let data = self.folder.path().join(format!("..{}", self.generation));
        std::fs::create_dir(&data).expect("a folder");
        let cas: String = clients.iter().map(|ca| ca.pem()).collect();
        for (name, content) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", &cas)] {
            std::fs::write(data.join(name), content).expect("written");
        }
        let link = self.folder.path().join("..new");
        symlink(&data, &link).expect("a link");
        std::fs::rename(link, self.folder.path().join("..data")).expect("swapped");
    }

    /// `tls` of a listener, with more keys.
    pub(crate) fn tls(&self, more: &str) -> String {
        let [certificate, key, ca] = ["tls.crt", "tls.key", "ca.crt"].map(|name| self.path(name));
        format!("{{certificate: {certificate}, key: {key}{}}}", more.replace("{ca}", &ca))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_and_protocol_is_served_over_tcp_unix_and_behind_a_balancer() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let tls = secret.tls("");
    let listen = format!(
        "[{{address: '127.0.0.1:0', tls: {tls}}}, {{unix: '{{}}/socket', tls: {tls}}}, \
         {{address: '127.0.0.1:0', tls: {tls}, proxy_protocol: {{trusted: [127.0.0.1]}}}}]"
    );
    let proxy = Setup::new(&azure).listen(&listen).start();
    proxy.wait_for_log(&format!("listening on https://{}", proxy.address()));
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let settings = settings(&ca, None, versions);
        is_served(connect(&settings, &proxy));
        is_served(secured(&settings, connect_unix(&proxy.path("socket"))));
        for step in [1, 1000] {
            let mut stream = wire::connect(proxy.addresses()[1]);
            stream.set_nodelay(true).expect("a socket");
            V1.chunks(step).for_each(|piece| stream.write_all(piece).expect("sent"));
            is_served(secured(&settings, stream));
        }
    }
    let log = proxy.wait_until("all lines", |log| (log.matches(" access] ").count() == 24).then(|| log.to_owned()));
    assert_eq!(log.matches(" client=192.0.2.7:32768 ").count(), 12, "{log}");
    // curl takes HTTP/2 by ALPN, or HTTP/1.1 where it offers that alone.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), ca.pem()).expect("written");
    for (version, expected) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", version, "--cacert"])
            .arg(file.path())
            .args(["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"])
            .args(["--resolve", &format!("mirror.internal:{}:127.0.0.1", proxy.address().port())])
            .arg(format!("https://mirror.internal:{}/v2/", proxy.address().port()))
            .output()
            .expect("curl runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ends_with_the_connection_has_the_end_of_tls() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""))).start();
    for request in
        ["GET /v2/ HTTP/1.0\r\n\r\n", "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "not HTTP\r\n\r\n"]
    {
        let mut connection = connect(&settings(&ca, None, &BOTH), &proxy);
        connection.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        // Without close_notify this is an error.
        connection.read_to_end(&mut answer).expect("an answer, and the end of TLS");
        assert_eq!(wire::parse(&answer).status, if request.starts_with("GET") { 200 } else { 400 });
    }
    assert!(!proxy.end().contains("speaks plain HTTP"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_needs_a_certificate_of_the_ca_where_one_is_required() {
    let azure = testkit::azure().await;
    let [ca, clients, strangers] = ["mirror CA", "nodes", "strangers"].map(Authority::new);
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[&clients]);
    let listener = |auth: &str| {
        format!("{{address: '127.0.0.1:0', tls: {}}}", secret.tls(&format!(", client_ca: {{ca}}, client_auth: {auth}")))
    };
    let proxy = Setup::new(&azure).listen(&format!("[{}, {}]", listener("required"), listener("optional"))).start();
    let good = clients.client("node-7", "spiffe://example.org/node/7");
    let bad = strangers.client("node-7", "spiffe://example.org/node/7");
    let &[required, optional] = proxy.addresses() else { panic!("two") };
    for versions in [&BOTH[..1], &BOTH[1..]] {
        for (address, pair, is_good) in [
            (required, Some(&good), true),
            (required, Some(&bad), false),
            (required, None, false),
            (optional, Some(&good), true),
            (optional, Some(&bad), false),
            (optional, None, true),
        ] {
            let mut connection = secured(&settings(&ca, pair, versions), wire::connect(address));
            assert_eq!(ask(&mut connection).is_ok_and(|status| status == 200), is_good, "{address} {pair:?}");
        }
    }
    let log = proxy.end();
    assert_eq!(log.matches(" tls=TLSv1.3 certificate=node-7").count(), 2, "{log}");
    assert_eq!(log.matches(" tls=TLSv1.2").count(), 3, "{log}");
    assert_eq!(
        log.matches("error=TLS handshake: the client has no certificate, and client_auth is required").count(),
        2,
        "{log}"
    );
    assert_eq!(log.matches("error=TLS handshake: invalid peer certificate: UnknownIssuer").count(), 4, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_count_for_new_connections_and_a_bad_pair_changes_nothing() {
    let azure = testkit::azure().await;
    let [old, new] = ["old CA", "new CA"].map(Authority::new);
    let [first, second] = [&old, &new].map(|ca| ca.server(&["mirror.internal"]));
    let mut secret = Secret::new(&first, &[]);
    let proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""))).start();
    let [by_old, by_new] = [&old, &new].map(|ca| settings(ca, None, &BOTH));
    let mut kept = connect(&by_old, &proxy);
    assert_eq!(ask(&mut kept).expect("an answer"), 200);
    // The certificate of one pair and the key of the other; then no PEM at all.
    for (certificate, key, says) in [
        (
            second.certificate.as_str(),
            first.key.as_str(),
            "tls.key: the key does not belong to the first certificate of",
        ),
        ("", first.key.as_str(), "tls.crt: no certificate is in it"),
    ] {
        secret.put(certificate, key, &[]);
        let line = proxy.wait_for_log(says);
        assert!(line.contains(" WARN ") && line.ends_with("that were there before stay in use"), "{line}");
        assert_eq!(ask(&mut connect(&by_old, &proxy)).expect("an answer"), 200);
    }
    secret.put(&second.certificate, &second.key, &[]);
    proxy.wait_for_log("the certificate files have changed");
    assert_eq!(ask(&mut connect(&by_new, &proxy)).expect("an answer"), 200);
    assert!(ask(&mut connect(&by_old, &proxy)).is_err(), "it trusts another CA");
    assert_eq!(ask(&mut kept).expect("a kept connection goes on"), 200);
    let log = proxy.end();
    assert_eq!(log.matches("stay in use").count(), 2, "each bad pair is told once: {log}");
    assert!(log.contains("the client refuses the server's certificate or TLS version: UnknownCA"), "{log}");
}

/// It took the place of one that was valid, and the log had one line at `INFO`.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_that_has_ended_is_a_warning() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let mut secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""))).start();
    let ended = ca.server_until(&["mirror.internal"], SystemTime::now() - Duration::from_secs(3600));
    secret.put(&ended.certificate, &ended.key, &[]);
    let line = proxy.wait_for_log("the certificate files have changed");
    assert!(line.contains(" WARN ") && line.ends_with(": clients refuse it, renew it"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_ca_ends_sessions_and_connections_and_an_added_one_ends_none() {
    let azure = testkit::azure().await;
    let [ca, one, other] = ["mirror CA", "nodes", "other nodes"].map(Authority::new);
    let pair = ca.server(&["mirror.internal"]);
    let mut secret = Secret::new(&pair, &[&one]);
    let tls = secret.tls(", client_ca: {ca}, client_auth: optional");
    let proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {tls}}}]")).start();
    let with = |authority: &Authority| settings(&ca, Some(&authority.client("node", "spiffe://x")), &BOTH[1..]);
    let (of_one, of_other, of_nobody) = (with(&one), with(&other), settings(&ca, None, &BOTH[1..]));
    let resumed = |settings: &Arc<ClientConfig>| {
        let mut connection = connect(settings, &proxy);
        let status = ask(&mut connection);
        (status, connection.conn.handshake_kind() == Some(HandshakeKind::Resumed), connection)
    };
    let (status, is_resumed, mut kept) = resumed(&of_one);
    assert!(status.expect("an answer") == 200 && !is_resumed);
    assert!(resumed(&of_one).1, "sessions are resumed");
    let (_, _, mut unnamed) = resumed(&of_nobody);

    secret.put(&pair.certificate, &pair.key, &[&one, &other]);
    proxy.wait_for_log("the certificate files have changed");
    assert_eq!(resumed(&of_other).0.expect("an answer"), 200);
    assert_eq!(ask(&mut kept).expect("an answer"), 200);

    // One that is under way when the CA goes, over which nothing has come yet.
    let mut begun = connect(&of_one, &proxy);
    begun.write_all(b"GET /v2/ HTTP/1.1\r\n").expect("sent");
    let (_, _, mut h1) = resumed(&of_other);
    secret.put(&pair.certificate, &pair.key, &[&other]);
    proxy.wait_for_log("1 CA of clients was removed: connections with client certificates end");
    for connection in [&mut kept, &mut begun, &mut h1] {
        let begun = Instant::now();
        let ended = connection.read(&mut [0; 64]);
        assert!(matches!(ended, Ok(0)) || ended.is_err(), "{ended:?}");
        assert!(begun.elapsed() < AT_ONCE);
    }
    assert!(resumed(&of_one).0.is_err(), "neither a session nor a handshake of the removed CA");
    assert_eq!(resumed(&of_other).0.expect("an answer"), 200);
    assert_eq!(ask(&mut unnamed).expect("it has shown no certificate"), 200);
}

/// A client's certificate, and the one that takes its place while sessions are kept.
#[derive(Debug)]
struct Renewed {
    before: Arc<dyn ResolvesClientCert>,
    after: Arc<dyn ResolvesClientCert>,
    is_renewed: AtomicBool,
}

impl Renewed {
    /// Settings with the certificate that these have, until it is renewed.
    fn of(before: Arc<ClientConfig>, after: &Pair) -> (Arc<ClientConfig>, Arc<Self>) {
        let mut settings = Arc::unwrap_or_clone(before);
        let chain = vec![CertificateDer::from_pem_slice(after.certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(after.key.as_bytes()).expect("PEM");
        let after = CertifiedKey::from_der(chain, key, settings.crypto_provider()).expect("a pair");
        let renewed = Arc::new(Self {
            before: Arc::clone(&settings.client_auth_cert_resolver),
            after: Arc::new(SingleCertAndKey::from(after)),
            is_renewed: AtomicBool::new(false),
        });
        settings.client_auth_cert_resolver = Arc::clone(&renewed) as _;
        (Arc::new(settings), renewed)
    }

    fn now(&self) -> &dyn ResolvesClientCert {
        if self.is_renewed.load(Ordering::Relaxed) { &*self.after } else { &*self.before }
    }
}

impl ResolvesClientCert for Renewed {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.now().resolve(issuers, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_has_ended_ends_its_connections_and_its_sessions_are_not_resumed() {
    // Long enough for what comes before it on a busy machine.
    const LEFT: Duration = Duration::from_secs(8);
    let azure = testkit::azure().await;
    let [ca, nodes] = ["mirror CA", "nodes"].map(Authority::new);
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[&nodes]);
    let tls = secret.tls(", client_ca: {ca}");
    let proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {tls}}}]")).start();
    // A certificate has whole seconds.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let end = UNIX_EPOCH + Duration::from_secs(now) + LEFT;
    let of_node = |pair: &Pair| [&BOTH[..1], &BOTH[1..]].map(|versions| settings(&ca, Some(pair), versions));
    let (short, long) = (nodes.client_until("node", end), nodes.client("node", "spiffe://x"));
    let (ending, lasting) = (of_node(&short), of_node(&long));
    let renewed = of_node(&short).map(|settings| Renewed::of(settings, &long));
    let kept_of = |settings: &Arc<ClientConfig>| {
        let mut kept = connect(settings, &proxy);
        assert_eq!(ask(&mut kept).expect("an answer"), 200);
        let mut again = connect(settings, &proxy);
        assert_eq!(ask(&mut again).expect("an answer"), 200);
        assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        kept
    };
    let mut ending_soon = ending.each_ref().map(kept_of);
    let _renewed_soon = renewed.each_ref().map(|(settings, _)| kept_of(settings));
    let mut others = lasting.each_ref().map(kept_of);
    let mut over_h2 = {
        let mut settings = ClientConfig::clone(&ending[1]);
        settings.alpn_protocols = vec![b"h2".to_vec()];
        let mut connection = connect(&Arc::new(settings), &proxy);
        let first = [frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[])].concat();
        connection.write_all(&first).expect("sent");
        connection
    };
    for connection in &mut ending_soon {
        let ended = connection.read(&mut [0; 64]);
        assert!(matches!(ended, Ok(0)) || ended.is_err(), "{ended:?}");
    }
    while frames::read(&mut over_h2).expect("a frame that tells the end").0 != frames::GOAWAY {}
    let ended = SystemTime::now().duration_since(end).expect("not before the certificate");
    assert!(ended < AT_ONCE, "{ended:?}");
    for settings in &ending {
        // By a session, and by a handshake.
        for _ in 0..2 {
            assert!(ask(&mut connect(settings, &proxy)).is_err());
        }
    }
    for connection in &mut others {
        assert_eq!(ask(connection).expect("of another client"), 200);
    }
    for (settings, renewed) in &renewed {
        renewed.is_renewed.store(true, Ordering::Relaxed);
        // It still offers its session, and shows the new certificate when that is not resumed.
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut connection = connect(settings, &proxy);
            assert_eq!(ask(&mut connection).expect("an answer"), 200);
            assert_eq!(connection.conn.handshake_kind(), Some(kind));
        }
    }
    assert_eq!(proxy.end().matches("error=TLS handshake: invalid peer certificate: certificate expired").count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused_and_a_slow_one_ends_in_time() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let secret = Secret::new(&ca.server(&["mirror.internal"]), &[]);
    let tls = secret.tls("");
    let listen = format!(
        "[{{address: '127.0.0.1:0', tls: {tls}}}, {{address: '127.0.0.1:0', tls: {tls}, proxy_protocol: {{trusted: [192.0.2.1]}}}}]"
    );
    let proxy = Setup::new(&azure).listen(&listen).start();
    let &[plain, untrusting] = proxy.addresses() else { panic!("two") };
    for address in [plain, untrusting] {
        let answer = wire::send(address, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(wire::parse(&answer).status == 400 && wire::parse(&answer).body.contains("speaks TLS: use https"));
        // No answer, since a client of TLS would not understand it.
        assert_eq!(wire::send(address, V1), b"");
        // Perhaps with an alert of TLS.
        wire::send(address, b"\x16\x03\x01\0\x05garba");
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for first in [&b""[..], b"\x16", b"\x16\x03\x01\x02\0\x01"] {
            scope.spawn(move || {
                let mut connection = wire::connect(plain);
                connection.write_all(first).expect("sent");
                let mut rest = Vec::new();
                let _ = connection.read_to_end(&mut rest);
            });
        }
    });
    assert!(begun.elapsed() >= OPENING_LIMIT - Duration::from_secs(1) && begun.elapsed() < PATIENCE);
    is_served(secured(&settings(&ca, None, &BOTH), wire::connect(plain)));
    let log = proxy.end();
    for (error, count) in [
        ("this port speaks TLS: use https", 2),
        ("a PROXY protocol header that this listener does not take from this sender", 2),
        ("TLS handshake: it has not ended in time", 3),
        ("TLS handshake: received corrupt message", 2),
    ] {
        assert_eq!(log.matches(&format!("error={error}")).count(), count, "{error}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_named_at_its_setting() {
    let azure = testkit::azure().await;
    let ca = Authority::new("mirror CA");
    let [pair, other] = [(); 2].map(|()| ca.server(&["mirror.internal"]));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let (certificate, key, other) = (file("crt", &pair.certificate), file("key", &pair.key), file("other", &other.key));
    let empty = file("empty", "");
    let encrypted =
        file("encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END RSA PRIVATE KEY-----\n";
    let old = file("old", old);
    let reversed = file("reversed", &format!("{}{}", ca.pem(), pair.certificate));
    let clients = file("clients", "no PEM");
    let none = Path::new("/nonexistent").display().to_string();
    for (tls, says) in [
        (format!("certificate: {none}, key: {key}"), "listen[0].tls.certificate: /nonexistent: No such file"),
        // Whoever has mounted nothing is told of all.
        (format!("certificate: {none}, key: {none}"), "listen[0].tls.certificate: /nonexistent: No such file"),
        (format!("certificate: {none}, key: {none}"), "listen[0].tls.key: /nonexistent: No such file"),
        (format!("certificate: {none}, key: {none}, client_ca: {none}"), "listen[0].tls.client_ca: /nonexistent: No"),
        (format!("certificate: {certificate}, key: {none}"), "listen[0].tls.key: /nonexistent: No such file"),
        (format!("certificate: {empty}, key: {key}"), "tls.certificate: {}/empty: no certificate is in it"),
        (format!("certificate: {certificate}, key: {empty}"), "tls.key: {}/empty: no private key is in it"),
        (format!("certificate: {certificate}, key: {encrypted}"), "tls.key: {}/encrypted: the key is encrypted"),
        (format!("certificate: {certificate}, key: {old}"), "tls.key: {}/old: the key is encrypted"),
        (
            format!("certificate: {certificate}, key: {other}"),
            "tls.key: {}/other: the key does not belong to the first",
        ),
        (format!("certificate: {reversed}, key: {key}"), "put the server's certificate before those of its CAs"),
        (format!("certificate: {certificate}, key: {key}, client_ca: {clients}"), "tls.client_ca: {}/clients: no cert"),
        (
            format!("certificate: {certificate}, key: {key}, client_auth: required"),
            "client_auth: has no effect without",
        ),
        (format!("certificate: {certificate}"), "listen[0].tls: has no key: set it to a PEM file"),
    ] {
        let mut proxy = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {{{tls}}}}}]")).spawn();
        assert_eq!(proxy.wait().code(), Some(2), "{tls}");
        proxy.wait_for_log(&says.replace("{}", &folder.path().display().to_string()));
    }
}
