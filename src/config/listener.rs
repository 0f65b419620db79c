//! The listeners for clients: one address, or a list of tables.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::address;
use super::address::DEFAULT_LISTEN;
use super::mistake::{Mistakes, Place, Text};
use super::setting::{FILE, LISTEN, ListenTable};
use super::table::OneOrMany;
use super::tls::TlsFiles;
use super::{Flags, ServingHost};
use crate::access::Networks;

/// The most listeners: each is a socket and a task, and no host has more networks for clients.
const MAX_LISTENERS: usize = 64;

/// One listener for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where it waits.
    pub endpoint: Endpoint,
    /// Its TLS; `None` is plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The networks that have to send the PROXY protocol's header; `None` is a listener without it.
    pub proxy_protocol: Option<Networks>,
}

impl Listener {
    /// Whether the first bytes of all connections are a request's.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.proxy_protocol.is_none()
    }
}

/// Where a listener waits for connections. Prints as an address, or as `unix:` and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its file.
        path: PathBuf,
        /// The file's permission bits.
        mode: u32,
    },
}

impl Endpoint {
    /// The address, of one that has one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// Whether both are the same address or the same file.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            _ => false,
        }
    }

    /// Whether two of them cannot be listened on at the same time.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => address::collide(*one, *other),
            _ => self.is_at(other),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where to listen for clients and for the admin endpoints, no two of them at the same place. A flag stands for the whole list.
pub(super) fn parse(
    flags: &Flags,
    listen: Option<OneOrMany<ListenTable>>,
    admin: Option<Text>,
    host: Option<&ServingHost>,
    mistakes: &mut Mistakes,
) -> (Vec<Listener>, Option<SocketAddr>) {
    let flag = flags.get(&FILE.listen.row);
    let admin_flag = flags.get(&FILE.admin.row);
    let admin_place = admin_flag.as_ref().or(admin.as_ref()).map(|(place, _)| place.clone());
    let before = mistakes.count();
    let of_file = match listen {
        Some(OneOrMany::One(text)) => one(text, mistakes),
        Some(OneOrMany::Many(place, tables)) => {
            if tables.len() > MAX_LISTENERS {
                mistakes.add(&place, format_args!("has {} items: {MAX_LISTENERS} are the most", tables.len()));
            }
            tables.into_iter().filter_map(|table| of_table(table, host, mistakes)).collect()
        }
        None => Vec::new(),
    };
    let mut placed = flag.map_or(of_file, |flag| one(flag, mistakes));
    if placed.is_empty() && mistakes.count() == before {
        placed = one((Place::new("listen"), DEFAULT_LISTEN.to_owned()), mistakes);
    }
    let admin = FILE.admin.parse([admin_flag, admin], mistakes);
    for (index, (place, listener)) in placed.iter().enumerate() {
        let endpoint = &listener.endpoint;
        let earlier = placed.iter().take(index).find(|(_, earlier)| earlier.endpoint.collides(endpoint));
        if let Some((other, earlier)) = earlier {
            let sentence = format_args!("{endpoint} is taken by {other}, {}: use another", earlier.endpoint);
            mistakes.add(place, sentence);
        }
    }
    let taken = admin.and_then(|admin| {
        let wanted = Endpoint::Address(admin);
        placed.iter().find(|(_, listener)| listener.endpoint.collides(&wanted)).map(|(_, listener)| (admin, listener))
    });
    if let (Some(place), Some((admin, listener)), true) = (admin_place, taken, mistakes.count() == before) {
        let sentence =
            format_args!("{admin} is taken by the listener for clients, {}: use another port", listener.endpoint);
        mistakes.add(&place, sentence);
    }
    (placed.into_iter().map(|(_, listener)| listener).collect(), admin)
}

fn one(text: Text, mistakes: &mut Mistakes) -> Vec<(Place, Listener)> {
    let place = text.0.clone();
    let address = mistakes.parse(text, address::parse_listen);
    let listener = |address| Listener { endpoint: Endpoint::Address(address), tls: None, proxy_protocol: None };
    address.map(|address| (place, listener(address))).into_iter().collect()
}

fn of_table(table: ListenTable, host: Option<&ServingHost>, mistakes: &mut Mistakes) -> Option<(Place, Listener)> {
    let ListenTable { place: at, is_flawed, address, unix, mode, tls, proxy_protocol } = table;
    let at = at.unwrap_or_else(|| Place::new("listen"));
    let place = address.as_ref().or(unix.as_ref()).map_or_else(|| at.clone(), |(place, _)| place.clone());
    let is_placed = address.is_some() || unix.is_some();
    if address.is_some() && unix.is_some() {
        mistakes.add(&at, "address and unix exclude each other: make two items of it");
        return None;
    }
    if let Some((place, _)) = mode.as_ref().filter(|_| address.is_some()) {
        mistakes.add(place, "is for a Unix socket: remove it");
    }
    let is_unix = unix.is_some();
    let has_tls = tls.is_some();
    let tls = tls.and_then(|table| super::tls::parse(table, host, mistakes));
    let proxy_protocol = proxy_protocol.and_then(|table| super::proxy_protocol::parse(table, is_unix, mistakes));
    let mode = LISTEN.mode.parse_or_default([mode], mistakes);
    let address = LISTEN.address.parse([address], mistakes).map(Endpoint::Address);
    let unix = LISTEN.unix.parse([unix], mistakes).zip(mode).map(|(path, mode)| Endpoint::Unix { path, mode });
    if !is_placed && !is_flawed {
        mistakes.add(&at, "has neither address nor unix: set one of them");
    }
    // A listener that lacks its TLS is none: the mistake was told.
    let endpoint = address.or(unix).filter(|_| !has_tls || tls.is_some())?;
    Some((place, Listener { endpoint, tls, proxy_protocol }))
}
