//! A client's connection, kept from request to request.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use testkit::PATIENCE;

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
        let cut = if head.is_chunked {
            !read_chunks(&mut stream, &mut body)?
        } else {
            // A connection that breaks ends the body as well as a close does.
            let _ = stream.by_ref().take(head.length.unwrap_or(LOOK).min(LOOK)).read_to_end(&mut body);
            head.length.is_some_and(|length| (body.len() as u64) < length.min(LOOK))
        };
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_read = head.length.map_or(head.is_chunked, |length| length <= LOOK) && (body.len() as u64) <= LOOK;
        if !cut && !head.closes && is_read {
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

/// Reads chunks until there are none or it is enough; whether they came to an end that is theirs.
fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    while (body.len() as u64) <= LOOK {
        let mut line = String::new();
        // A connection that breaks is an end that is not theirs.
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return Ok(false);
        }
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size + "\r\n".len(), 0);
        if stream.read_exact(&mut body[start..]).is_err() {
            return Ok(false);
        }
        body.truncate(start + size);
        if size == 0 {
            return Ok(true);
        }
    }
    Ok(true)
}

struct Head {
    status: u16,
    is_chunked: bool,
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
        let mut head = Self { status, is_chunked: false, length: None, retry_after: None, closes: false };
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                return Ok(head);
            };
            match name.to_ascii_lowercase().as_str() {
                "transfer-encoding" => head.is_chunked = value.eq_ignore_ascii_case("chunked"),
                "content-length" => head.length = value.parse().ok(),
                "retry-after" => head.retry_after = value.parse().ok(),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
}
