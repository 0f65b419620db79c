//! A service manager, as systemd is one, that proxies report to.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use testkit::PATIENCE;

/// The most bytes of a notification.
const MAX_NOTIFICATION: usize = 8 << 10;

/// Where the notifications of a proxy come in.
pub(crate) struct Manager(UnixDatagram);

impl Manager {
    /// Listens at this path.
    pub(crate) fn at(path: &Path) -> Self {
        Self::on(UnixDatagram::bind(path).expect("a socket"))
    }

    /// Listens on this socket.
    pub(crate) fn on(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self(socket)
    }

    /// Waits for the next notification.
    pub(crate) fn receive(&self) -> String {
        let mut buffer = [0; MAX_NOTIFICATION];
        let length = self.0.recv(&mut buffer).expect("a notification in time");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }
}
