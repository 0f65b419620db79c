//! What the log says of requests, and what it is not made to say.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use acr_emulator::{Emulator, Fault, Hop, Image, Pushed, Server};

use crate::fixture::ACCEPT;
use crate::wire;
use testkit::{Proxy, Setup, wait_for};

/// The lines of the access log about this path.
fn lines<'a>(log: &'a str, path: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains("access] ") && line.contains(path)).collect()
}

/// What is a warning or worse.
fn warnings(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("WARN ") || line.contains("ERROR ") || line.contains("panicked")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_logged_with_its_reason_and_causes_no_warning() {
    let azure = testkit::azure().await;
    let proxy = Setup::routes(&azure, &[("docker.io", "hub")]).start();
    for (line, says) in [
        (
            "GET /v2/pause/manifests/3.9?ns=registry.k8s.io",
            "error=no route for registry.k8s.io: ask that registry itself",
        ),
        ("GET /v2/UPPER/manifests/latest", "error=a name is lower-case letters"),
        ("GET /v2/_catalog", "error="),
        ("DELETE /v2/library/busybox/manifests/latest", "error="),
    ] {
        let answer = wire::ask(proxy.address(), line, "");
        assert!(answer.status >= 400, "{line}: {answer:?}");
        let path = line.split([' ', '?']).nth(1).expect("a path");
        let logged = proxy.wait_for_log(path);
        assert!(logged.contains("INFO  access] ") && logged.contains(says), "{line}: {logged}");
    }
    // The answer and the log have the same words.
    let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/-x", "");
    let message: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let message = message["errors"][0]["message"].as_str().expect("a message");
    assert!(proxy.wait_for_log("/manifests/-x ").ends_with(&format!(" error={message}")), "{message}");
    assert_eq!(warnings(&proxy.end()), [""; 0]);
}

/// A request that went nowhere had one try, as had `GET /v2/`, and three connects that failed were four.
#[tokio::test(flavor = "multi_thread")]
async fn tries_said_more_than_the_registry_was_asked() {
    let azure = testkit::azure().await;
    let tries = |proxy: &Proxy, line: &str, status, tries| {
        assert_eq!(wire::ask(proxy.address(), line, ACCEPT).status, status, "{line}");
        let path = line.split([' ', '?']).nth(1).expect("a path");
        proxy.wait_for_line(&[&format!(" {path} {status} "), &format!(" tries={tries} ")]);
    };
    for cache in testkit::ASKING {
        azure.inject(Hop::Token, Fault::Status(403));
        let proxy = Setup::new(&azure).cache(cache).settings("token_wait: 1s").start();
        tries(&proxy, "GET /v2/library/busybox/manifests/without-a-token", 503, 0);
        azure.clear_faults();
        let proxy = Setup::routes(&azure, &[("docker.io", "hub")]).cache(cache).start();
        tries(&proxy, "GET /v2/", 200, 0);
        tries(&proxy, "GET /v2/pause/manifests/unrouted?ns=registry.k8s.io", 404, 0);
        tries(&proxy, "GET /v2/library/busybox/manifests/missing", 404, 1);
    }
    let proxy = Setup::new(&azure).cache("off").start();
    // There is a token from now on, and no connection that is kept.
    let headers = vec![("Connection".to_owned(), "close".to_owned())];
    azure.inject(Hop::Data, Fault::StatusWith { status: 404, headers, body: "{}".to_owned() }.times(1));
    tries(&proxy, "GET /v2/library/busybox/manifests/last", 404, 1);
    azure.refuse_connections(Server::Registry, true);
    tries(&proxy, "GET /v2/library/busybox/manifests/unreachable", 502, 3);
}

/// An emulator with an image of large layers, and a proxy that serves them itself.
async fn large() -> (Emulator, Pushed, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image { layer_bytes: 8 << 20, ..Image::small("hub/library/busybox", "latest") });
    let hosts = azure.storage_addr();
    let proxy = Setup::new(&azure).upstream(&format!("  blobs: proxy\n  blob_hosts: ['{hosts}']\n")).start();
    (azure, pushed, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_causes_no_warning() {
    let (azure, pushed, proxy) = large().await;
    let blob = format!("/v2/library/busybox/blobs/{}", pushed.blobs[1]);
    // Amid a layer, as containerd does with each chunk but the last, and podman when a pull is stopped.
    for (case, range) in [("whole", ""), ("range", "Range: bytes=1-\r\n")] {
        let mut stream = wire::connect(proxy.address());
        write!(stream, "GET {blob}?{case} HTTP/1.1\r\nHost: x\r\n{range}\r\n").expect("sent");
        stream.read_exact(&mut [0; 4096]).expect("a beginning");
    }
    proxy.wait_until("two who left", |log| {
        let left = lines(log, &blob).iter().filter(|line| line.contains(" error=client left")).count();
        (left == 2).then_some(())
    });
    // While the registry thinks.
    azure.inject(Hop::Data, Fault::Hang);
    let mut stream = wire::connect(proxy.address());
    stream.write_all(b"GET /v2/library/busybox/manifests/gone HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    wait_for(&azure, "the request", |seen| seen.iter().any(|request| request.target.contains("/gone"))).await;
    drop(stream);
    let line = proxy.wait_for_log("/manifests/gone ");
    assert!(line.contains("/gone 0 0B ") && line.ends_with(" error=client left"), "{line}");
    azure.clear_faults();
    // By HTTP/2 as well.
    let curl = |path: &str| {
        Command::new("curl")
            .args(["--silent", "--noproxy", "*", "--no-buffer", "--http2-prior-knowledge", &proxy.url(path)])
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs")
    };
    azure.inject(Hop::Data, Fault::Hang);
    let mut leaving = curl("/v2/library/busybox/manifests/gone-by-h2");
    wait_for(&azure, "the request", |seen| seen.iter().any(|request| request.target.contains("/gone-by-h2"))).await;
    leaving.kill().and_then(|()| leaving.wait()).expect("it ends");
    let line = proxy.wait_for_log("/manifests/gone-by-h2 ");
    assert!(line.contains(" 0 0B ") && line.ends_with(" error=client left"), "{line}");
    azure.clear_faults();
    azure.inject(Hop::Storage, Fault::SlowDrip);
    let mut leaving = curl(&blob);
    leaving.stdout.take().expect("piped").read_exact(&mut [0]).expect("a beginning");
    leaving.kill().and_then(|()| leaving.wait()).expect("it ends");
    proxy.wait_until("a third who left", |log| {
        let left = lines(log, &blob).iter().filter(|line| line.contains(" error=client left")).count();
        (left == 3).then_some(())
    });
    let log = proxy.end();
    assert_eq!(warnings(&log), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_causes_no_warning() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    for bytes in [
        &b"GET /v2/library/busybox/manifests/latest HTTP/1.1\r\nHost: x\r\n"[..],
        b"GET /v2/",
        b"G",
        b"",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ] {
        let mut stream = wire::connect(proxy.address());
        stream.write_all(bytes).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        // What comes, if anything, is of no interest, nor whether the end is a reset.
        let _ = stream.read_to_end(&mut Vec::new());
        // Without a reader for the answer.
        wire::connect(proxy.address()).write_all(bytes).expect("sent");
    }
    let log = proxy.end();
    assert_eq!(warnings(&log), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_or_server_can_forge_a_field_of_a_line() {
    const FORGED: &str = "1 error=none client=10.0.0.1:1";
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    let answer = wire::ask(proxy.address(), &format!("{} /v2/long/manifests/x", "M".repeat(30_000)), "");
    assert_eq!(answer.status, 405, "{answer:?}");
    let line = proxy.wait_for_log("/v2/long/manifests/x ");
    assert!(line.len() < 300 && line.contains("MMM... /v2/long/manifests/x 405 "), "{line}");
    // What the registry calls the id of a request, and is none; what it says about an error is quoted behind `error=`, where there are no fields any more.
    let headers = vec![("x-ms-correlation-request-id".to_owned(), FORGED.to_owned())];
    let words = r#"{"errors":[{"code":"DENIED","message":"no\nerror=none client=10.0.0.1:1"}]}"#;
    let busy = Fault::StatusWith { status: 503, headers: headers.clone(), body: words.to_owned() };
    azure.inject(Hop::Data, busy.times(1));
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/latest", "").status, 503);
    let line = proxy.wait_for_log("/manifests/latest ");
    assert!(line.contains(" error=the registry answers 503 ") && !line.contains("correlation="), "{line}");
    for label in ["client=", "error="] {
        assert_eq!(line.split(' ').filter(|word| word.starts_with(label)).count(), 1, "{label}: {line}");
    }
    // What the token endpoint says likewise.
    azure.inject(Hop::Token, Fault::StatusWith { status: 403, headers, body: words.to_owned() });
    azure.revoke_tokens();
    let answer = wire::ask(proxy.address(), "GET /v2/library/other/manifests/latest", "");
    assert!(answer.status >= 403, "{answer:?}");
    let line = proxy.wait_for_log("/v2/library/other/manifests/latest ");
    for label in ["client=", "error="] {
        assert_eq!(line.split(' ').filter(|word| word.starts_with(label)).count(), 1, "{label}: {line}");
    }
}

/// Whichever way it came: by a flight, from memory, past the cache, or with none.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_registrys_own_is_told_with_its_code_and_message() {
    const ENGINE: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";
    let denied = r#"{"errors":[{"code":"DENIED","message":"no right"}]}"#.to_owned();
    let long = format!(r#"{{"errors":[{{"code":"UNKNOWN","message":"begin {} end"}}]}}"#, "x".repeat(5000));
    for (cache, ways) in
        [("{tags: 0s}", &[(ENGINE, "miss"), (ENGINE, "hit"), ("", "pass:accept")][..]), ("off", &[(ENGINE, "")])]
    {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for (accept, way) in ways {
            let answer = wire::ask(proxy.address(), "GET /v2/library/busybox/manifests/none", accept);
            assert_eq!(answer.status, 404, "{answer:?}");
            let cached = if way.is_empty() { String::new() } else { format!(" cache={way}") };
            proxy.wait_until("its line", |log| {
                let lines = lines(log, "/manifests/none 404 ");
                let says = " error=the registry answers 404 MANIFEST_UNKNOWN: ";
                lines
                    .iter()
                    .any(|line| line.contains("INFO ") && line.contains(&cached) && line.contains(says))
                    .then_some(())
            });
        }
        for (tag, status, body, says) in [
            ("denied", 403, &denied, "the registry answers 403 DENIED: no right"),
            ("failing", 500, &long, "the registry answers 500 UNKNOWN: begin ... end"),
            ("none-said", 502, &"<html>".to_owned(), "the registry answers 502"),
        ] {
            // No other request takes it, such as one in the background for the tag that was asked for before.
            let fault = Fault::StatusWith { status, headers: Vec::new(), body: body.clone() }.times(1);
            azure.inject(Hop::Data, fault.on_path(format!("/manifests/{tag}")));
            wire::ask(proxy.address(), &format!("GET /v2/library/busybox/manifests/{tag}"), ENGINE);
            let line = proxy.wait_for_log(&format!("/manifests/{tag} {status} "));
            assert!(line.contains(&format!(" error={says}")) && line.len() < 1200, "{cache}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_gets_priorities_and_no_second_time_stamp() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).journal(true).flag("--listen-address", "[::]:0").start();
    proxy.signal("HUP");
    proxy.wait_for_log("reload: ");
    let log = proxy.end();
    assert!(log.lines().all(|line| line.starts_with("<6>[INFO  ") || line.starts_with("<4>[WARN  ")), "{log}");
    assert!(log.contains("<4>[WARN  acr_cache_proxy::serve::announce] clients are not authenticated"), "{log}");
    assert!(log.contains("<6>[INFO  acr_cache_proxy::serve::announce] acr-cache-proxy "), "{log}");
    // Why it does not start is an error there.
    let mut proxy = Setup::new(&azure).journal(true).flag("--listen-address", "8080").spawn();
    assert_eq!(proxy.wait().code(), Some(2));
    proxy.wait_for_log("<3>acr-cache-proxy: --listen-address: \"8080\" is not an address");
    // The variable is inherited by whatever a service starts; what is not the journal gets lines with a time.
    let log = Setup::new(&azure).journal(false).start().end();
    assert!(log.lines().all(|line| line.starts_with("[20")), "{log}");
}

/// Every line of the log, read as JSON.
fn objects(log: &str) -> Vec<serde_json::Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|wrong| panic!("{wrong}: {line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_json_each_line_is_an_object_that_no_client_can_add_to() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).log("{filter: trace, format: json}").start();
    let forged = "\"error\":\"none\",\"client\":\"10.0.0.1:1\"";
    let headers = vec![("x-ms-correlation-request-id".to_owned(), forged.to_owned())];
    let busy = Fault::StatusWith { status: 503, headers, body: "{}".to_owned() };
    azure.inject(Hop::Data, busy.times(1));
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 503);
    assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    assert_eq!(wire::ask(proxy.address(), "DELETE /v2/library/busybox/manifests/x", "").status, 405);
    wire::send(proxy.address(), b"\x16\x03\x01\"}\n");
    let objects = objects(&proxy.end());
    assert!(objects.iter().all(|line| line["time"].is_string() && line["level"].is_string()), "{objects:?}");
    let access: Vec<_> = objects.iter().filter(|line| line["target"] == "access").collect();
    let fields = |index: usize, keys: &[&str]| keys.iter().map(|key| access[index][key].clone()).collect::<Vec<_>>();
    assert_eq!(access.len(), 5, "{access:?}");
    assert!(access.iter().all(|line| line.get("message").is_none() && line["client"].is_string()), "{access:?}");
    assert!(access[0]["correlation"].is_null(), "it is no id");
    assert!(access[0]["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")));
    assert_eq!(
        fields(1, &["method", "path", "status", "route", "kind", "repository", "tries"]),
        [
            "GET".into(),
            "/v2/library/busybox/tags/list".into(),
            200.into(),
            "docker.io".into(),
            "tags".into(),
            "hub/library/busybox".into(),
            serde_json::Value::from(1),
        ]
    );
    assert!(access[1]["registry_ms"].is_f64() && access[1]["ttfb_ms"].is_number(), "{}", access[1]);
    assert_eq!(fields(2, &["kind", "status", "route"]), ["ping".into(), 200.into(), serde_json::Value::Null]);
    assert!(access[3]["error"].is_string() && access[4]["error"].is_string());
    assert!(objects.iter().filter(|line| line["target"] != "access").all(|line| line["message"].is_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_so_many_successes_has_its_line_and_each_failure() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).log("{sample: 10}").start();
    for _ in 0..30 {
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/busybox/tags/list", "").status, 200);
        assert_eq!(wire::ask(proxy.address(), "GET /v2/library/none/tags/list", "").status, 404);
        assert_eq!(wire::ask(proxy.address(), "GET /v2/_catalog", "").status, 404);
    }
    let log = proxy.end();
    let successes = lines(&log, "/busybox/");
    assert_eq!(successes.len(), 3, "{log}");
    assert!(successes.iter().all(|line| line.contains(" sampled=10")), "{log}");
    assert_eq!((lines(&log, "/none/").len(), lines(&log, "/_catalog").len()), (30, 30));
}

/// With the feature it is asked for spans by tests/otlp.
#[cfg(not(feature = "otlp"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_spans_says_so_where_they_are_asked_for() {
    let azure = testkit::azure().await;
    let setup = || Setup::new(&azure).env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:geheim@127.0.0.1:4318");
    let log = setup().start().end();
    let told: Vec<_> = log.lines().filter(|line| line.contains("OTEL_EXPORTER_OTLP_ENDPOINT")).collect();
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("--features otlp"), "{log}");
    assert!(!log.contains("geheim"), "{log}");
    let log = setup().env("OTEL_SDK_DISABLED", "true").start().end();
    assert!(!log.contains("OTEL_"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_trace_is_in_the_log_and_goes_to_the_registry_as_it_is() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for cache in testkit::ASKING {
        let azure = testkit::azure().await;
        let proxy = Setup::new(&azure).cache(cache).start();
        for (number, trace, goes) in [
            (1, format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"), &["traceparent", "tracestate"][..]),
            (2, format!("traceparent: {PARENT}\r\ntracestate: hidden\r\n"), &["traceparent"]),
            (3, "traceparent: clients-own\r\ntracestate: a=1\r\n".to_owned(), &[]),
            (4, format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n"), &[]),
        ] {
            let path = format!("/v2/library/busybox/tags/list?n={number}");
            assert_eq!(wire::ask(proxy.address(), &format!("GET {path}"), &trace).status, 200);
            let seen = azure.requests();
            let request = seen.iter().find(|request| request.target.ends_with(&format!("?n={number}"))).expect("asked");
            let found = request.headers.iter().filter(|(name, _)| name.starts_with("trace"));
            let mut found: Vec<_> = found.map(|(name, value)| (name.as_str(), value.as_str())).collect();
            found.sort_unstable();
            let expected = [("traceparent", PARENT), ("tracestate", "a=1")];
            let expected: Vec<_> = expected.into_iter().filter(|(name, _)| goes.contains(name)).collect();
            assert_eq!(found, expected, "{cache}: {trace}");
        }
        let log = proxy.end();
        let traced = log.lines().filter(|line| line.contains(" trace=0af7651916cd43dd8448eb211c80319c")).count();
        assert_eq!(traced, 2, "{log}");
        assert!(!log.contains("clients-own") && !log.contains("hidden"), "{log}");
    }
}
