//! What a span has, and how it is bound to those of others.

use acr_emulator::{Fault, Hop, Image};
use testkit::collector::{Collector, Received};
use testkit::{ASKING, SECRET, Setup, wire};

use crate::{ACCEPT, MANIFEST, PARENT, TRACE, count, list, sent_on, traced, wait_for};

/// `STATUS_CODE_ERROR`, and `SPAN_KIND_SERVER`.
const ERROR: i32 = 2;
const SERVER: i32 = 2;

fn status(received: &Received) -> i32 {
    received.span.status.as_ref().map_or(0, |status| status.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_below_the_clients_and_above_the_registrys() {
    for cache in ASKING {
        let (azure, collector) = (testkit::azure().await, Collector::start().await);
        let proxy = traced(&azure, &collector).cache(cache).start();
        list(&proxy, 1, &format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"));
        let spans = collector.wait_for(1).await;
        let span = &spans[0].span;
        assert_eq!(Received::hex(&span.trace_id), TRACE);
        assert_eq!(Received::hex(&span.parent_span_id), "b7ad6b7169203331");
        assert_eq!((span.trace_state.as_str(), span.kind), ("a=1", SERVER));
        // Sampled, and below a span of another program.
        assert_eq!(span.flags, 0x301);
        let own = Received::hex(&span.span_id);
        assert_ne!(own, "b7ad6b7169203331");
        assert_eq!(sent_on(&azure, 1), Some(format!("00-{TRACE}-{own}-01")), "{cache}");
        assert!(0 < span.start_time_unix_nano && span.start_time_unix_nano <= span.end_time_unix_nano);

        list(&proxy, 2, "");
        let spans = collector.wait_for(2).await;
        let span = &spans[1].span;
        assert!(span.parent_span_id.is_empty());
        let (trace, own) = (Received::hex(&span.trace_id), Received::hex(&span.span_id));
        assert_eq!(sent_on(&azure, 2), Some(format!("00-{trace}-{own}-03")), "a new trace, of a random id");
        assert!(trace != TRACE && trace.len() == 32 && own.len() == 16);
        proxy.wait_for_log(&format!(" trace={trace}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_is_not_told_of_the_trace() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let pushed = azure.push(Image::small("hub/library/other", "latest"));
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let proxy = traced(&azure, &collector).upstream(&hosts).start();
    let blob = format!("GET /v2/library/other/blobs/{}", pushed.blobs[0]);
    assert_eq!(wire::ask(proxy.address(), &blob, &format!("traceparent: {PARENT}\r\n")).status, 200);
    let span = &collector.wait_for(1).await[0];
    assert_eq!(span.get("acr_cache_proxy.storage"), Some(azure.storage_addr().ip().to_string()));
    let seen = azure.requests();
    let storage: Vec<_> = seen.iter().filter(|request| request.hop == Hop::Storage).collect();
    assert!(
        !storage.is_empty()
            && storage.iter().all(|request| !request.headers.iter().any(|(name, _)| name.starts_with("trace")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_has_the_names_of_the_conventions_and_the_fields_of_the_access_line() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let proxy = traced(&azure, &collector).env("OTEL_SERVICE_NAME", "mirror").start();
    let ask = |line: &str, headers: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: registry.test:5000\r\nConnection: close\r\n{headers}\r\n");
        wire::parse(&wire::send(proxy.address(), request.as_bytes())).status
    };
    let get = format!("GET {MANIFEST}?ns=docker.io&sig=geheim");
    let headers = format!("Authorization: Basic geheim\r\nUser-Agent: geheim\r\n{ACCEPT}");
    assert_eq!(ask(&get, &headers), 200);
    assert_eq!(ask(&get, &headers), 200);
    assert_eq!(ask("GET /v2/", ""), 200);
    assert_eq!(ask("GET /v2/library/none/tags/list", ""), 404);
    assert_eq!(ask("PUT /v2/library/busybox/manifests/x", ""), 405);
    assert_eq!(ask("BREW /v2/", ""), 405);
    azure.inject(Hop::Data, Fault::Status(500));
    let failed = ask("GET /v2/library/busybox/tags/list?n=7", "");
    assert!(failed >= 500, "{failed}");
    azure.clear_faults();
    let spans = collector.wait_for(7).await;
    let found = |at: usize, keys: &[&str]| keys.iter().map(|key| spans[at].get(key)).collect::<Vec<_>>();
    let texts = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    for (at, cache) in [(0, "miss"), (1, "hit")] {
        assert_eq!(
            found(
                at,
                &[
                    "http.request.method",
                    "url.scheme",
                    "url.path",
                    "http.route",
                    "http.response.status_code",
                    "server.address",
                    "server.port",
                    "client.address",
                    "network.protocol.version",
                    "acr_cache_proxy.route",
                    "acr_cache_proxy.kind",
                    "acr_cache_proxy.repository",
                    "acr_cache_proxy.cache"
                ]
            ),
            texts(&[
                "GET",
                "http",
                MANIFEST,
                "/v2/{name}/manifests/{reference}",
                "200",
                "registry.test",
                "5000",
                "127.0.0.1",
                "1.1",
                "docker.io",
                "manifest",
                "hub/library/busybox",
                cache
            ])
        );
        assert_eq!(spans[at].span.name, "GET /v2/{name}/manifests/{reference}");
        assert!(
            spans[at].get("client.port").is_some() && spans[at].get("acr_cache_proxy.time_to_first_byte").is_some()
        );
        let asked = ["acr_cache_proxy.registry_time", "acr_cache_proxy.upstream", "acr_cache_proxy.correlation"];
        assert!(asked.iter().all(|key| spans[at].get(key).is_some() == (cache == "miss")), "{:?}", spans[at]);
    }
    let line = proxy.wait_for_line(&[MANIFEST, "cache=miss"]);
    assert!(line.contains(&format!(" correlation={}", spans[0].get("acr_cache_proxy.correlation").expect("one"))));
    assert_eq!((spans[2].span.name.as_str(), status(&spans[2])), ("GET /v2/", 0));
    assert_eq!((spans[3].get("http.response.status_code"), status(&spans[3])), (Some("404".to_owned()), 0));
    assert!(spans[3].get("acr_cache_proxy.error").is_some_and(|error| error.contains("404")), "{:?}", spans[3]);
    assert_eq!((spans[4].span.name.as_str(), status(&spans[4])), ("PUT", 0));
    assert_eq!(found(5, &["http.request.method", "http.request.method_original"]), texts(&["_OTHER", "BREW"]));
    assert_eq!(spans[5].span.name, "HTTP");
    let code = failed.to_string();
    assert_eq!(found(6, &["http.response.status_code", "error.type"]), texts(&[&code, &code]));
    assert_eq!(status(&spans[6]), ERROR);
    for received in &spans {
        assert_eq!(received.resource["service.name"], "mirror");
        assert_eq!(received.resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(received.resource["service.instance.id"].len(), 36);
    }
    let all = format!("{spans:?}");
    let seen = azure.requests();
    let tokens = seen.iter().flat_map(|request| &request.headers).filter(|(name, _)| name == "authorization");
    let tokens: Vec<_> = tokens.filter_map(|(_, value)| value.strip_prefix("Bearer ")).collect();
    assert!(!tokens.is_empty() && tokens.iter().all(|token| !all.contains(token)), "{all}");
    assert!(!all.contains("geheim") && !all.contains(SECRET) && !all.contains("n=7"), "{all}");
    // They are counted when the collector's answer is there.
    wait_for(&proxy, &["exported"], 7).await;
    assert_eq!((count(&proxy, "queue_full"), count(&proxy, "not_taken")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_has_no_span_and_its_trace_goes_on_as_it_came() {
    let unsampled = PARENT.replace("-01", "-00");
    let parents = [None, Some(PARENT), Some(unsampled.as_str())];
    for (sampler, argument, taken) in [
        ("", "", [true, true, false]),
        ("always_on", "", [true, true, true]),
        ("always_off", "", [false, false, false]),
        ("parentbased_always_off", "", [false, true, false]),
        ("traceidratio", "0", [false, false, false]),
        ("parentbased_traceidratio", "1", [true, true, false]),
    ] {
        let (azure, collector) = (testkit::azure().await, Collector::start().await);
        let proxy =
            traced(&azure, &collector).env("OTEL_TRACES_SAMPLER", sampler).env("OTEL_TRACES_SAMPLER_ARG", argument);
        let proxy = proxy.start();
        for (number, parent) in (1..).zip(parents) {
            list(&proxy, number, &parent.map(|parent| format!("traceparent: {parent}\r\n")).unwrap_or_default());
        }
        // All that there are come at the end at the latest.
        proxy.end();
        let spans = collector.spans();
        assert_eq!(spans.len(), taken.iter().filter(|is_taken| **is_taken).count(), "{sampler} {spans:?}");
        for ((number, parent), is_taken) in (1..).zip(parents).zip(taken) {
            let sent = sent_on(&azure, number);
            if is_taken {
                let sent = sent.expect("a trace");
                let ours =
                    |received: &Received| sent.contains(&format!("-{}-0", Received::hex(&received.span.span_id)));
                assert!(spans.iter().any(ours), "{sampler} {sent}");
            } else {
                assert_eq!(sent.as_deref(), parent, "{sampler}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_drain_cuts_off_has_a_span_too() {
    let (azure, collector) = (testkit::azure().await, Collector::start().await);
    let mut proxy =
        traced(&azure, &collector).env("OTEL_BSP_SCHEDULE_DELAY", "60000").settings("drain: {timeout: 1s}").start();
    azure.inject(Hop::Data, Fault::Hang);
    let mut stream = wire::connect(proxy.address());
    std::io::Write::write_all(&mut stream, b"GET /v2/library/busybox/tags/list HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    testkit::wait_for(&azure, "a list", |seen| seen.iter().any(|request| request.target.contains("/tags/list"))).await;
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    let spans = collector.wait_for(1).await;
    assert_eq!((spans[0].get("error.type"), status(&spans[0])), (Some("cut_off".to_owned()), ERROR));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_nothing_is_traced() {
    let azure = testkit::azure().await;
    let proxy = Setup::new(&azure).start();
    list(&proxy, 1, &format!("traceparent: {PARENT}\r\n"));
    list(&proxy, 2, "");
    assert_eq!((sent_on(&azure, 1).as_deref(), sent_on(&azure, 2)), (Some(PARENT), None));
    assert!(!proxy.end().contains("otlp"));
}
