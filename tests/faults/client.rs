//! A client that keeps its connection, and reports what it saw of each answer, whole or not.

use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testkit::PATIENCE;
use testkit::wire::{End, receive};

/// What every client here sends along; it must get no further, and into no log.
pub(crate) const CREDENTIALS: &str = "Y2xpZW50Om93bi1wYXNzd29yZA==";
/// This much is read of a body that does not end.
const MOST: usize = 64 << 10;

/// What a client saw of an answer.
#[derive(Debug)]
pub(crate) struct Seen {
    pub status: u16,
    /// The code of the first error in an OCI error body.
    pub code: Option<String>,
    pub retry_after: Option<u64>,
    /// The body is shorter than its head promised.
    pub cut: bool,
    pub took: Duration,
}

/// A client that keeps its connection for as long as the proxy does, and opens another one then.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Asks once; `Err` if there is no answer.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Seen> {
        let begun = Instant::now();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        write!(
            stream.get_mut(),
            "GET {path} HTTP/1.1\r\nHost: mirror\r\nAuthorization: Basic {CREDENTIALS}\r\n\
             Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json\r\n\r\n"
        )?;
        let received = receive(&mut stream, "GET", MOST)?;
        let answer = received.answer;
        // Where the body ends with the connection, breaking and closing look the same.
        let cut = received.broken.is_some() && answer.end != End::Close;
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !cut && !closes && !received.is_longer && answer.end != End::Close {
            self.stream = Some(stream);
        }
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(Seen {
            status: answer.status(),
            code: json["errors"][0]["code"].as_str().map(str::to_owned),
            retry_after: answer.header("retry-after").and_then(|value| value.parse().ok()),
            cut,
            took: begun.elapsed(),
        })
    }
}
