//! Answers that hyper would not write: interim ones without end, a head byte by byte, 101 unasked.
//!
//! The connection is taken from hyper for them, and is closed behind them.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::answer::Answer;
use crate::connection::Wire;

/// Time between two bytes of a dripping head.
const DRIP: Duration = Duration::from_secs(3);
/// Time between two interim answers of those that do not end.
const INTERIM: Duration = Duration::from_secs(1);

/// Which answer it is; see [`crate::Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    DripHead,
    Interim(u16),
    InterimThenClose(u16),
    InterimForever(u16),
    SwitchProtocols,
}

/// The bytes of such an answer, and when they are written.
pub(crate) struct Script {
    kind: Kind,
    /// The right answer.
    head: String,
    body: Bytes,
}

impl Script {
    pub(crate) fn new(kind: Kind, answer: Answer) -> Script {
        Script { kind, head: answer.head(), body: answer.body }
    }

    /// Writes it all; the connection ends when this does.
    pub(crate) async fn play(self, mut wire: Wire) {
        // A client that has gone has gone.
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
                // In packets of their own, as a server sends them that takes its time for the right one.
                send(wire, interim(status).as_bytes()).await?;
                send(wire, self.head.as_bytes()).await?;
                send(wire, &self.body).await
            }
            Kind::InterimThenClose(status) => send(wire, interim(status).as_bytes()).await,
            Kind::InterimForever(status) => loop {
                send(wire, interim(status).as_bytes()).await?;
                sleep(INTERIM).await;
            },
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

/// Hands a script from a request to the task that has its connection.
#[derive(Default)]
pub(crate) struct Handover {
    script: Mutex<Option<Script>>,
    given: Notify,
}

impl Handover {
    pub(crate) fn give(&self, script: Script) {
        *crate::lock(&self.script) = Some(script);
        self.given.notify_one();
    }

    /// Waits for one.
    pub(crate) async fn taken(&self) -> Script {
        loop {
            self.given.notified().await;
            if let Some(script) = crate::lock(&self.script).take() {
                return script;
            }
        }
    }
}
