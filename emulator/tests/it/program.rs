//! The emulator as a program.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_says_where_it_listens_and_what_it_is_asked() {
    let mut program = Program(
        Command::new(env!("CARGO_BIN_EXE_acr-emulator"))
            .args(["--storage-tls=false", "--image", "a/b:1", "--image", "c:2"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    );
    let mut lines = BufReader::new(program.0.stdout.take().expect("its output")).lines();
    let mut line = || -> Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    let ready = line()["ready"].clone();
    for name in ["registry", "entra", "storage", "authority"] {
        assert!(ready[name].is_string(), "{ready}");
    }
    assert_eq!(ready["images"], serde_json::json!(["a/b:1", "c:2"]));
    let binary = acr_emulator::static_busybox().map(|file| file.to_string_lossy().into_owned());
    assert_eq!(ready["binary"], serde_json::json!(binary), "what makes them run, if there is such a thing here");
    // Storage speaks plain HTTP here, so that this test needs no TLS of its own.
    let storage = ready["storage"].as_str().expect("an address");
    let mut stream = std::net::TcpStream::connect(storage).expect("a connection");
    std::io::Write::write_all(&mut stream, b"GET /x HTTP/1.1\r\nHost: s\r\n\r\n").expect("sent");
    let request = line();
    assert_eq!((request["server"].as_str(), request["target"].as_str()), (Some("storage"), Some("/x")));
    assert_eq!(request["status"], 403);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_acr-emulator"))
        .args(["--entra-listen", &address])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&format!("entra on {address}")), "{message}");
}
