//! A proxy that speaks TLS, and engines that trust its certificate, or do not.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime};

use acr_emulator::Emulator;
use testkit::Setup;
use testkit::certificates::{Authority, Pair, self_signed};

use super::{Do, Host, Site, found, listen, set_time};
use crate::tls::Secret;

/// A proxy with a certificate of this authority, and its address for the engines of other hosts.
/// What it reads and asks is kept beside it.
async fn with_tls(ca: &Authority) -> (Site, (Emulator, Secret), String) {
    with_pair(&ca.server(&["localhost"])).await
}

async fn with_pair(pair: &Pair) -> (Site, (Emulator, Secret), String) {
    with_secret(Secret::new(pair, &[]), "").await
}

async fn with_secret(secret: Secret, more: &str) -> (Site, (Emulator, Secret), String) {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure).listen(&format!("[{{address: '127.0.0.1:0', tls: {}}}]", secret.tls(more)));
    let settings = fs::read_to_string(setup.path("config.yaml")).expect("written");
    let proxy = setup.start();
    let settings = settings.replacen("127.0.0.1:0", &proxy.address().to_string(), 1);
    let at = format!("localhost:{}", proxy.address().port());
    (Site { proxy, settings }, (azure, secret), at)
}

/// As doctor's fix says.
pub(super) fn write(host: &Host, client: &str, mirror: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(["client-config", client, "--write", "--merge", "--mirror", mirror, "--root"]).arg(host.root.path());
    let output = command.arg("--config").arg(host.path("/etc/acr-cache-proxy/config.yaml")).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

/// A dockerd that runs and checks this mirror. Each real one has loopback among its insecure registries, and a test has no other address.
fn run_dockerd(host: &Host, mirror: &str) {
    let list = format!(r#""RegistryConfig": {{"Mirrors": ["{mirror}/"], "InsecureRegistryCIDRs": []}}"#);
    listen(&host.path("/run/docker.sock"), &format!(r#"{{"ServerVersion": "26.1.5", {list}}}"#));
}

fn untrusting(host: &Host, mirror: &str) -> Vec<String> {
    let found = found(&host.doctor(&["--json", "--mirror", mirror])).into_iter();
    found.filter(|(_, code)| code == "untrusted").map(|(part, _)| part).collect()
}

/// It was said that pulls come through the proxy, and all of them went to the source.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_whose_certificate_the_engines_do_not_trust_is_told() {
    let ca = Authority::new("mirror CA");
    let (site, _kept, at) = with_tls(&ca).await;
    let mirror = format!("https://{at}");
    let host = site.host(&[Do::Install(&["podman", "dockerd"])]);
    ["podman", "docker"].into_iter().for_each(|client| write(&host, client, &mirror));
    let untrusting = || untrusting(&host, &mirror);
    assert_eq!(untrusting(), ["podman"], "dockerd verifies nothing on loopback");
    run_dockerd(&host, &mirror);
    assert_eq!(untrusting(), ["dockerd", "podman"]);
    host.put(&format!("/etc/docker/certs.d/{at}/ca.crt"), ca.pem());
    assert_eq!(untrusting(), Vec::<String>::new(), "podman looks there, too");
    fs::remove_dir_all(host.path("/etc/docker/certs.d")).expect("it was there");
    host.put(&format!("/etc/containers/certs.d/{at}/ca.crt"), ca.pem());
    assert_eq!(untrusting(), ["dockerd"]);
    host.put("/etc/ssl/certs/ca-certificates.crt", ca.pem());
    assert_eq!(untrusting(), Vec::<String>::new());
    fs::remove_file(host.path("/etc/ssl/certs/ca-certificates.crt")).expect("it was there");
    // It looked below /etc/containerd/certs.d, wherever containerd looks.
    fs::remove_file(host.path("/usr/bin/dockerd")).expect("it was there");
    fs::remove_file(host.path("/run/docker.sock")).expect("it was there");
    fs::remove_file(host.path("/usr/bin/podman")).expect("it was there");
    host.put("/usr/bin/containerd", "");
    host.put("/srv/ca.crt", ca.pem());
    let section = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = ";
    host.put("/etc/containerd/config.toml", &format!("{section}\"/srv/certs.d\"\n"));
    for (ca, is_found) in [("", true), ("  ca = \"/srv/ca.crt\"\n", false)] {
        let hosts = format!(
            "server = \"https://registry-1.docker.io\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{ca}"
        );
        host.put("/srv/certs.d/docker.io/hosts.toml", &hosts);
        let expected: &[&str] = if is_found { &["containerd"] } else { &[] };
        assert_eq!(untrusting(), expected, "{ca}");
    }
}

/// A CA or a pair in it was taken for trusted, because every directory counted.
#[tokio::test(flavor = "multi_thread")]
async fn of_podmans_directories_for_an_address_the_first_that_is_there_counts() {
    let ca = Authority::new("mirror CA");
    let (site, _kept, at) = with_tls(&ca).await;
    let mirror = format!("https://{at}");
    let (users, rootful) = ("/root/.config/containers/certs.d", "/etc/containers/certs.rootful.d");
    let (containers, share, docker) =
        ("/etc/containers/certs.d", "/usr/share/containers/certs.d", "/etc/docker/certs.d");
    for (is_in, empty, fixed_in) in [
        (users, None, None),
        (docker, None, None),
        (docker, Some(containers), Some(containers)),
        (containers, Some(users), Some(users)),
        (containers, Some(docker), None),
        // Of a release that is not known: only podman 6 looks there.
        (containers, Some(rootful), Some(rootful)),
        (share, None, Some(containers)),
    ] {
        let host = site.host(&[Do::Install(&["podman"])]);
        write(&host, "podman", &mirror);
        host.put(&format!("{is_in}/{at}/ca.crt"), ca.pem());
        empty.into_iter().for_each(|place| {
            fs::create_dir_all(host.path(&format!("{place}/{at}"))).expect("made");
        });
        let report = String::from_utf8_lossy(&host.doctor(&["--mirror", &mirror]).stdout).into_owned();
        let fixes: Vec<_> = report.lines().filter_map(|line| line.trim().strip_prefix("fix: ")).collect();
        let expected = fixed_in.map(|place| {
            format!("# on the host itself: install -D --backup=numbered -m 0644 CA.pem {place}/{at}/ca.crt")
        });
        assert_eq!(fixes.len(), usize::from(expected.is_some()), "{is_in}, {empty:?}: {report}");
        let is_it = |(fix, expected): (&&str, String)| fix.starts_with(&expected);
        assert!(fixes.iter().zip(expected).all(is_it), "{is_in}, {empty:?}: {report}");
    }
}

/// With a second listener a file was called right by which nothing came, and one wrong by which everything did.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_was_judged_by_another_listener_than_its_file_names() {
    let azure = testkit::azure().await;
    let secret = Secret::new(&Authority::new("mirror CA").server(&["127.0.0.1"]), &[]);
    let listen = format!("[{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', tls: {}}}]", secret.tls(""));
    let setup = Setup::new(&azure).listen(&listen);
    let settings = fs::read_to_string(setup.path("config.yaml")).expect("written");
    let proxy = setup.start();
    let at = |settings: String, address: &SocketAddr| settings.replacen("127.0.0.1:0", &address.to_string(), 1);
    let settings = proxy.addresses().iter().fold(settings, at);
    let (plain, tls) = (format!("http://{}", proxy.addresses()[0]), format!("https://{}", proxy.addresses()[1]));
    let site = Site { proxy, settings };
    let host = site.host(&[Do::Install(&["podman", "containerd"])]);
    let section = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = ";
    host.put("/etc/containerd/config.toml", &format!("{section}\"/etc/containerd/certs.d\"\n"));
    let both = ["containerd", "podman"];
    for (named, mirror, expected) in
        [(&tls, &plain, &both[..]), (&tls, &tls, &both), (&plain, &tls, &[]), (&plain, &plain, &[])]
    {
        ["podman", "containerd"].into_iter().for_each(|client| write(&host, client, named));
        assert_eq!(untrusting(&host, mirror), expected, "{named} for {mirror}");
    }
}

/// Engines took the certificate that was given to them, and doctor said that they do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_engines_have_itself_was_called_untrusted() {
    let pair = self_signed(&["localhost"]);
    let (site, _kept, at) = with_pair(&pair).await;
    let mirror = format!("https://{at}");
    let host = site.host(&[Do::Install(&["podman"])]);
    write(&host, "podman", &mirror);
    assert_eq!(untrusting(&host, &mirror), ["podman"]);
    let ca = format!("/etc/containers/certs.d/{at}/ca.crt");
    host.put(&ca, &pair.certificate);
    assert_eq!(untrusting(&host, &mirror), Vec::<String>::new());
    host.put(&ca, &self_signed(&["localhost"]).certificate);
    assert_eq!(untrusting(&host, &mirror), ["podman"], "that of another key");
}

/// dockerd 28 was called right by the file that it reads for `daemon.json` alone, and its pulls into the containerd image store, and all
/// builds, went past the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_for_daemon_json_is_none_for_what_dockerd_asks_by_hosts_toml() {
    let ca = Authority::new("mirror CA");
    let (site, _kept, at) = with_tls(&ca).await;
    let mirror = format!("https://{at}");
    let containerds = r#", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]"#;
    for (version, store, is_untrusting, what) in [
        ("28.5.2", containerds, true, "TLS with the proxy fails, and pulls of "),
        ("28.5.2", "", true, "builds go by hosts.toml, and by the files that it names"),
        ("27.5.1", containerds, false, ""),
    ] {
        let host = site.host(&[Do::Install(&["dockerd"])]);
        write(&host, "docker", &mirror);
        host.put(&format!("/etc/docker/certs.d/{at}/ca.crt"), ca.pem());
        let mirrors = format!(r#""RegistryConfig": {{"Mirrors": ["{mirror}/"]}}"#);
        listen(&host.path("/run/docker.sock"), &format!(r#"{{"ServerVersion": "{version}"{store}, {mirrors}}}"#));
        let expected: &[&str] = if is_untrusting { &["dockerd"] } else { &[] };
        assert_eq!(untrusting(&host, &mirror), expected, "{version} {store}");
        let output = host.doctor(&["--mirror", &mirror]);
        let report = String::from_utf8_lossy(&output.stdout);
        let fix = format!(
            "install -D --backup=numbered -m 0644 CA.pem /etc/docker/certs.d/{at}/ca.crt && acr-cache-proxy client-config docker "
        );
        assert!(report.contains(what) && report.contains(&fix) == is_untrusting, "{report}");
        // As that fix does.
        write(&host, "docker", &mirror);
        assert_eq!(untrusting(&host, &mirror), Vec::<String>::new(), "{version} {store}");
    }
}

/// It wrote the files of an engine of which the same report said that it does not trust the proxy: pulls of a closed route, which had come from
/// the source, failed.
#[tokio::test(flavor = "multi_thread")]
async fn fix_writes_no_files_by_which_an_engine_would_not_trust_the_proxy() {
    let ca = Authority::new("mirror CA");
    let (site, _kept, at) = with_tls(&ca).await;
    let mirror = format!("https://{at}");
    for (program, client, certs_d, file) in [
        ("podman", "podman", "/etc/containers/certs.d", "/etc/containers/registries.conf.d/50-acr-cache-proxy.conf"),
        ("dockerd", "docker", "/etc/docker/certs.d", "/etc/docker/daemon.json"),
        ("buildkitd", "buildkit", "/etc/buildkit/certs.d", "/etc/buildkit/buildkitd.toml"),
    ] {
        let host = site.host(&[]);
        host.put(&format!("/usr/bin/{program}"), "");
        let said = String::from_utf8_lossy(&host.doctor(&["--mirror", &mirror, "--fix"]).stderr).into_owned();
        let sentence = format!(
            "no file of {client} is written, because with them it would not trust the certificate of {mirror}, and pulls of closed routes would fail: UnknownIssuer; do this, and run doctor --fix again: install -D --backup=numbered -m 0644 CA.pem {certs_d}/{at}/ca.crt  #"
        );
        assert!(said.contains(&sentence), "{said}");
        assert!(!host.path(file).exists(), "{file}");
        host.put(&format!("{certs_d}/{at}/ca.crt"), ca.pem());
        let output = host.doctor(&["--mirror", &mirror, "--fix"]);
        assert!(host.path(file).exists() && untrusting(&host, &mirror).is_empty(), "{output:?}");
    }
}

/// "Nothing is wrong on this host" was said while the listener refused every engine, and pulls went to the source.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_certificate_the_listener_does_not_take_is_told() {
    let [ca, nodes, others] = ["mirror CA", "nodes", "others"].map(Authority::new);
    let secret = Secret::new(&ca.server(&["localhost"]), &[&nodes]);
    let (site, _kept, at) = with_secret(secret, ", client_ca: {ca}").await;
    let mirror = format!("https://{at}");
    let [right, foreign] = [&nodes, &others].map(|ca| ca.client("node", "spiffe://x"));
    let mixed = Pair { key: foreign.key.clone(), ..right.clone() };
    for (program, client, certs_d) in
        [("podman", "podman", "/etc/containers/certs.d"), ("dockerd", "docker", "/etc/docker/certs.d")]
    {
        for (pair, says) in [
            (None, "the listener asks for a certificate of the client, and it presents none"),
            (Some(&foreign), "the CA of what it presents is not in the listener's client_ca"),
            (Some(&mixed), "/client.key is not the key of "),
            (Some(&right), ""),
        ] {
            let host = site.host(&[Do::Install(&["podman"])]);
            fs::remove_file(host.path("/usr/bin/podman")).expect("it was there");
            host.put(&format!("/usr/bin/{program}"), "");
            if program == "dockerd" {
                run_dockerd(&host, &mirror);
            }
            host.put(&format!("{certs_d}/{at}/ca.crt"), ca.pem());
            if let Some(pair) = pair {
                host.put(&format!("{certs_d}/{at}/client.cert"), &pair.certificate);
                host.put(&format!("{certs_d}/{at}/client.key"), &pair.key);
            }
            let fixed = String::from_utf8_lossy(&host.doctor(&["--mirror", &mirror, "--fix"]).stderr).into_owned();
            assert_eq!(
                fixed.contains(&format!("no file of {client} is written, because with them ")),
                !says.is_empty()
            );
            assert!(fixed.contains(says), "{fixed}");
            write(&host, client, &mirror);
            let found = found(&host.doctor(&["--json", "--mirror", &mirror]));
            let is_found = found.iter().any(|(part, code)| part == program && code == "client-certificate");
            assert_eq!(is_found, !says.is_empty(), "{says}: {found:?}");
            let report = String::from_utf8_lossy(&host.doctor(&["--mirror", &mirror]).stdout).into_owned();
            let fix = format!("install -D --backup=numbered -m 0644 CLIENT.pem {certs_d}/{at}/client.cert && ");
            assert_eq!((report.contains(says), report.contains(&fix)), (true, is_found), "{report}");
        }
    }
}

/// Of a listener whose certificate is a CA's own, as of `openssl req -x509`, nobody asked what it wants of clients: "ok" was said, and `--fix`
/// wrote files by which no pull works.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_a_certificate_of_its_own_asks_for_one_as_well() {
    let pair = self_signed(&["localhost"]);
    let nodes = Authority::new("nodes");
    let (site, _kept, at) = with_secret(Secret::new(&pair, &[&nodes]), ", client_ca: {ca}").await;
    let mirror = format!("https://{at}");
    let host = site.host(&[Do::Install(&["podman"])]);
    host.put(&format!("/etc/containers/certs.d/{at}/ca.crt"), &pair.certificate);
    let fixed = String::from_utf8_lossy(&host.doctor(&["--mirror", &mirror, "--fix"]).stderr).into_owned();
    assert!(fixed.contains("no file of podman is written, because with them "), "{fixed}");
    write(&host, "podman", &mirror);
    let found = found(&host.doctor(&["--json", "--mirror", &mirror]));
    assert!(found.contains(&("podman".to_owned(), "client-certificate".to_owned())), "{found:?}");
}

/// With the right pair in its place "nothing is wrong" was said, and dockerd pulled everything from Docker Hub.
#[tokio::test(flavor = "multi_thread")]
async fn dockerd_presents_nothing_to_a_mirror_on_loopback() {
    let [ca, nodes] = ["mirror CA", "nodes"].map(Authority::new);
    let secret = Secret::new(&ca.server(&["localhost"]), &[&nodes]);
    let (site, _kept, at) = with_secret(secret, ", client_ca: {ca}").await;
    let (mirror, pair) = (format!("https://{at}"), nodes.client("node", "spiffe://x"));
    let host = site.host(&[Do::Install(&["dockerd"])]);
    write(&host, "docker", &mirror);
    for (file, content) in [("ca.crt", ca.pem()), ("client.cert", &pair.certificate), ("client.key", &pair.key)] {
        host.put(&format!("/etc/docker/certs.d/{at}/{file}"), content);
    }
    let output = host.doctor(&["--mirror", &mirror]);
    let report = String::from_utf8_lossy(&output.stdout);
    for says in ["and it presents none", "https://NAME:", "NAME: one that leads to no loopback address"] {
        assert!(report.contains(says), "{says}: {report}");
    }
    run_dockerd(&host, &mirror);
    assert_eq!(found(&host.doctor(&["--json", "--mirror", &mirror])), []);
}

/// With the right CA in its place, the fix was to put it there.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_no_ca_helps_has_another_fix() {
    let ca = Authority::new("mirror CA");
    let ended = SystemTime::now() - Duration::from_secs(3600);
    for (pair, is_named) in [(ca.server(&["mirror.internal"]), true), (ca.server_until(&["localhost"], ended), false)] {
        let (site, (_azure, secret), at) = with_pair(&pair).await;
        let mirror = format!("https://{at}");
        let host = site.host(&[Do::Install(&["podman"])]);
        write(&host, "podman", &mirror);
        host.put(&format!("/etc/containers/certs.d/{at}/ca.crt"), ca.pem());
        let report = String::from_utf8_lossy(&host.doctor(&["--mirror", &mirror]).stdout).into_owned();
        let port = at.trim_start_matches("localhost");
        let fix = match is_named {
            true => format!(" --mirror https://mirror.internal{port}  # a name of its certificate"),
            false => format!(
                "date; cp CERTIFICATE.pem {}  # CERTIFICATE.pem: one that is valid today",
                secret.path("tls.crt")
            ),
        };
        assert!(report.contains("it does not trust the certificate of ") && report.contains(&fix), "{report}");
        assert!(!report.contains("CA.pem"), "{report}");
    }
}

