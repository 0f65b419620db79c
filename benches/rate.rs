//! An open loop: GET requests at a fixed rate, whatever becomes of them. `benches/run.py` compiles and runs it.
//!
//! `rate ADDRESS PATH REQUESTS_A_SECOND SECONDS CONNECTIONS kept|close [HEADER...]` prints one line of JSON: how many
//! succeeded and failed, and percentiles of the time from when a request was due to its last byte, in microseconds. What
//! had to wait because an answer was late counts from when it was due, so a stall shows in all requests that it held up
//! (no coordinated omission). It is made of the standard library and blocking threads: their sleeps are good to some
//! tens of microseconds, which an asynchronous runtime's timers are not.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// What takes longer is an error.
const LIMIT: Duration = Duration::from_secs(10);
/// For all threads to have started.
const HEAD_START: Duration = Duration::from_millis(200);
/// Percentiles by their share.
const SHARES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

struct Load {
    address: SocketAddr,
    request: Vec<u8>,
    rate: f64,
    seconds: f64,
    connections: u32,
    close: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(load) = parse(&arguments) else {
        eprintln!("usage: rate ADDRESS PATH REQUESTS_A_SECOND SECONDS CONNECTIONS kept|close [HEADER...]");
        return ExitCode::from(2);
    };
    let begun = Instant::now() + HEAD_START;
    let mut latencies = Vec::new();
    let mut failures = 0;
    let mut last = None;
    thread::scope(|scope| {
        let load = &load;
        let workers: Vec<_> =
            (0..load.connections).map(|number| scope.spawn(move || work(load, number, begun))).collect();
        for worker in workers {
            let Ok((measured, failed, why)) = worker.join() else { continue };
            latencies.extend(measured);
            failures += failed;
            last = last.take().or(why);
        }
    });
    latencies.sort_unstable();
    let figures: Vec<_> =
        SHARES.iter().map(|(name, share)| format!("\"{name}\": {}", at(&latencies, *share))).collect();
    println!("{{\"requests\": {}, \"errors\": {failures}, {}}}", latencies.len(), figures.join(", "));
    if let Some(why) = last {
        eprintln!("rate: {failures} failed, such as: {why}");
    }
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Option<Load> {
    let [address, path, rate, seconds, connections, close, headers @ ..] = arguments else { return None };
    let close = match close.as_str() {
        "kept" => false,
        "close" => true,
        _ => return None,
    };
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
    for header in headers.iter().map(String::as_str).chain(close.then_some("Connection: close")) {
        request += &format!("{header}\r\n");
    }
    request += "\r\n";
    let load = Load {
        address: address.parse().ok()?,
        request: request.into_bytes(),
        rate: rate.parse().ok().filter(|rate| *rate > 0.0)?,
        seconds: seconds.parse().ok()?,
        connections: connections.parse().ok().filter(|connections| *connections > 0)?,
        close,
    };
    Some(load)
}

/// Every request whose number has this remainder, each when it is due; one after the other.
fn work(load: &Load, number: u32, begun: Instant) -> (Vec<u32>, u64, Option<String>) {
    let (mut latencies, mut failures, mut last) = (Vec::new(), 0, None);
    let mut kept = None;
    let total = load.rate * load.seconds;
    for request in (u64::from(number)..).step_by(load.connections as usize).take_while(|each| (*each as f64) < total) {
        let due = begun + Duration::from_secs_f64(request as f64 / load.rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match exchange(load, kept.take()) {
            Ok(stream) => {
                latencies.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
                kept = (!load.close).then_some(stream);
            }
            Err(cause) => {
                failures += 1;
                last = Some(cause.to_string());
            }
        }
    }
    (latencies, failures, last)
}

/// One request and its whole answer; gives back the connection.
fn exchange(load: &Load, kept: Option<BufReader<TcpStream>>) -> io::Result<BufReader<TcpStream>> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&load.address, LIMIT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LIMIT))?;
            BufReader::new(stream)
        }
    };
    stream.get_mut().write_all(&load.request)?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = None;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let length = length.ok_or_else(|| io::Error::other(format!("status {status:?} without a Content-Length")))?;
    if io::copy(&mut stream.by_ref().take(length), &mut io::sink())? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if status != "200" {
        return Err(io::Error::other(format!("status {status}")));
    }
    Ok(stream)
}

/// The value that this share of all are no longer than.
fn at(sorted: &[u32], share: f64) -> u32 {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}
