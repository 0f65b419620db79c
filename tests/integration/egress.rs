//! Azure is behind a forward proxy.

use acr_emulator::{Emulator, Hop, Image, Options, Pushed, Server};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::wire::{self, Answer};
use testkit::certificates::Authority;
use testkit::forward::{Does, ForwardProxy};
use testkit::{ASKING, Proxy, Setup, wait_for};

const MANIFEST: &str = "GET /v2/library/busybox/manifests/latest";
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
const USER: &str = "CORP\\puller";
const PASSWORD: &str = "p@ss:w#rd";
/// The same in an address.
const CREDENTIALS: &str = "CORP%5Cpuller:p%40ss%3Aw%23rd";

fn basic() -> String {
    STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// Azure with one image, a forward proxy, and settings of a proxy that knows the registry by its name alone and serves its
/// blobs itself.
async fn stage(cache: &str) -> (Emulator, Pushed, ForwardProxy, Setup) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let forward = ForwardProxy::start().await;
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let setup = Setup::new(&azure).cache(cache).upstream(&hosts).by_name();
    (azure, pushed, forward, setup)
}

fn blob(pushed: &Pushed, number: usize) -> String {
    format!("GET /v2/library/busybox/blobs/{}", pushed.blobs[number])
}

fn manifest(proxy: &Proxy) -> Answer {
    wire::ask(proxy.address(), MANIFEST, ACCEPT)
}

/// Waits until a manifest is answered so. The proxy may be about to sign in.
fn until(proxy: &Proxy, status: u16) -> Answer {
    let mut last = manifest(proxy);
    let deadline = std::time::Instant::now() + testkit::PATIENCE;
    while last.status != status {
        assert!(std::time::Instant::now() < deadline, "{status} never came: {last:?}\n{}", proxy.log());
        // Nothing depends on the step.
        std::thread::sleep(std::time::Duration::from_millis(20));
        last = manifest(proxy);
    }
    last
}

