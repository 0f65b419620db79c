//! Why the program does not start.

use std::error::Error;
use std::fmt;
use std::io;

use crate::config::Endpoint;
use crate::listen;
use crate::listen::bind::BindError;
use crate::listen::certificate::TlsError;
use crate::listen::descriptors::TooFewDescriptors;
use crate::listen::inherited::HandedOver;
use crate::listen::set::CannotOpen;
use crate::net::trust::TrustError;

/// Why the program does not start; prints as one sentence.
#[derive(Debug)]
pub(crate) enum ServeError {
    /// The address or the Unix socket cannot be listened on.
    Listen {
        /// This one.
        endpoint: Endpoint,
        /// What sets it: a flag and a key of the file.
        setting: &'static str,
        /// Why.
        cause: BindError,
    },
    /// A socket that was handed over to the process cannot be used.
    HandedOver(HandedOver),
    /// The process may open fewer files than it needs to start.
    Descriptors(TooFewDescriptors),
    /// A setting that turns out to be wrong only at the start: its file and line or variable, and what is wrong.
    Setting(String),
    /// The CA certificates cannot be used.
    Trust(TrustError),
    /// A listener's certificates cannot be used.
    Tls(TlsError),
    /// The signal handlers cannot be installed.
    Signals(io::Error),
    /// The TLS client for the sign-in cannot be made.
    Client(reqwest::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { endpoint, cause, .. } if endpoint.address().is_none() => {
                write!(f, "listen {endpoint}: ")?;
                match cause {
                    BindError::NoSocket => {
                        write!(f, "{cause}, and it is not removed: remove it, or choose another path")
                    }
                    BindError::Folder => write!(f, "{cause}: name the socket in it, such as clients.sock"),
                    BindError::Foreign => {
                        write!(f, "{cause}: remove it if nobody does (ss -lxp), or choose another path")
                    }
                    BindError::NoFiles => write!(f, "{cause}: choose another path"),
                    BindError::Overlaps(_) => cause.fmt(f),
                    BindError::System(cause) => match cause.kind() {
                        io::ErrorKind::AddrInUse => {
                            f.write_str("another process serves it: stop that one, or choose another path")
                        }
                        io::ErrorKind::NotFound => f.write_str(
                            "its folder is not there: make it (RuntimeDirectory= in a unit), or choose another path",
                        ),
                        io::ErrorKind::PermissionDenied => f.write_str(
                            "this user may not make it there: choose a folder of its own (RuntimeDirectory= in a unit)",
                        ),
                        _ => write!(f, "{cause}: choose another path"),
                    },
                }
            }
            Self::Listen { endpoint, setting, cause } => {
                write!(f, "listen {endpoint}: ")?;
                if let BindError::Overlaps(_) = cause {
                    return write!(
                        f,
                        "{cause}: only a restart can take one for the other; choose another with {setting}, or restart"
                    );
                }
                let kind = if let BindError::System(cause) = cause { cause.kind() } else { io::ErrorKind::Other };
                match kind {
                    io::ErrorKind::AddrInUse => {
                        write!(f, "the address is in use: stop the other program or choose another with {setting}")
                    }
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "a port below 1024 needs the capability CAP_NET_BIND_SERVICE: give it to the program (in a unit by CapabilityBoundingSet=CAP_NET_BIND_SERVICE, AmbientCapabilities=CAP_NET_BIND_SERVICE and PrivateUsers=no), or choose another with {setting}"
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "this host has no such address: choose another with {setting}")
                    }
                    _ => write!(f, "{cause}: choose another with {setting}"),
                }
            }
            Self::HandedOver(cause) => cause.fmt(f),
            Self::Descriptors(cause) => cause.fmt(f),
            Self::Setting(wrong) => f.write_str(wrong),
            Self::Trust(cause) => cause.fmt(f),
            Self::Tls(cause) => write!(f, "listen: {}", cause.to_sentence()),
            Self::Signals(cause) => write!(f, "signal handlers: {cause}"),
            Self::Client(cause) => write!(f, "TLS client: {cause}"),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen { cause, .. } => Some(cause),
            Self::Signals(cause) => Some(cause),
            Self::HandedOver(cause) => Some(cause),
            Self::Descriptors(cause) => Some(cause),
            Self::Trust(cause) => Some(cause),
            Self::Tls(cause) => Some(cause),
            Self::Client(cause) => Some(cause),
            Self::Setting(_) => None,
        }
    }
}

impl ServeError {
    /// A listener for clients that cannot be opened.
    pub(crate) fn cannot_listen(endpoint: Endpoint, cause: BindError) -> Self {
        Self::cannot_open(CannotOpen::Bind(listen::Kind::Clients, endpoint, cause))
    }

    pub(super) fn cannot_open(cause: CannotOpen) -> Self {
        match cause {
            CannotOpen::Tls(cause) => Self::Tls(cause),
            CannotOpen::HandedOver(cause) => Self::HandedOver(cause),
            CannotOpen::Bind(kind, endpoint, cause) => {
                let setting = match kind {
                    listen::Kind::Clients => "--listen-address (listen in the file)",
                    listen::Kind::Admin => "--admin-address (admin in the file)",
                };
                Self::Listen { endpoint, setting, cause }
            }
        }
    }
}
