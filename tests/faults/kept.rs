use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;

/// What every client here sends along; it must get no further, and into no log.
pub const CREDENTIALS: &str = "Y2xpZW50Om93bi1wYXNzd29yZA==";
/// Of a body that does not end, so much is read.
const LOOK: u64 = 64 << 10;

/// What a client saw of an answer.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    /// The code of the first error in an OCI error body.
    pub code: Option<String>,
    pub retry_after: Option<u64>,
    /// The body is shorter than its head promised.
    pub cut: bool,
    pub took: Duration,
}

/// A client that keeps its connection for as long as the proxy does.
pub struct Kept {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Kept {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Asks once; `Err` if there is no answer.
    pub fn get(&mut self, path: &str) -> io::Result<Seen> {
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
             Accept: application/vnd.oci.image.index.v1+json\r\n\r\n"
        )?;
        let head = Head::read(&mut stream)?;
        let mut body = Vec::new();
        // A connection that breaks ends the body as well as a close does.
        let _ = stream.by_ref().take(head.length.unwrap_or(LOOK).min(LOOK)).read_to_end(&mut body);
        let cut = head.length.is_some_and(|length| (body.len() as u64) < length.min(LOOK));
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if !cut && !head.closes && head.length.is_some_and(|length| length <= LOOK) {
            self.stream = Some(stream);
        }
        Ok(Seen {
            status: head.status,
            code: json["errors"][0]["code"].as_str().map(str::to_owned),
            retry_after: head.retry_after,
            cut,
            took: begun.elapsed(),
        })
    }
}

struct Head {
    status: u16,
    length: Option<u64>,
    retry_after: Option<u64>,
    closes: bool,
}

impl Head {
    fn read(stream: &mut impl io::BufRead) -> io::Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
        let mut head = Self { status, length: None, retry_after: None, closes: false };
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                return Ok(head);
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().ok(),
                "retry-after" => head.retry_after = value.parse().ok(),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
}
