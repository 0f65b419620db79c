//! HTTP as it is on the wire, for requests that no client library would send.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use testkit::PATIENCE;

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
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
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"));
        let error = &body["errors"][0];
        assert!(error["message"].is_string() && error.get("detail").is_some(), "{self:?}");
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection to the proxy.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Sends bytes and reads until the proxy closes, which it has to do in time.
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

/// Sends `<line> HTTP/1.1` with these further header lines and closes.
pub fn ask(address: SocketAddr, line: &str, headers: &str) -> Answer {
    let request = format!("{line} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n{headers}\r\n");
    parse(&send(address, request.as_bytes()))
}

/// Takes an answer apart that was read to its end.
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

/// How an answer says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is none, whatever the head says: to `HEAD`, and of 304.
    Bodiless,
    Length,
    Chunks,
    Close,
}

/// An answer with the bytes of its body.
#[derive(Debug)]
pub struct Whole {
    pub head: Answer,
    pub body: Vec<u8>,
    pub end: End,
}

impl Whole {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn status(&self) -> u16 {
        self.head.status
    }
}

/// A connection that is kept for as long as the proxy keeps it.
pub struct Kept(BufReader<TcpStream>);

impl Kept {
    pub fn new(address: SocketAddr) -> Self {
        Self(BufReader::new(connect(address)))
    }

    /// Sends `<method> <path> <version>` with these header lines and reads the answer to its end, as a client of that
    /// version would.
    pub fn ask(&mut self, method: &str, path: &str, version: &str, headers: &str) -> Whole {
        let host = if version == "HTTP/1.0" { "" } else { "Host: mirror\r\n" };
        write!(self.0.get_mut(), "{method} {path} {version}\r\n{host}{headers}\r\n").expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.0.read_until(b'\n', &mut head).expect("an answer");
            assert!(read > 0, "closed before the answer to {path}: {}", String::from_utf8_lossy(&head));
        }
        let head = parse(&head);
        let (length, mut body) = (head.header("content-length"), Vec::new());
        let end = match (head.header("transfer-encoding"), length) {
            _ if method == "HEAD" || head.status == 304 => End::Bodiless,
            (Some("chunked"), None) => {
                assert_eq!(version, "HTTP/1.1", "what no older client can read: {}", head.head);
                body = chunks(&mut self.0).expect("whole chunks");
                End::Chunks
            }
            (None, Some(length)) => {
                body.resize(length.parse().expect("a length"), 0);
                self.0.read_exact(&mut body).expect("as long as it says");
                End::Length
            }
            (None, None) => {
                self.0.read_to_end(&mut body).expect("closed in time");
                End::Close
            }
            (Some(_), _) => panic!("no framing that there is: {}", head.head),
        };
        Whole { head, body, end }
    }

    /// Whether the proxy has closed it: waits for the end if there is to be one.
    pub fn is_at_its_end(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]))
    }
}

fn chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
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
            return Ok(body);
        }
    }
}
