//! `tls` of a listener: its settings, and which files they name.

use std::path::PathBuf;

use super::ServingHost;
use super::credential::is_elsewhere;
use super::file::{Document, Node};
use super::mistake::{Mistakes, Place};
use super::parse::{parse_client_auth, parse_file};
use super::table::{Default, Entry, ROW, Row, Shape, Table, Value, table};

table! {
    /// `tls` of a listener.
    TLS: TlsRows, TlsTable {
        certificate: Value<PathBuf> {
            value: "FILE",
            default: Default::Required,
            example: "/etc/acr-cache-proxy/tls.crt",
            help: "A PEM file with the certificate, and behind it those of the CAs between it and the one that clients trust",
            more: ""
        } parse parse_file;

        key: Value<PathBuf> {
            value: "FILE",
            default: Default::Required,
            example: "/etc/acr-cache-proxy/tls.key",
            help: "A PEM file with its private key, without a password",
            more: "Certificate and key may be one file."
        } parse parse_file;

        client_ca: Value<PathBuf> {
            value: "FILE",
            default: Default::Words("none: clients are not asked for a certificate"),
            example: "/etc/acr-cache-proxy/clients.crt",
            help: "A PEM file of CAs whose certificates clients present",
            more: "When a CA is taken out of it, all connections of clients with a certificate end after the requests under way, \
                   and no session of before is resumed."
        } parse parse_file;

        client_auth: Value<bool> {
            value: "required|optional",
            default: Default::Words("required, with client_ca"),
            example: "optional",
            help: "Whether a client without a certificate is refused: required or optional",
            more: "With `optional`, a certificate that is presented must still be a good one."
        } parse parse_client_auth;
    }
}

/// The files of a listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The server's certificate, and its CAs.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who may connect, where clients are asked for a certificate.
    pub clients: Option<ClientCertificates>,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificates {
    /// Their CAs.
    pub ca: PathBuf,
    /// A client without one is refused.
    pub is_required: bool,
}

/// A setting that names a file of a listener's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsKey {
    /// `certificate`
    Certificate,
    /// `key`
    Key,
    /// `client_ca`
    ClientCa,
}

/// What the table says. The files are checked on the host that serves.
pub(super) fn parse(table: TlsTable, host: Option<&ServingHost>, mistakes: &mut Mistakes) -> Option<TlsFiles> {
    let TlsTable { place: at, is_flawed, certificate, key, client_ca, client_auth } = table;
    let at = at.unwrap_or_else(|| Place::new("listen"));
    let before = mistakes.count();
    let places = [&certificate, &key, &client_ca].map(|text| text.as_ref().map(|(place, _)| place.clone()));
    let auth_at = client_auth.as_ref().map(|(place, _)| place.clone());
    for (key, is_given) in [("certificate", certificate.is_some()), ("key", key.is_some())] {
        if !is_given && !is_flawed {
            mistakes.add(&at, format_args!("has no {key}: set it to a PEM file"));
        }
    }
    let certificate = TLS.certificate.parse([certificate], mistakes);
    let key = TLS.key.parse([key], mistakes);
    let client_ca = TLS.client_ca.parse([client_ca], mistakes);
    let client_auth = TLS.client_auth.parse([client_auth], mistakes);
    let [certificate_at, key_at, ca_at] = places;
    if let (Some(place), None, false) = (auth_at, &ca_at, is_flawed) {
        mistakes
            .add(&place, "has no effect without client_ca: set that to the CAs of the clients, or remove client_auth");
    }
    let clients = client_ca.map(|ca| ClientCertificates { ca, is_required: client_auth.unwrap_or(true) });
    let files = certificate.zip(key).map(|(certificate, key)| TlsFiles { certificate, key, clients });
    let files = files.filter(|_| mistakes.count() == before)?;
    let named = [
        (&certificate_at, Some(&files.certificate)),
        (&key_at, Some(&files.key)),
        (&ca_at, files.clients.as_ref().map(|clients| &clients.ca)),
    ];
    let elsewhere: Vec<_> =
        named.into_iter().filter_map(|(place, path)| Some((place, path.filter(|path| is_elsewhere(path))?))).collect();
    if !elsewhere.is_empty() {
        for (place, path) in elsewhere {
            if let Some(lack) = host.and_then(|host| host.lack(path)) {
                mistakes.add(place.as_ref().unwrap_or(&at), lack);
            }
        }
        return Some(files);
    }
    for (wrong, sentence) in host.map(|host| (host.check_tls)(&files)).unwrap_or_default() {
        let place = match wrong {
            TlsKey::Certificate => &certificate_at,
            TlsKey::Key => &key_at,
            TlsKey::ClientCa => &ca_at,
        };
        mistakes.add(place.as_ref().unwrap_or(&at), sentence);
    }
    Some(files)
}
