//! Clients that ask all the time while a proxy changes: on new connections, on a kept one, and by HTTP/2.
//!
//! Each does as the HTTP clients of engines do: after `Connection: close` or GOAWAY it opens another connection, and a request on a
//! kept connection that ends before anything of the answer has come is sent once more, on a new one. Any other end is a failure.

use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use h2::client::SendRequest;

use crate::wire;
use testkit::PATIENCE;

/// What such clients ask for, and what they accept.
pub(crate) const PULL: &str = "/v2/library/busybox/manifests/latest";
pub(crate) const ACCEPT: &str = "Accept: application/vnd.oci.image.index.v1+json\r\n";

/// The clients, until [`Self::end`].
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut threads = Vec::new();
        for kind in [Kind::New, Kind::New, Kind::Kept, Kind::Kept, Kind::Http2] {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            threads.push(std::thread::spawn(move || {
                let mut failed = Vec::new();
                let mut client = Client::new(kind, address);
                while !stop.load(Ordering::Relaxed) {
                    match client.ask() {
                        Ok(200) => {}
                        Ok(status) => failed.push(format!("{kind:?}: {status}")),
                        Err(cause) => failed.push(format!("{kind:?}: {cause}")),
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                failed
            }));
        }
        Self { stop, answers, threads }
    }

    /// Waits until each of them could have had this many more answers.
    pub(crate) fn wait_for(&self, more: usize) {
        let (wanted, deadline) =
            (self.answers.load(Ordering::Relaxed) + more * self.threads.len(), Instant::now() + PATIENCE);
        while self.answers.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "no answers any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops them. Returns the number of requests, none of which has failed.
    pub(crate) fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let failed: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        let requests = self.answers.load(Ordering::Relaxed);
        assert!(
            failed.is_empty(),
            "of {requests} requests {} failed: {:?}",
            failed.len(),
            failed.iter().take(10).collect::<Vec<_>>()
        );
        requests
    }
}

/// In a case that fails nobody ends them, and they would go on beside all cases that follow.
impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What is wrong is told by what is under way already.
            let _ = thread.join();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    New,
    Kept,
    Http2,
}

struct Client {
    kind: Kind,
    address: SocketAddr,
    kept: Option<BufReader<TcpStream>>,
    http2: Option<SendRequest<bytes::Bytes>>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    fn new(kind: Kind, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { kind, address, kept: None, http2: None, runtime: runtime.expect("a runtime") }
    }

    fn ask(&mut self) -> io::Result<u16> {
        match self.kind {
            Kind::New => {
                self.kept = None;
                self.ask_http1()
            }
            Kind::Kept => self.ask_http1(),
            Kind::Http2 => {
                if let Some(kept) = self.http2.take()
                    && let Ok(status) = self.ask_http2(kept)
                {
                    return Ok(status);
                }
                let new = self.runtime.block_on(async {
                    let stream = tokio::net::TcpStream::connect(self.address).await?;
                    let (client, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
                    tokio::spawn(connection);
                    Ok::<_, io::Error>(client)
                })?;
                self.ask_http2(new)
            }
        }
    }

    fn ask_http1(&mut self) -> io::Result<u16> {
        let is_kept = self.kept.is_some();
        match self.try_http1() {
            Err(cause) if is_kept && cause.kind() == io::ErrorKind::ConnectionAborted => self.try_http1(),
            outcome => outcome,
        }
    }

    /// `ConnectionAborted` is the end of the connection before anything of the answer.
    fn try_http1(&mut self) -> io::Result<u16> {
        let mut stream = match self.kept.take() {
            Some(kept) => kept,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let none_yet = |cause: io::Error| io::Error::new(io::ErrorKind::ConnectionAborted, cause);
        write!(stream.get_mut(), "GET {PULL} HTTP/1.1\r\nHost: mirror\r\n{ACCEPT}\r\n").map_err(none_yet)?;
        if io::BufRead::fill_buf(&mut stream).map_err(none_yet)?.is_empty() {
            return Err(none_yet(io::ErrorKind::UnexpectedEof.into()));
        }
        let received = wire::receive(&mut stream, "GET", usize::MAX)?;
        if let Some(cause) = received.broken {
            return Err(cause);
        }
        if received.answer.header("connection") != Some("close") {
            self.kept = Some(stream);
        }
        Ok(received.answer.status())
    }

    fn ask_http2(&mut self, client: SendRequest<bytes::Bytes>) -> io::Result<u16> {
        let request = http::Request::get(format!("http://mirror{PULL}"))
            .header("accept", "application/vnd.oci.image.index.v1+json")
            .body(())
            .expect("a request");
        let (status, client) = self
            .runtime
            .block_on(async {
                let mut client = client.ready().await?;
                let (answer, _) = client.send_request(request, true)?;
                let answer = answer.await?;
                let (head, mut body) = answer.into_parts();
                while let Some(part) = body.data().await {
                    let length = part?.len();
                    body.flow_control().release_capacity(length)?;
                }
                Ok((head.status.as_u16(), client))
            })
            .map_err(|cause: h2::Error| io::Error::other(cause))?;
        self.http2 = Some(client);
        Ok(status)
    }
}
