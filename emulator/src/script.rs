//! Answers that hyper would not write: endless interim answers, a head byte by byte, a 101 that nobody asked for.
//!
//! The connection is taken over from hyper to write them, and closed afterwards.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::answer::Answer;
use crate::lock::lock;
use crate::wire::Wire;

/// Time between two bytes of a dripping head.
const DRIP: Duration = Duration::from_secs(3);
/// Time between two of the endless interim answers.
const INTERIM: Duration = Duration::from_secs(1);

/// Which of these answers; see [`crate::Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    DripHead,
    Interim(u16),
    InterimThenClose(u16),
    InterimForever(u16),
    Surplus(String),
    SwitchProtocols,
    Coding(String),
    NotHttp,
    Raw(String),
}

/// An answer to be written past hyper.
pub(crate) struct Script {
    kind: Kind,
    /// Head of the correct answer.
    head: String,
    body: Bytes,
}

impl Script {
    pub(crate) fn new(kind: Kind, answer: Answer) -> Script {
        Script { kind, head: answer.head(), body: answer.body }
    }

    /// Writes the whole answer; the connection ends when this returns.
    pub(crate) async fn run(self, mut wire: Wire) {
        // The client may have left.
        let _ = self.write(&mut wire).await;
        let _ = wire.shutdown().await;
    }

    async fn write(self, wire: &mut Wire) -> io::Result<()> {
        let interim = |status| format!("HTTP/1.1 {status} Interim\r\nLink: </x>; rel=preload\r\n\r\n");
        match self.kind {
            Kind::DripHead => {
                for byte in self.head.as_bytes() {
                    send(wire, &[*byte]).await?;
                    sleep(DRIP).await;
                }
                send(wire, &self.body).await
            }
            Kind::Interim(status) => {
                // In packets of its own, as from a server that takes time for the final answer.
                send(wire, interim(status).as_bytes()).await?;
                send(wire, self.head.as_bytes()).await?;
                send(wire, &self.body).await
            }
            Kind::InterimThenClose(status) => send(wire, interim(status).as_bytes()).await,
            Kind::InterimForever(status) => loop {
                send(wire, interim(status).as_bytes()).await?;
                sleep(INTERIM).await;
            },
            Kind::Surplus(more) => {
                // In one record, so that whoever reads the answer has read this.
                let head = self.head.replace("Connection: close\r\n", "");
                send(wire, &[head.as_bytes(), &self.body, more.as_bytes()].concat()).await?;
                std::future::pending().await
            }
            Kind::Coding(coding) => {
                let head = self.head.replace("Connection: close\r\n", "");
                let head = head.trim_end().to_owned() + "\r\nTransfer-Encoding: " + &coding + "\r\n\r\n";
                send(wire, &[head.as_bytes(), &self.body].concat()).await?;
                std::future::pending().await
            }
            Kind::NotHttp => send(wire, b"220 mail ESMTP\r\n").await,
            Kind::Raw(bytes) => send(wire, bytes.as_bytes()).await,
            Kind::SwitchProtocols => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n";
                send(wire, head.as_bytes()).await?;
                send(wire, b"what comes through a tunnel").await?;
                std::future::pending().await
            }
        }
    }
}

async fn send(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.write_all(bytes).await?;
    wire.flush().await
}

/// Passes a script from a request to the task that serves its connection.
#[derive(Default)]
pub(crate) struct Handover {
    script: Mutex<Option<Script>>,
    given: Notify,
}

impl Handover {
    pub(crate) fn give(&self, script: Script) {
        *lock(&self.script) = Some(script);
        self.given.notify_one();
    }

    /// Waits for a script.
    pub(crate) async fn taken(&self) -> Script {
        loop {
            self.given.notified().await;
            if let Some(script) = lock(&self.script).take() {
                return script;
            }
        }
    }
}