/// "Nothing is wrong on this host" was said, and dockerd and containerd, which were not restarted, went past the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_came_after_an_engine_was_started_is_not_loaded() {
    const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
    const GIVEN: &str = "/usr/local/share/ca-certificates/mirror.crt";
    const OF_SYSTEM: &str = "/usr/share/ca-certificates/mozilla/one.crt";
    let (ca, other) = (Authority::new("mirror CA"), Authority::new("another CA"));
    let (site, _kept, at) = with_tls(&ca).await;
    let mirror = format!("https://{at}");
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let after = SystemTime::now() + Duration::from_secs(60);
    for (what, files, is_found) in [
        ("given later", &[(BUNDLE, &ca, after), (GIVEN, &ca, after)][..], true),
        ("given before, and the bundle made anew", &[(BUNDLE, &ca, after), (GIVEN, &ca, before)], false),
        ("into the bundle itself", &[(BUNDLE, &ca, after), (OF_SYSTEM, &other, before)], true),
        ("into the bundle before", &[(BUNDLE, &ca, before), (OF_SYSTEM, &other, before)], false),
        ("with the system", &[(BUNDLE, &ca, after), (OF_SYSTEM, &ca, before)], false),
    ] {
        let host = site.host(&[Do::Install(&["dockerd"])]);
        write(&host, "docker", &mirror);
        let mirrors = format!(r#""RegistryConfig": {{"Mirrors": ["{mirror}/"]}}"#);
        let store = r#""DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]"#;
        listen(&host.path("/run/docker.sock"), &format!(r#"{{"ServerVersion": "28.5.2", {store}, {mirrors}}}"#));
        for (path, ca, time) in files {
            host.put(path, ca.pem());
            set_time(&host.path(path), *time);
        }
        let found = found(&host.doctor(&["--json", "--mirror", &mirror]));
        assert_eq!(
            found.iter().any(|(part, code)| part == "dockerd" && code == "not-loaded"),
            is_found,
            "{what}: {found:?}"
        );
    }
}
