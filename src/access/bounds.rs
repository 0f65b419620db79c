//! What every client has to keep to, whoever it is.

use std::num::NonZeroU32;
use std::time::Duration;

/// Bounds of a connection and of the requests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// A request's header ends within this: the first of a connection from when that is accepted, further ones from their
    /// first byte.
    pub header_time: Duration,
    /// The most bytes of a header.
    pub header_size: usize,
    /// The fewest bytes a second that a client takes of its answers; `None` is any.
    pub reader_rate: Option<NonZeroU32>,
}

impl Default for Bounds {
    /// What the settings have by default, which a test compares.
    fn default() -> Self {
        Self { header_time: Duration::from_secs(20), header_size: 64 << 10, reader_rate: NonZeroU32::new(500) }
    }
}
