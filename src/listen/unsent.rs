//! How much of its answers the kernel keeps of a client's connection that has not been sent yet.
//!
//! Left to itself it takes up to 4 MiB, and a client that reads a layer slowly, or not at all, holds them. What has been sent and is on
//! its way does not count, so a link of any length is as fast as without the bound.

use std::os::fd::AsFd;

use nix::libc::{self, c_int};
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};

/// The kernel asks for more when half of it has left: then there are 2 ms of 1 Gbit/s in which the next write has to come. With half as much a
/// busy host of two cores carried a fifth less over a link of 20 ms.
const UNSENT: c_int = 512 << 10;

sockopt_impl!(
    /// What is not sent (tcp(7)).
    NotSentLowat,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    c_int
);

/// Connections of a listening TCP socket inherit the bound (Linux), which saves a system call for each.
pub(super) fn bound(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, NotSentLowat, &UNSENT)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::{TcpListener, TcpStream};

    use super::super::bind::{Listener, Socket};
    use crate::config::Endpoint;

    /// What is written to a client that reads nothing, until the kernel takes no more.
    #[test]
    fn a_client_that_read_nothing_held_megabytes_in_the_kernel() {
        let listener = Listener::bind(&Endpoint::Address(([127, 0, 0, 1], 0).into())).expect("a port");
        let Socket::Tcp(socket) = listener.socket else { panic!("a TCP socket") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let written = runtime.block_on(async {
            let listener = TcpListener::from_std(socket).expect("non-blocking");
            let _client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
            let (stream, _) = listener.accept().await.expect("accepted");
            stream.writable().await.expect("open");
            let mut written = 0;
            loop {
                match stream.try_write(&[0; 64 << 10]) {
                    Ok(length) => written += length,
                    Err(cause) if cause.kind() == ErrorKind::WouldBlock => return written,
                    Err(cause) => panic!("{cause}"),
                }
            }
        });
        // With what the client's own kernel takes.
        assert!(written < 1 << 20, "{written}");
    }
}
