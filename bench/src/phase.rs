//! The phases of a pull that are timed, in the order in which they happen.

/// Phases do not overlap: the time of a request starts on an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A new connection: TCP and TLS, without the look-up of the name.
    Connect,
    /// `GET /v2/`, which a registry answers with the challenge.
    Ping,
    /// The token for the repository, which answers the challenge.
    Token,
    /// HEAD of the tag.
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
    /// A layer's bytes divided by the time from their request to the last byte, in KiB a second.
    Throughput,
    /// The whole pull; in an open loop, from the intended start.
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

    /// A higher value is better.
    pub fn is_speed(self) -> bool {
        self == Self::Throughput
    }
}
