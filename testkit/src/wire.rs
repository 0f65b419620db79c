//! HTTP/1 as bytes: requests that no client library sends, and responses byte for byte.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::PATIENCE;

/// A parsed response.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body as received, including the framing of chunks.
    pub body: String,
}

impl Answer {
    /// The first value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The code of the first error in an OCI error body.
    ///
    /// # Panics
    /// If the body is not an OCI error.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        let error = &body["errors"][0];
        assert!(error["message"].is_string() && error.get("detail").is_some(), "{self:?}");
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection to the proxy, whose reads have a time limit.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Sends bytes and reads until the proxy closes the connection.
pub fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => answer,
        Err(cause) => panic!("{cause}, behind {:?}", String::from_utf8_lossy(&answer)),
    }
}

/// Sends `<line> HTTP/1.1` with these header lines and `Connection: close`, and reads the response.
pub fn ask(address: SocketAddr, line: &str, headers: &str) -> Answer {
    let request = format!("{line} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n{headers}\r\n");
    parse(&send(address, request.as_bytes()))
}

/// Parses a response that was read to its end.
///
/// # Panics
/// If it is not a response.
pub fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// What marks the end of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is no body, whatever the headers say: a response to `HEAD`, or a 304.
    Bodiless,
    /// `Content-Length`.
    Length,
    /// The last chunk.
    Chunks,
    /// The end of the connection.
    Close,
}

/// A response with the bytes of its body.
#[derive(Debug)]
pub struct Whole {
    /// Status line and headers; its `body` is empty.
    pub head: Answer,
    /// The body, without the framing of chunks.
    pub body: Vec<u8>,
    /// What marked its end.
    pub end: End,
}

impl Whole {
    /// The first value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }
}

/// A response that may have broken off, or may be longer than what was read.
#[derive(Debug)]
pub struct Received {
    /// What was read.
    pub answer: Whole,
    /// Why the body broke off, if it did.
    pub broken: Option<io::Error>,
    /// The body is longer than what was read.
    pub is_longer: bool,
}

/// Reads the response to a request of this method, and no more than `most` bytes of its body (and the rest of a chunk).
/// Returns errors in the headers; an error in the body is in [`Received::broken`].
pub fn receive(stream: &mut impl BufRead, method: &str, most: usize) -> io::Result<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head)? == 0 {
            return Err(io::Error::other(format!("closed before the answer: {:?}", String::from_utf8_lossy(&head))));
        }
    }
    let head = parse(&head);
    let (mut body, mut is_longer) = (Vec::new(), false);
    let (end, outcome) = match (head.header("transfer-encoding"), head.header("content-length")) {
        _ if method == "HEAD" || head.status == 304 => (End::Bodiless, Ok(())),
        (Some("chunked"), None) => {
            let outcome = chunks(stream, &mut body, most);
            is_longer = matches!(outcome, Ok(false));
            (End::Chunks, outcome.map(drop))
        }
        (None, Some(length)) => {
            let length: usize = length.parse().map_err(io::Error::other)?;
            is_longer = length > most;
            body.resize(length.min(most), 0);
            (End::Length, fill(stream, &mut body))
        }
        (None, None) => {
            let outcome = stream.take(most as u64).read_to_end(&mut body);
            is_longer = body.len() == most;
            (End::Close, outcome.map(drop))
        }
        (Some(_), _) => return Err(io::Error::other(format!("unknown framing: {}", head.head))),
    };
    Ok(Received { answer: Whole { head, body, end }, broken: outcome.err(), is_longer })
}

/// Fills the buffer; truncates it if the connection ends before.
fn fill(stream: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => {
                buffer.truncate(filled);
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(read) => filled += read,
            Err(cause) => {
                buffer.truncate(filled);
                return Err(cause);
            }
        }
    }
    Ok(())
}

/// Reads chunks until the last one or until there are `most` bytes; `true` if it was the last one.
fn chunks(stream: &mut impl BufRead, body: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    while body.len() <= most {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..])?;
        let mut end = [0; 2];
        stream.read_exact(&mut end)?;
        if &end != b"\r\n" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if size == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A connection for several requests.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects.
    pub fn new(address: SocketAddr) -> Self {
        Self(BufReader::new(connect(address)))
    }

    /// Sends `<method> <path> <version>` with these header lines and reads the whole response, as a client of that version
    /// does.
    ///
    /// # Panics
    /// If the response is incomplete.
    pub fn ask(&mut self, method: &str, path: &str, version: &str, headers: &str) -> Whole {
        let host = if version == "HTTP/1.0" { "" } else { "Host: mirror\r\n" };
        // In one piece: the kernel would keep back what follows the first for the time that a client waits with its ACK.
        let request = format!("{method} {path} {version}\r\n{host}{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("sent");
        let received = receive(&mut self.0, method, usize::MAX).unwrap_or_else(|cause| panic!("{path}: {cause}"));
        let head = &received.answer.head.head;
        assert!(received.broken.is_none(), "{path}: broken off: {:?}: {head}", received.broken);
        assert!(version == "HTTP/1.1" || received.answer.end != End::Chunks, "chunks for an older client: {head}");
        received.answer
    }

    /// Waits until the proxy closes the connection; false if it sends more instead.
    pub fn is_at_its_end(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]))
    }
}
