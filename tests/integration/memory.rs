//! Memory, when more names are asked for than can be kept.
//!
//! `MEMORY_NAMES` and `MEMORY_MIB` set how many, and `cache.memory`; `MEMORY_RESULTS` names a file for the raw figures.
//! scripts/memory runs it with what the documentation states.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use acr_emulator::{Emulator, Image};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};

use testkit::wire::Client;
use testkit::{Proxy, Setup};

/// Connections that ask at once.
const CLIENTS: usize = 16;
/// What the process may take beside `cache.memory`, as docs/operations.md states it.
const OVERHEAD: usize = 64 << 20;
/// Names that exist are tagged this many at a time, so that the emulator's own tables stay small.
const BATCH: usize = 4000;
/// Clients that ask for a list and do not read it; with what each had of its own this was half a gigabyte.
const UNREAD: usize = 60;
/// Tags of a list that is nearly as long as one may be.
const LONG_LIST: usize = 30_000;
/// What bodies take together beside the cache.
const ROOM: usize = 64 << 20;
const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Asks once for each of these names: two of three are tags that exist, the third does not.
fn ask(proxy: &Proxy, names: std::ops::Range<usize>) {
    let (address, next) = (proxy.address(), AtomicUsize::new(names.start));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(address);
                loop {
                    let name = next.fetch_add(1, Ordering::Relaxed);
                    if !names.contains(&name) {
                        return;
                    }
                    let (path, status) = match name % 3 {
                        0 => (format!("/v2/library/none-{name}/manifests/latest"), 404),
                        _ => (format!("/v2/library/busybox/manifests/t{name}"), 200),
                    };
                    let answer = client.ask("GET", &path, "HTTP/1.1", ACCEPT);
                    assert_eq!(answer.head.status, status, "{path}");
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_many_names_stays_within_its_bound() {
    let (names, memory) = (number("MEMORY_NAMES", 4000), number("MEMORY_MIB", 1) << 20);
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let digest = azure.push(Image::small("hub/library/busybox", "latest")).index_digest;
    let settings = format!("{{memory: {}MiB, tags: 1h, missing: 1m}}", memory >> 20);
    let proxy = Setup::new(&azure).flag("--log", "error").cache(&settings).start();
    // What every start takes, with connections in both directions. The first name is one that does not exist.
    ask(&proxy, 0..1);
    let base = proxy.resident_bytes();
    let (mut peak, mut figures) = (base, format!("{{\"memory\": {memory}, \"base\": {base}, \"resident\": [\n"));
    for begin in (1..names).step_by(BATCH) {
        let batch = begin..names.min(begin + BATCH);
        for name in batch.clone() {
            azure.tag("hub/library/busybox", &digest, &format!("t{name}"));
        }
        let end = batch.end;
        ask(&proxy, batch.clone());
        peak = peak.max(proxy.resident_bytes());
        writeln!(figures, "  [{end}, {}],", proxy.resident_bytes()).expect("memory");
        for name in batch {
            azure.delete_tag("hub/library/busybox", &format!("t{name}"));
        }
        azure.clear_requests();
    }
    let all = proxy.peak_resident_bytes();
    let figures = format!("{}\n], \"peak\": {peak}, \"peak_with_program\": {all}}}\n", figures.trim_end_matches(",\n"));
    println!(
        "{names} names, {} MiB for the cache: {} MiB resident at most, {} MiB without the program's own pages, {} MiB at first",
        memory >> 20,
        all >> 20,
        peak >> 20,
        base >> 20
    );
    if let Some(file) = std::env::var_os("MEMORY_RESULTS") {
        std::fs::write(file, figures).expect("the figures are written");
    }
    // The program's own pages are counted where it is built as for users.
    let counted = if cfg!(debug_assertions) { peak } else { all };
    assert!(counted <= memory + OVERHEAD, "{counted} bytes");
}

/// A connection whose window is small from its beginning, so that the kernel takes next to nothing of an answer.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    setsockopt(&socket, sockopt::RcvBuf, &4096).expect("a small buffer");
    let SocketAddr::V4(address) = address else { panic!("{address} is of IPv6") };
    connect(socket.as_raw_fd(), &SockaddrIn::from(address)).expect("a connection");
    TcpStream::from(socket)
}

/// Each had 4 MiB of its own, twice, for as long as its client took.
#[tokio::test(flavor = "multi_thread")]
async fn lists_that_nobody_reads_stay_within_their_room() {
    let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
    let digest = azure.push(Image::small("hub/library/busybox", "latest")).index_digest;
    for tag in 0..LONG_LIST {
        azure.tag("hub/library/busybox", &digest, &format!("t{tag:0>120}"));
    }
    for (cache, how) in [("off", "passed on"), ("{memory: 1MiB}", "shared by flights")] {
        let proxy = Setup::new(&azure).flag("--log", "error").cache(cache).start();
        let list = |number: usize| format!("/v2/library/busybox/tags/list?n={LONG_LIST}&last=a{number}");
        let whole = Client::new(proxy.address()).ask("GET", &list(UNREAD), "HTTP/1.1", "");
        assert!(whole.head.status == 200 && whole.body.len() > 3 << 20, "{how}: {}", whole.body.len());
        let base = proxy.resident_bytes();
        let unread: Vec<_> = (0..UNREAD)
            .map(|number| {
                let mut stream = narrow(proxy.address());
                let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", list(number));
                stream.write_all(request.as_bytes()).expect("sent");
                stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
                // It has the beginning of its answer, and so has come as far as it comes.
                let mut beginning = [0; 12];
                stream.read_exact(&mut beginning).expect("an answer");
                assert!(beginning.starts_with(b"HTTP/1.1 200"), "{how}: {}", String::from_utf8_lossy(&beginning));
                stream
            })
            .collect();
        let taken = proxy.resident_bytes().saturating_sub(base);
        println!("{how}: {} MiB for {UNREAD} lists that nobody reads", taken >> 20);
        assert!(taken <= ROOM + OVERHEAD, "{how}: {} MiB", taken >> 20);
        let small = Client::new(proxy.address()).ask("GET", "/v2/library/busybox/manifests/latest", "HTTP/1.1", ACCEPT);
        assert_eq!(small.head.status, 200, "{how}: others are served meanwhile");
        drop(unread);
    }
}
