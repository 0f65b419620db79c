//! The parts of a pull that are timed, in the order in which they happen.

/// A part of a pull. They do not overlap: the time of a request begins on a connection that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A new connection: TCP, and TLS where it is spoken. The look-up of the name is not part of it.
    Connect,
    /// `GET /v2/`, which a registry answers by the challenge.
    Ping,
    /// What it takes to answer the challenge: the token for the repository.
    Token,
    /// HEAD of the manifest that was asked for.
    Head,
    /// The index, by digest.
    Index,
    /// The platform's manifest.
    Manifest,
    /// The image's configuration, redirect included.
    Config,
    /// The registry's answer for a layer: where it is.
    Redirect,
    /// From the request for a layer's content to its first byte.
    FirstByte,
    /// A layer's bytes by the time from the request for them to the last, in KiB a second.
    Throughput,
    /// All of it; in an open loop from the intended start.
    Whole,
}

impl Phase {
    /// All, in the order of a report.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Ping,
        Self::Token,
        Self::Head,
        Self::Index,
        Self::Manifest,
        Self::Config,
        Self::Redirect,
        Self::FirstByte,
        Self::Throughput,
        Self::Whole,
    ];

    /// The name in tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "TCP+TLS connect",
            Self::Ping => "ping",
            Self::Token => "challenge and token",
            Self::Head => "manifest HEAD",
            Self::Index => "index",
            Self::Manifest => "platform manifest",
            Self::Config => "config",
            Self::Redirect => "blob redirect",
            Self::FirstByte => "layer, first byte",
            Self::Throughput => "layer, MiB/s",
            Self::Whole => "whole pull",
        }
    }

    /// The name in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ping => "ping",
            Self::Token => "challenge_and_token",
            Self::Head => "manifest_head",
            Self::Index => "index",
            Self::Manifest => "platform_manifest",
            Self::Config => "config",
            Self::Redirect => "blob_redirect",
            Self::FirstByte => "layer_first_byte",
            Self::Throughput => "layer_throughput",
            Self::Whole => "whole_pull",
        }
    }

    /// Where more is better.
    pub fn is_speed(self) -> bool {
        self == Self::Throughput
    }
}
