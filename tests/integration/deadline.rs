//! An answer's header, and how long it may take.

use std::process::Command;
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Fault, Hop, Image};

use crate::wire::{self, Client};
use testkit::{Proxy, Setup};

/// What docs/troubleshooting.md promises, in seconds, to the end of the answer's header.
const PROMISED: u64 = 30;
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json";

/// A proxy that serves its blobs itself, and the path of one of them.
async fn proxied(cache: &str) -> (Emulator, String, Proxy) {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    let proxy = Setup::new(&azure).cache(cache).upstream(&hosts).start();
    (azure, format!("/v2/library/busybox/blobs/{}", pushed.blobs[1]), proxy)
}

/// Each with an emulator and a proxy of its own, all at once, for each takes its time.
fn at_once<C: Copy + Send + Sync>(cases: &[C], play: impl Fn(C) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| play(*case));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_missing_header_is_504_within_30_seconds_on_every_leg() {
    let runtime = tokio::runtime::Handle::current();
    let drip = || Fault::DripHead;
    let endless = || Fault::InterimForever(102);
    let hang = || Fault::Hang;
    type Play = (Hop, fn() -> Fault, bool, bool);
    let cases: [Play; 9] = [
        (Hop::Data, drip, false, false),
        (Hop::Data, endless, false, false),
        (Hop::Data, drip, false, true),
        (Hop::Data, endless, false, true),
        (Hop::Data, drip, true, false),
        (Hop::Data, endless, true, true),
        (Hop::Storage, drip, true, false),
        (Hop::Storage, endless, true, true),
        (Hop::Storage, hang, true, false),
    ];
    let cases: Vec<_> = testkit::ASKING.into_iter().flat_map(|cache| cases.map(|case| (cache, case))).collect();
    tokio::task::spawn_blocking(move || {
        at_once(&cases, |(cache, (hop, fault, is_blob, over_h2))| {
            let (azure, blob, proxy) = runtime.block_on(proxied(cache));
            let path = if is_blob { blob } else { "/v2/library/busybox/manifests/latest".to_owned() };
            azure.inject(hop, fault());
            let begun = Instant::now();
            let (status, body) = if over_h2 {
                let output = Command::new("curl")
                    .args(["--silent", "--http2-prior-knowledge", "--noproxy", "*", "--write-out", "%{http_code}"])
                    .args(["--header", ACCEPT])
                    .arg(proxy.url(&path))
                    .output()
                    .expect("curl runs");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let (body, status) = said.split_at(said.len().saturating_sub(3));
                (status.parse().expect("a status"), body.to_owned())
            } else {
                let answer = wire::ask(proxy.address(), &format!("GET {path}"), &format!("{ACCEPT}\r\n"));
                (answer.status, answer.body)
            };
            let case = format!("{cache} {hop:?} {:?} {path} {over_h2}", fault());
            assert_eq!(status, 504, "{case}: {body}");
            let whose = if hop == Hop::Data { "the registry does not answer in time" } else { "storage 127.0.0.1" };
            assert!(body.contains(whose) && body.contains("in time"), "{case}: {body}");
            assert!(begun.elapsed() < Duration::from_secs(PROMISED), "{case}: {:?}", begun.elapsed());
        });
    })
    .await
    .expect("every leg");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_pauses_below_a_minute_passes_whole() {
    const PAUSE: Duration = Duration::from_secs(25);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        at_once(&[Hop::Storage, Hop::Data], |hop| {
            let (azure, blob, proxy) = runtime.block_on(proxied("{}"));
            // Of the registry it is the redirect that falters, which has said all by then.
            azure.inject(hop, Fault::PauseMidBody(PAUSE).on_path("/blobs/"));
            let answer = Client::new(proxy.address()).ask("GET", &blob, "HTTP/1.1", "");
            let expected = azure.blob(blob.rsplit('/').next().expect("a digest")).expect("pushed");
            assert_eq!(answer.status(), 200, "{hop:?}");
            assert!(answer.body == expected, "{hop:?}: {} bytes", answer.body.len());
        });
    })
    .await
    .expect("both");
}
