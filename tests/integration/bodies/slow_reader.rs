//! Clients that take next to nothing of their answers, beside those on a slow link.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use acr_emulator::{Emulator, Image};
use nix::sys::socket::{setsockopt, sockopt};

use crate::frames;
use crate::load::load;
use crate::wire;
use testkit::Setup;

/// More than all buffers between the proxy and a client have.
const LAYER: usize = 24 << 20;
/// What the one on a slow link reads, in longer than the others are given.
const ENOUGH: usize = 220 << 10;
/// A client is looked at for a minute, and for a second one if it has begun well. Over HTTP/2 it has a minute more than what the
/// rate gives it for a piece.
const AT_MOST: Duration = Duration::from_secs(280);

/// Asks for `path` with a small receive buffer, and reads so many bytes at once, each time after a pause, until it is enough or
/// `ended`, and then the rest of what has come. How many came.
fn reads(address: SocketAddr, path: &str, bytes: usize, pause: Duration, enough: usize, ended: &AtomicBool) -> usize {
    let mut stream = wire::connect(address);
    stream.set_read_timeout(Some(AT_MOST)).expect("a limit");
    setsockopt(&stream, sockopt::RcvBuf, &(8 << 10)).expect("a small buffer");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
    let (mut part, mut all) = (vec![0; bytes], 0);
    while all < enough && !ended.load(Ordering::Relaxed) {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return all,
            Ok(length) => all += length,
        }
        std::thread::sleep(pause);
    }
    if all < enough {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        all += rest.len();
    }
    all
}

/// Asks over HTTP/2 and opens the window by so many bytes a second, in small steps.
fn opens_its_window(address: SocketAddr, path: &str, rate: u64, ended: &AtomicBool) {
    let mut stream: TcpStream = frames::connect(address, &frames::setting(frames::INITIAL_WINDOW_SIZE, 0));
    let flags = frames::END_STREAM | frames::END_HEADERS;
    stream.write_all(&frames::frame(frames::HEADERS, flags, 1, &frames::get(path))).expect("sent");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
    let (begun, mut opened) = (Instant::now(), 0);
    while !ended.load(Ordering::Relaxed) {
        let due = begun.elapsed().as_secs() * rate;
        let more = u32::try_from(due - opened).expect("little");
        if more > 0 {
            opened = due;
            // Of the stream, and of the connection.
            for id in [1, 0] {
                let _ = stream.write_all(&frames::frame(frames::WINDOW_UPDATE, 0, id, &more.to_be_bytes()));
            }
        }
        if let Ok(0) = stream.read(&mut [0; 16 << 10]) {
            break;
        }
    }
}

fn proxied(azure: &Emulator) -> Setup {
    let hosts = format!("  blobs: proxy\n  blob_hosts: ['{}']\n", azure.storage_addr());
    Setup::new(azure).upstream(&hosts).flag("--admin-address", ":0")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_a_byte_a_second_is_cut_off_and_counted_and_one_on_a_slow_link_gets_its_layer() {
    let azure = testkit::azure().await;
    let pushed = azure.push(Image::small("hub/library/large", "latest").with_layers(1, LAYER));
    // More than the default, so that two pieces, which HTTP/2 may hold at once, are not waited for all too long.
    let proxy = proxied(&azure).settings("limits: {slow_reader_bytes_per_second: 1500}").start();
    let layer = pushed.blobs.iter().max_by_key(|blob| azure.blob(blob).expect("pushed").len()).expect("blobs");
    let path = format!("/v2/library/large/blobs/{layer}");
    let address = proxy.address();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drip = scope.spawn(|| reads(address, &path, 1, Duration::from_secs(1), LAYER, &ended));
        let over_h2 = scope.spawn(|| opens_its_window(address, &path, 1, &ended));
        // Some 3 KiB a second, for longer than the slow ones have.
        let slow =
            scope.spawn(|| reads(address, &path, 300, Duration::from_millis(100), ENOUGH, &AtomicBool::new(false)));
        let begun = Instant::now();
        let cut_off = || load(&proxy)["refused"]["slow_reader"].as_u64().expect("a number");
        while cut_off() < 2 && begun.elapsed() < AT_MOST {
            std::thread::sleep(Duration::from_millis(200));
        }
        ended.store(true, Ordering::Relaxed);
        let length = drip.join().expect("no panic");
        assert!(length < LAYER, "{length}");
        over_h2.join().expect("no panic");
        assert!(slow.join().expect("no panic") >= ENOUGH);
        assert_eq!(cut_off(), 2);
    });
    let log = proxy.end();
    let lines = log.lines().filter(|line| {
        line.contains("INFO  access] GET ") && line.contains(" error=client takes its answer too slowly: limits.")
    });
    assert_eq!(lines.count(), 2, "one line for each: {log}");
}

/// A piece of an answer is 64 KiB where the client is the slow one. With a minute for each, whatever the setting, the first client
/// would go on for ever, and the second one be cut off.
#[tokio::test(flavor = "multi_thread")]
async fn over_http2_the_rate_is_the_one_that_is_set() {
    let azure = testkit::azure().await;
    let pushed = azure.push(Image::small("hub/library/large", "latest").with_layers(1, LAYER));
    let layer = pushed.blobs.iter().max_by_key(|blob| azure.blob(blob).expect("pushed").len()).expect("blobs");
    let path = format!("/v2/library/large/blobs/{layer}");
    let with =
        |rate: u32| proxied(&azure).settings(&format!("limits: {{slow_reader_bytes_per_second: {rate}}}")).start();
    let (strict, lenient) = (with(20_000), with(100));
    let ended = AtomicBool::new(false);
    let cut_off = |proxy| load(proxy)["refused"]["slow_reader"].as_u64().expect("a number");
    std::thread::scope(|scope| {
        scope.spawn(|| opens_its_window(lenient.address(), &path, 600, &ended));
        scope.spawn(|| opens_its_window(strict.address(), &path, 2000, &ended));
        let begun = Instant::now();
        while cut_off(&strict) == 0 && begun.elapsed() < AT_MOST {
            std::thread::sleep(Duration::from_millis(200));
        }
        let seen = (cut_off(&strict), cut_off(&lenient));
        ended.store(true, Ordering::Relaxed);
        assert_eq!(seen, (1, 0), "after {:?}", begun.elapsed());
    });
}
