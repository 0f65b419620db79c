//! Who may pull, and how much: the tables `access` and `limits`.

use std::num::{NonZeroU32, NonZeroUsize};

use super::listener::Listener;
use super::mistake::Mistakes;
use super::setting::{ACCESS, AccessTable, LIMITS, LimitsTable};
use crate::access::{Access, Bounds, Certificates, Networks, PerClient, Rate, Rules};

/// Of a client's requests a second, so many may come at once: a node that starts pulls several images, each with a dozen
/// requests.
const BURST_SECONDS: u32 = 10;
/// The same where the rate is small: an image or two.
const MIN_BURST: u32 = 50;

/// What `limits` says.
pub(super) struct Limits {
    pub per_client: PerClient,
    pub bounds: Bounds,
    pub registry_reads_per_minute: Option<NonZeroU32>,
    pub connections: Option<NonZeroUsize>,
}

impl Limits {
    pub(super) fn parse(table: Option<LimitsTable>, mistakes: &mut Mistakes) -> Self {
        let LimitsTable {
            place: _,
            is_flawed: _,
            connections,
            connections_per_client,
            concurrent_requests_per_client,
            requests_per_second_per_client,
            request_burst_per_client,
            header_time,
            header_size,
            slow_reader_bytes_per_second,
            registry_reads_per_minute,
        } = table.unwrap_or_default();
        let burst_place = request_burst_per_client.as_ref().map(|(place, _)| place.clone());
        let of_client = LIMITS.connections_per_client.parse_or_default([connections_per_client], mistakes);
        let share = LIMITS.concurrent_requests_per_client.parse_or_default([concurrent_requests_per_client], mistakes);
        let before = mistakes.count();
        let per_second =
            LIMITS.requests_per_second_per_client.parse_or_default([requests_per_second_per_client], mistakes);
        let burst = LIMITS.request_burst_per_client.parse([request_burst_per_client], mistakes);
        let requests = per_second.flatten().map(|per_second| {
            let usual = per_second.saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
            Rate { per_second, burst: burst.or(NonZeroU32::new(usual.get().max(MIN_BURST))).unwrap_or(usual) }
        });
        if let (Some(place), None, true) = (burst_place, requests, mistakes.count() == before) {
            mistakes.add(&place, "has no effect without requests_per_second_per_client: set that, or remove this");
        }
        let reads = LIMITS.registry_reads_per_minute.parse_or_default([registry_reads_per_minute], mistakes);
        let header_time = LIMITS.header_time.parse_or_default([header_time], mistakes);
        let header_size = LIMITS.header_size.parse_or_default([header_size], mistakes);
        let reader_rate =
            LIMITS.slow_reader_bytes_per_second.parse_or_default([slow_reader_bytes_per_second], mistakes);
        let bounds = header_time
            .zip(header_size)
            .zip(reader_rate)
            .map(|((header_time, header_size), reader_rate)| Bounds { header_time, header_size, reader_rate });
        Self {
            // Without them there is a mistake, and nobody asks.
            bounds: bounds.unwrap_or_default(),
            per_client: PerClient { connections: of_client.flatten(), share: share.unwrap_or_default(), requests },
            registry_reads_per_minute: reads.flatten(),
            connections: LIMITS.connections.parse([connections], mistakes),
        }
    }
}

/// What `access` and `limits` say of clients.
pub(super) fn rules(
    table: Option<AccessTable>,
    listeners: &[Listener],
    per_client: PerClient,
    bounds: Bounds,
    mistakes: &mut Mistakes,
) -> Rules {
    let AccessTable { place: _, is_flawed: _, allow, deny, certificates } = table.unwrap_or_default();
    let at = certificates.first().map(|(place, _)| place.clone());
    let certificates = Certificates::new(ACCESS.certificates.parse(certificates, mistakes));
    let at = at.filter(|_| !certificates.is_empty());
    let [allow, deny] = [ACCESS.allow.parse(allow, mistakes), ACCESS.deny.parse(deny, mistakes)].map(Networks::new);
    let shows_none = |listener: &&Listener| {
        let asks = listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        let has_addresses = listener.endpoint.address().is_some() || listener.proxy_protocol.is_some();
        has_addresses && !asks
    };
    if let (Some(at), Some(listener)) = (at, listeners.iter().find(shows_none)) {
        mistakes.add(
            &at,
            format_args!(
                "nobody could pull at {}, which asks for no certificates: set tls with client_ca there, or remove this",
                listener.endpoint
            ),
        );
    }
    Rules { access: Access { allow, deny, certificates }, per_client, bounds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_by_default_are_those_of_the_settings() {
        let mut mistakes = Mistakes::default();
        assert_eq!(Limits::parse(None, &mut mistakes).bounds, Bounds::default());
        assert!(mistakes.is_empty());
    }
}