/// Pulls some, and returns how often the proxy was asked for tunnels to Entra ID, the registry and storage, and its log.
fn kept_by(azure: &Emulator, pushed: &Pushed, forward: &ForwardProxy, setup: Setup) -> ([usize; 3], String) {
    // With several threads, one may find a kept connection still held by another that has just let it go.
    let proxy = setup.flag("--threads", "1").start();
    let pull = || {
        assert_eq!(manifest(&proxy).status, 200, "{}", proxy.log());
        for number in 0..pushed.blobs.len() {
            assert_eq!(wire::ask(proxy.address(), &blob(pushed, number), "").status, 200);
        }
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
    };
    pull();
    let connects = || {
        [azure.entra_addr(), azure.registry_addr(), azure.storage_addr()].map(|address| forward.connects_to(address))
    };
    let first = connects();
    for _ in 0..5 {
        pull();
    }
    assert_eq!(connects(), first, "{:#?}", forward.asked());
    for asked in forward.asked() {
        assert_eq!(asked.method, "CONNECT", "{asked:?}");
    }
    (first, proxy.end())
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_pulls_and_blobs_go_through_tunnels_which_are_kept() {
    for cache in ASKING {
        let (azure, pushed, forward, setup) = stage(cache).await;
        forward.set(Does::Wants(basic()));
        let setup = setup.env("HTTPS_PROXY", &format!("http://{CREDENTIALS}@{}", forward.address()));
        let (connects, log) = kept_by(&azure, &pushed, &forward, setup);
        // The registry's are one for the calls for tokens, one for calls of this program's own, one for what is passed on.
        assert!(connects[0] == 1 && (2..=3).contains(&connects[1]) && connects[2] == 1, "{cache}: {connects:?}");
        let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
        assert!(forward.asked().iter().any(|asked| asked.target == registry), "by name: {:#?}", forward.asked());
        assert!(log.contains(&format!("egress: through {}", forward.address())), "{log}");
        assert!(log.contains(&format!("upstream={}", forward.address())), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_spoken_to_over_tls_carries_all_of_it_and_its_tunnels_are_kept() {
    let authority = Authority::new("The proxy's CA");
    for cache in ASKING {
        let (azure, pushed, _, setup) = stage(cache).await;
        let forward = ForwardProxy::start_tls(&authority.server(&["127.0.0.1"])).await;
        forward.set(Does::Wants(basic()));
        setup.file("ca.pem", azure.ca_pem().to_owned() + authority.pem());
        let setup = setup.env("HTTPS_PROXY", &format!("https://{CREDENTIALS}@{}", forward.address()));
        let (connects, log) = kept_by(&azure, &pushed, &forward, setup);
        assert!(connects[0] == 1 && (2..=3).contains(&connects[1]) && connects[2] == 1, "{cache}: {connects:?}");
        let said = format!("egress: through {} over TLS, by HTTPS_PROXY", forward.address());
        assert!(log.contains(&said) && log.contains(&format!("upstream={}", forward.address())), "{log}");
        assert!(!log.contains(PASSWORD) && !log.contains(&basic()), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_whose_certificate_is_not_to_be_trusted_is_told_to_requests_and_in_the_sign_in() {
    let (known, stranger) = (Authority::new("The proxy's CA"), Authority::new("Another CA"));
    let (azure, _, _, setup) = stage("off").await;
    let forward = ForwardProxy::start_tls(&known.server(&["127.0.0.1"])).await;
    setup.file("ca.pem", azure.ca_pem().to_owned() + known.pem());
    let proxy = setup.env("HTTPS_PROXY", &format!("https://{}", forward.address())).start();
    until(&proxy, 200);
    let hop = format!("egress proxy {}: ", forward.address());
    for (pair, says) in [
        (stranger.server(&["127.0.0.1"]), "its certificate is not trusted: a private CA goes into ca_file"),
        (known.server(&["proxy.corp"]), "its certificate is not trusted: it is for other names: give the proxy by one"),
    ] {
        forward.certify(&pair);
        forward.cut();
        let answer = until(&proxy, 502);
        assert!(answer.body.contains(&hop) && answer.body.contains(says), "{answer:?}");
    }
    forward.certify(&known.server(&["127.0.0.1"]));
    until(&proxy, 200);

    let (azure, _, plain, setup) = stage("off").await;
    forward.certify(&stranger.server(&["127.0.0.1"]));
    setup.file("ca.pem", azure.ca_pem().to_owned() + known.pem());
    let proxy = setup.env("HTTPS_PROXY", &format!("https://{}", forward.address())).start();
    let warning = proxy.wait_for_log("a private CA goes into ca_file");
    assert!(warning.contains("entra: client secret: ") && warning.contains(&hop), "{warning}");

    // The one kind of proxy in place of the other.
    let setup = Setup::new(&azure).by_name().env("HTTPS_PROXY", &format!("https://{}", plain.address()));
    plain.set(Does::Closes);
    let proxy = setup.start();
    proxy.wait_for_log("TLS handshake with it failed: is HTTPS_PROXY the port of an https:// proxy?: ");
    let setup = Setup::new(&azure).by_name().env("HTTPS_PROXY", &format!("http://{}", forward.address()));
    let proxy = setup.start();
    proxy.wait_for_log(&format!("One that wants TLS is given as https://{}", forward.address()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_an_answer_holds_through_a_tunnel_over_tls() {
    let authority = Authority::new("The proxy's CA");
    let (azure, _, _, setup) = stage("off").await;
    let forward = ForwardProxy::start_tls(&authority.server(&["127.0.0.1"])).await;
    setup.file("ca.pem", azure.ca_pem().to_owned() + authority.pem());
    let proxy = setup.env("HTTPS_PROXY", &format!("https://{}", forward.address())).start();
    until(&proxy, 200);
    // Pingora's limit is one for each read, so only the watch of the whole header ends this, by the number of the socket.
    azure.inject(Hop::Data, acr_emulator::Fault::DripHead);
    let answer = until(&proxy, 504);
    assert!(answer.body.contains("does not answer in time"), "{answer:?}");
    azure.clear_faults();
    until(&proxy, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_the_egress_proxy_go_to_no_one_else() {
    let (azure, pushed, forward, setup) = stage(ASKING[1]).await;
    forward.set(Does::Wants("b3RoZXI6b3RoZXI=".to_owned()));
    let url = format!("egress: {{proxy: 'http://{CREDENTIALS}@{}'}}", forward.address());
    let proxy = setup.settings(&url).settings("admin: 127.0.0.1:0").start();
    // First they are refused, which is told, then they are good, then the proxy is gone.
    let mut told = vec![until(&proxy, 503)];
    proxy.wait_for_log("407: it refuses the user and the password in egress.proxy");
    forward.set(Does::Wants(basic()));
    told.push(until(&proxy, 200));
    told.push(wire::ask(proxy.address(), &blob(&pushed, 1), "Proxy-Authorization: Basic Y2xpZW50OnM=\r\n"));
    assert_eq!(told[2].status, 200);
    let asked = forward.asked();
    drop(forward);
    told.push(until(&proxy, 502));
    let log = proxy.end();
    let secrets = [PASSWORD.to_owned(), CREDENTIALS.to_owned(), basic()];
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log:\n{log}");
        assert!(told.iter().all(|answer| !format!("{answer:?}").contains(secret.as_str())), "{told:?}");
        let requests = format!("{:?}", azure.requests());
        assert!(!requests.contains(secret.as_str()) && !requests.to_lowercase().contains("proxy-authorization"));
    }
    assert!(asked.iter().all(|asked| asked.head.contains(&basic())), "it is sent with each CONNECT: {asked:#?}");
    // A client's credentials for a proxy are not this proxy's to pass on.
    assert!(asked.iter().all(|asked| !asked.head.contains("Y2xpZW50OnM=")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_proxy_lists_is_reached_directly() {
    let (azure, pushed, forward, setup) = stage("off").await;
    let [entra, storage] = [azure.entra_addr(), azure.storage_addr()];
    // Entra ID and storage have addresses in place of names here; only one of their ports is meant.
    let setup = setup.env("ALL_PROXY", &forward.address().to_string());
    let proxy = setup.env("no_proxy", &format!("example.org, 127.0.0.0/32,{storage}")).start();
    assert_eq!(until(&proxy, 200).status, 200);
    assert_eq!(wire::ask(proxy.address(), &blob(&pushed, 1), "").status, 200);
    assert_eq!((forward.connects_to(entra), forward.connects_to(storage)), (1, 0), "{:#?}", forward.asked());
    assert!(forward.connects_to(azure.registry_addr()) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_wins_and_a_registry_with_addresses_is_reached_there() {
    let (azure, _, forward, _) = stage("off").await;
    let other = ForwardProxy::start().await;
    let setup = Setup::new(&azure).cache("off").env("HTTPS_PROXY", &format!("http://{}", other.address()));
    let proxy = setup.settings(&format!("egress: {{proxy: 'http://{}'}}", forward.address())).start();
    assert_eq!(until(&proxy, 200).status, 200);
    // Entra ID goes through the proxy of the setting; `addresses` says where the registry is.
    assert_eq!((forward.connects_to(azure.entra_addr()), forward.asked().len()), (1, 1), "{:#?}", forward.asked());
    assert!(other.asked().is_empty(), "{:#?}", other.asked());

    let setup = Setup::new(&azure).env("HTTPS_PROXY", &format!("http://{}", other.address()));
    let proxy = setup.settings("egress: {proxy: off}").start();
    assert_eq!(until(&proxy, 200).status, 200);
    assert!(other.asked().is_empty(), "{:#?}", other.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_endpoints_of_the_machine_are_asked_directly() {
    let options = Options { identity_listen: Some(([127, 0, 0, 1], 0).into()), ..testkit::options() };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    azure.push(Image::small("hub/library/busybox", "latest"));
    let forward = ForwardProxy::start().await;
    let address = format!("http://{}", forward.address());
    let arc_keys = tempfile::tempdir().expect("a directory");
    let endpoint = azure.identity_addr().expect("asked for");
    for is_arc in [false, true] {
        azure.clear_requests();
        let setup = Setup::new(&azure).by_name().managed(&azure);
        let setup = if is_arc {
            let keys = arc_keys.path().display();
            setup
                .without("IDENTITY_HEADER")
                .env("IDENTITY_ENDPOINT", &format!("http://{endpoint}/metadata/identity/oauth2/token"))
                .settings(&format!("identity: {{kind: azure_arc, key_directory: '{keys}'}}"))
        } else {
            setup
        };
        let variables = ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"];
        let proxy = variables.into_iter().fold(setup, |setup, name| setup.env(name, &address)).start();
        wait_for(&azure, "a call for a token", |requests| requests.iter().any(|request| request.hop == Hop::Imds))
            .await;
        if !is_arc {
            assert_eq!(until(&proxy, 200).status, 200);
        }
        assert_eq!(forward.connects_to(endpoint), 0, "{:#?}", forward.asked());
        assert!(forward.asked().iter().all(|asked| asked.method == "CONNECT"), "{:#?}", forward.asked());
    }
}

/// A sign-in meets what the proxy does, and then a pull does, once with a good answer in between.
fn refused(does: &Does, says: &str, is_permanent: bool) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (azure, _, forward, setup) = runtime.block_on(stage("off"));
    let hop = format!("egress proxy {}: ", forward.address());
    forward.set(does.clone());
    let proxy = setup.env("https_proxy", &format!("http://{}", forward.address())).start();
    let warning = proxy.wait_for_log(says);
    assert!(warning.contains("entra: client secret: ") && warning.contains(&hop), "{does:?}: {warning}");
    let answer = manifest(&proxy);
    assert!(answer.status == 503 && answer.body.contains(says), "{does:?}: {answer:?}");
    let retry = answer.header("retry-after").expect("when to come back");
    assert_eq!(retry == "30", is_permanent, "{does:?}: {retry}");
    assert!(!answer.body.contains("page of the forward proxy"), "{answer:?}");
    // What somebody has to mend is asked for again half a minute later.
    if !is_permanent {
        forward.set(Does::Tunnel);
        until(&proxy, 200);
        forward.set(does.clone());
        forward.cut();
        let answer = until(&proxy, 502);
        assert!(answer.body.contains(&hop) && answer.body.contains(says), "{does:?}: {answer:?}");
        let target = format!("example.azurecr.io:{}", azure.registry_addr().port());
        assert!(answer.body.contains(&target), "{answer:?}");
        forward.set(Does::Tunnel);
        until(&proxy, 200);
    }
}

#[test]
fn each_refusal_of_a_tunnel_is_told_as_the_proxys_and_ends_by_itself() {
    let cases = [
        (Does::Wants(basic()), "407: it wants a user and a password: give them in https_proxy, as http://USER", true),
        (Does::WantsNegotiate, "407: it offers Negotiate, NTLM, and this program has Basic only", true),
        (Does::Denies, "403 ERR_ACCESS_DENIED: it does not allow CONNECT to ", true),
        (Does::CannotResolve, "500 ERR_CANNOT_FORWARD: it cannot connect to ", false),
        (Does::Hangs, "no answer in time to CONNECT ", false),
        (Does::Closes, "it closed the connection without an answer to CONNECT ", false),
        (Does::Garbage, "is not HTTP: is https_proxy the port of an http:// proxy?", false),
        (Does::Endless, "the head of its answer to CONNECT ", false),
        // It was not told whose answer that was.
        (Does::NoContent, "204 to CONNECT ", true),
        (Does::Page, "and no answer came through it: ", false),
    ];
    std::thread::scope(|scope| {
        for (does, says, is_permanent) in &cases {
            scope.spawn(move || refused(does, says, *is_permanent));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_repeated_for_the_same_request() {
    let (azure, _, forward, setup) = stage("off").await;
    let proxy = setup.env("HTTPS_PROXY", &format!("http://{}", forward.address())).start();
    until(&proxy, 200);
    for (does, tries) in [(Does::Denies, 1), (Does::WantsNegotiate, 1), (Does::CannotResolve, 3)] {
        forward.set(does.clone());
        forward.cut();
        // A kept connection that has ended is found out by one of these at the latest.
        until(&proxy, 502);
        let before = forward.connects_to(azure.registry_addr());
        assert_eq!(manifest(&proxy).status, 502);
        assert_eq!(forward.connects_to(azure.registry_addr()) - before, tries, "{does:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_proxy_is_dead_stale_answers_stand_in_and_nobody_waits() {
    let (_azure, _, forward, setup) = stage("{tags: 0s, stale: 1h}").await;
    let proxy = setup.env("HTTPS_PROXY", &format!("http://{}", forward.address())).start();
    until(&proxy, 200);
    forward.set(Does::Hangs);
    forward.cut();
    let stale = manifest(&proxy);
    assert_eq!(stale.status, 200);
    let down = proxy.wait_for_log("it is down, and probed until it answers");
    assert!(down.contains("egress proxy") && down.contains("no answer in time to CONNECT"), "{down}");
    let other = wire::ask(proxy.address(), "GET /v2/library/other/manifests/latest", ACCEPT);
    assert!(other.status == 502 && other.header("retry-after") == Some("1"), "{other:?}");
    forward.set(Does::Tunnel);
    proxy.wait_for_log("it answers again");
    assert_eq!(manifest(&proxy).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_tried_again_and_again_and_a_reload_with_another_proxy_counts_at_once() {
    /// The pause between probes is longer than this after a 407, and shorter otherwise.
    const WATCHED: std::time::Duration = std::time::Duration::from_secs(6);
    let (azure, pushed, forward, setup) = stage("{tags: 0s, stale: 1h}").await;
    forward.set(Does::Wants(basic()));
    let url = format!("http://{CREDENTIALS}@{}", forward.address());
    let proxy = setup.settings(&format!("egress: {{proxy: '{url}'}}")).start();
    until(&proxy, 200);
    forward.set(Does::Wants("b3RoZXI6b3RoZXI=".to_owned()));
    forward.cut();
    let begun = std::time::Instant::now();
    assert_eq!(manifest(&proxy).status, 200, "a stale answer");
    proxy.wait_until("it is down", |log| {
        // Requests that fail are what the breaker goes by.
        wire::ask(proxy.address(), "GET /v2/library/other/manifests/latest", ACCEPT);
        log.contains("it is down, and probed").then_some(())
    });
    let connects = || forward.connects_to(azure.registry_addr());
    // One that had begun may still come.
    let before = connects();
    let watched = begun.elapsed() + WATCHED;
    while begun.elapsed() < watched {
        assert_eq!(manifest(&proxy).status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(connects() <= before + 1, "{before}: {:#?}", forward.asked());

    let other = ForwardProxy::start().await;
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let next = config.replace(&url, &format!("http://{}", other.address()));
    assert_eq!(proxy.reload_with(&next), (true, "in effect: egress\n".to_owned()));
    let asked = forward.asked().len();
    let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "");
    assert_eq!(answer.status, 200, "not kept, so it was asked for: {answer:?}");
    assert_eq!(wire::ask(proxy.address(), &blob(&pushed, 1), "").status, 200);
    for address in [azure.registry_addr(), azure.storage_addr()] {
        assert!(other.connects_to(address) > 0, "{:#?}", other.asked());
    }
    assert_eq!(forward.asked().len(), asked, "the old one is not asked any more");
}

/// The log had the address of a page of rustls.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_tunnel_is_cut_was_told_in_the_words_of_a_library() {
    let (azure, _, forward, setup) = stage("off").await;
    azure.inject(Hop::Exchange, acr_emulator::Fault::Hang.times(1));
    let proxy = setup.env("HTTPS_PROXY", &format!("http://{}", forward.address())).start();
    wait_for(&azure, "an exchange", |requests| requests.iter().any(|request| request.hop == Hop::Exchange)).await;
    forward.cut();
    let line = proxy.wait_for_log("token exchange: the connection broke, trying again: ");
    assert!(line.contains("the connection was cut, without the end that TLS has"), "{line}");
    assert!(!proxy.log().contains("docs.rs"), "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_cut_is_told_and_the_registrys_own_trouble_is_not_the_proxys() {
    let (azure, _, forward, setup) = stage("off").await;
    let proxy = setup.env("HTTPS_PROXY", &format!("http://{}", forward.address())).start();
    until(&proxy, 200);
    forward.set(Does::Cuts);
    forward.cut();
    let answer = until(&proxy, 502);
    assert!(answer.body.contains("it gave a tunnel to ") && answer.body.contains("TLS handshake failed"), "{answer:?}");
    forward.set(Does::Tunnel);
    until(&proxy, 200);
    azure.inject(Hop::Data, acr_emulator::Fault::DieBeforeResponse);
    let answer = until(&proxy, 502);
    assert!(answer.body.contains("the connection broke"), "{answer:?}");
    azure.clear_faults();
    // The registry resets what the proxy has connected, sooner or later than the proxy says so.
    azure.refuse_connections(Server::Registry, true);
    let answer = until(&proxy, 502);
    let said = ["it gave a tunnel to ", "503 ERR_CONNECT_FAIL: it cannot connect to "];
    assert!(said.iter().any(|said| answer.body.contains(said)), "{answer:?}");
}

#[test]
fn a_proxy_that_cannot_be_used_ends_the_start_and_is_not_quoted() {
    for (setting, variable, says) in [
        ("http://user:geheim#x@p:1", "", "percent-encoded"),
        ("https://user:geheim#x@p:1", "", "percent-encoded"),
        ("", "https://user:geheim@p:0", "HTTPS_PROXY: it is not the address of a proxy"),
        ("", "socks5h://user:geheim@p:1", "HTTPS_PROXY: a SOCKS proxy is not supported"),
    ] {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let azure = runtime.block_on(testkit::azure());
        let setup = Setup::new(&azure).env("HTTPS_PROXY", variable);
        let setup = if setting.is_empty() { setup } else { setup.settings(&format!("egress: {{proxy: '{setting}'}}")) };
        let mut proxy = setup.spawn();
        assert_eq!(proxy.wait().code(), Some(2));
        proxy.wait_for_log(says);
        assert!(!proxy.log().contains("geheim"), "{}", proxy.log());
    }
}

/// The table of registries was built anew, with no token and nothing kept: a hit became a miss, and in an outage of the sign-in
/// nothing was served.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_egress_threw_tokens_and_the_cache_away() {
    let (azure, _, first, setup) = stage("{tags: 1h}").await;
    let second = ForwardProxy::start().await;
    let proxy = setup
        .settings(&format!("egress: {{proxy: 'http://{}'}}", first.address()))
        .flag("--admin-address", ":0")
        .start();
    let admin = crate::admin::admin(&proxy);
    until(&proxy, 200);
    azure.inject(Hop::Entra, acr_emulator::Fault::Status(503));
    let config = std::fs::read_to_string(proxy.config()).expect("a configuration");
    let config = config.replace(&first.address().to_string(), &second.address().to_string());
    let (is_taken, said) = proxy.reload_with(&config);
    assert!(is_taken && said.contains("in effect: egress"), "{said}");
    let asked = first.asked().len();
    let kept = manifest(&proxy);
    assert!(kept.header("cache-status").is_some_and(|status| status.contains("; hit")), "{kept:?}");
    // By the token of before, over the new way.
    let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "");
    assert_eq!(answer.status, 200, "{answer:?}\n{}", proxy.log());
    assert!(second.connects_to(azure.registry_addr()) > 0, "{:#?}", second.asked());
    assert_eq!(first.asked().len(), asked, "{:#?}", first.asked());
    let ready = wire::ask(admin, "GET /readyz", "");
    assert!(ready.status == 200 && ready.body.contains("\"serves\": \"all\""), "{ready:?}");
    proxy.wait_for_log("entra: client secret: 503");
    azure.clear_faults();
    proxy.wait_for_log("registry token: signed in again");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list?n=1", "").status, 200);
}
