//! A TCP forwarder that adds a round-trip time and does not limit the bandwidth.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes of one read.
const PART: usize = 64 << 10;
/// Reads in flight in one direction: 16 MiB, which at a round trip of 100 ms is 300 MB/s a connection.
const MAX_IN_FLIGHT: usize = 256;
/// After an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(10);

/// A listener that forwards connections. As in a real network, the first byte of a new connection passes after a round trip
/// (the TCP handshake), and every byte takes half of one. There is neither slow start nor loss.
pub struct DelayLine(TcpListener);

impl DelayLine {
    /// Listens on a port that the system picks.
    pub async fn bind() -> std::io::Result<Self> {
        TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.map(Self)
    }

    /// The address it listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Forwards to `target`, `rtt` away, until the future is dropped.
    pub async fn forward(self, target: SocketAddr, rtt: Duration) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.0.accept() => match accepted {
                    Ok((near, _)) => {
                        connections.spawn(connection(near, target, rtt));
                    }
                    Err(_) => sleep(PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connection(near: TcpStream, target: SocketAddr, rtt: Duration) {
    let open = Instant::now() + rtt;
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        // No second wait in the kernel.
        let _ = stream.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        one_way(near_read, far_write, open, rtt / 2),
        // No response before the request.
        one_way(far_read, near_write, open, rtt / 2)
    );
}

/// Copies bytes, each `delay` after it was read, as if none had been sent before `open`.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, open: Instant, delay: Duration) {
    let (sender, mut in_flight) = mpsc::channel::<(Instant, Bytes)>(MAX_IN_FLIGHT);
    let read = async move {
        let mut buffer = bytes::BytesMut::new();
        loop {
            buffer.reserve(PART);
            let ended = !matches!(from.read_buf(&mut buffer).await, Ok(1..));
            // An empty part marks the end, which is delayed as well.
            let part = (Instant::now().max(open) + delay, buffer.split().freeze());
            if sender.send(part).await.is_err() || ended {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, part)) = in_flight.recv().await {
            sleep_until(due).await;
            if part.is_empty() || to.write_all(&part).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_connection_takes_a_round_trip_more() {
        const RTT: Duration = Duration::from_millis(40);
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = echo.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await.expect("a connection");
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let line = DelayLine::bind().await.expect("a port");
        let address = line.address().expect("an address");
        let forwarding = tokio::spawn(line.forward(target, RTT));
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let mut byte = [0];
        for round_trips in [2, 1, 1] {
            let begun = std::time::Instant::now();
            stream.write_all(b"x").await.expect("sent");
            stream.read_exact(&mut byte).await.expect("received");
            // Timers never fire early, but the connection stood a little before its first byte was written.
            assert!(begun.elapsed() + RTT / 4 >= RTT * round_trips, "{:?}", begun.elapsed());
        }
        drop(stream);
        forwarding.abort();
    }

    #[tokio::test]
    async fn the_bandwidth_is_not_limited() {
        const MUCH: usize = 8 << 20;
        let source = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = source.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = source.accept().await.expect("a connection");
            stream.write_all(&vec![7; MUCH]).await.expect("sent");
        });
        let line = DelayLine::bind().await.expect("a port");
        let address = line.address().expect("an address");
        tokio::spawn(line.forward(target, Duration::from_millis(20)));
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("received");
        assert!(all.len() == MUCH && all.iter().all(|byte| *byte == 7));
    }
}
