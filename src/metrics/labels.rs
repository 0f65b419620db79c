//! The values that labels have: closed sets, which no client can add to.

use crate::label::labels;

labels! {
    /// What a request is for.
    Kind {
        /// A manifest, by tag or by digest.
        Manifest = "manifest",
        /// A blob: a layer, or the configuration of an image.
        Blob = "blob",
        /// A page of a tag list.
        Tags = "tags",
        /// A page of referrers.
        Referrers = "referrers",
        /// `GET /v2/`.
        Ping = "ping",
        /// What is refused before it is known, or is no pull.
        Other = "other",
    }
}

labels! {
    /// How an answer of the cache's came about.
    How {
        /// It was kept and is fresh.
        Hit = "hit",
        /// It was kept and is good enough while the registry is asked behind it.
        Revalidate = "revalidate",
        /// The registry was asked for this request.
        Miss = "miss",
        /// The same, and something that was not fresh any more was kept.
        Refresh = "refresh",
        /// The registry was asked for another request at the same time.
        Collapsed = "collapsed",
        /// It was kept, and the registry gives no better answer now.
        Stale = "stale",
    }
}

/// What the cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheResult {
    /// It has answered.
    Here(How),
    /// The request went to the registry by itself.
    Pass,
    /// The cache has no part in it.
    None,
}

impl CacheResult {
    /// All of them, in the order of [`Self::index`].
    pub(crate) const ALL: [Self; How::ALL.len() + 2] = {
        let mut all = [Self::None; How::ALL.len() + 2];
        let mut place = 0;
        while place < How::ALL.len() {
            all[place] = Self::Here(How::ALL[place]);
            place += 1;
        }
        all[place] = Self::Pass;
        all
    };

    /// Its place among all.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Here(how) => how as usize,
            Self::Pass => How::ALL.len(),
            Self::None => How::ALL.len() + 1,
        }
    }

    /// Its value in a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Here(how) => how.name(),
            Self::Pass => "pass",
            Self::None => "none",
        }
    }
}

labels! {
    /// Who is asked on the way to an answer.
    Hop {
        /// Entra ID, or the machine's identity endpoint.
        Identity = "identity",
        /// `POST /oauth2/exchange` of the registry.
        Exchange = "exchange",
        /// `POST /oauth2/token` of the registry.
        Token = "token",
        /// A read: manifests, lists, and where a blob is.
        Read = "read",
        /// Blob storage, where its content comes through here.
        Storage = "storage",
    }
}

labels! {
    /// How a call has ended.
    CallResult {
        /// 1xx to 3xx.
        Ok = "ok",
        /// 404: often the right answer.
        NotFound = "not_found",
        /// 429, or a call for a token that has to wait.
        Limited = "limited",
        /// Any other 4xx: somebody has to act.
        Refused = "refused",
        /// 5xx, or an answer that is none.
        Failed = "failed",
        /// No connection, or no answer.
        Unreachable = "unreachable",
    }
}

labels! {
    /// Why a request is refused, if not for a mistake in it. The client may then turn to the source of the image.
    Cause {
        /// There is no registry token.
        NoToken = "no_token",
        /// The registry's name is not resolved.
        Unresolved = "unresolved",
        /// The egress proxy lets nothing through.
        Egress = "egress",
        /// The registry refuses a token that is new.
        Unauthorized = "unauthorized",
        /// The registry is known to be down.
        Down = "down",
        /// It has asked for a pause.
        Limited = "limited",
        /// Too many requests to it are under way.
        Queue = "queue",
        /// `limits.registry_reads_per_minute` is used up.
        Budget = "budget",
        /// There is no connection to it.
        Unreachable = "unreachable",
        /// It does not answer in time.
        Silent = "silent",
        /// Its answer is not whole.
        Broken = "broken",
        /// Storage does not give the blob.
        Storage = "storage",
        /// The registry answers 403.
        RegistryDenies = "registry_403",
        /// The registry answers 424: the source of its cache rule fails.
        SourceFails = "registry_424",
        /// The registry, or the source of its cache rule, answers 429.
        RegistryLimits = "registry_429",
        /// The registry answers 5xx.
        RegistryFails = "registry_5xx",
        /// What answers is a page for people, of something between this host and the registry.
        Page = "page",
        /// A fault of this proxy's own.
        Fault = "fault",
    }
}

impl Cause {
    /// By its name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
    }

    /// Why, as a clause for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoToken => "the proxy had no token for the registry",
            Self::Unresolved => "the registry's name was not resolved",
            Self::Egress => "the forward proxy on the way out let nothing through",
            Self::Unauthorized => "the registry refused a new token",
            Self::Down => "the registry was known to be down",
            Self::Limited => "the registry had asked for a pause",
            Self::Queue => "too many requests to the registry were under way",
            Self::Budget => "limits.registry_reads_per_minute was used up",
            Self::Unreachable => "there was no connection to the registry",
            Self::Silent => "the registry did not answer in time",
            Self::Broken => "the registry's answer was not whole",
            Self::Storage => "the storage did not give the layer",
            Self::RegistryDenies => "the registry answered 403",
            Self::SourceFails => "the source of the registry's cache rule failed (424)",
            Self::RegistryLimits => "the registry, or the source behind it, answered 429",
            Self::RegistryFails => "the registry answered 5xx",
            Self::Page => "something between this host and the registry answered with a page",
            Self::Fault => "the proxy has a fault of its own",
        }
    }

    /// Of an answer that was refused with this status by the registry; `None` of all others.
    pub(crate) fn of_registry(status: u16) -> Option<Self> {
        match status {
            403 => Some(Self::RegistryDenies),
            424 => Some(Self::SourceFails),
            429 => Some(Self::RegistryLimits),
            500..=599 => Some(Self::RegistryFails),
            _ => None,
        }
    }
}

/// The statuses that have a label value of their own; of others the class has one.
const STATUSES: [(u16, &str); 22] = [
    (0, "0"),
    (200, "200"),
    (206, "206"),
    (304, "304"),
    (307, "307"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (416, "416"),
    (424, "424"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (1, "1xx"),
    (2, "2xx"),
    (3, "3xx"),
    (4, "4xx"),
    (5, "5xx"),
];

/// No status is larger.
const MAX_STATUS: usize = 600;

/// The place of each status among [`STATUSES`].
const PLACES: [u8; MAX_STATUS] = {
    let mut places = [0; MAX_STATUS];
    let mut status = 100;
    while status < MAX_STATUS {
        let mut place = 0;
        while place < STATUSES.len() {
            let known = STATUSES[place].0 as usize;
            // Classes come behind the statuses that have a value of their own.
            if known == status || (known == status / 100 && places[status] == 0) {
                places[status] = place as u8;
            }
            place += 1;
        }
        status += 1;
    }
    places
};

/// A status as a label has it: one of a set, so that a registry's odd ones make no series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(u8);

impl Status {
    /// How many there are.
    pub(crate) const COUNT: usize = STATUSES.len();

    /// Of an answer; 0 is none.
    pub(crate) fn of(status: u16) -> Self {
        Self(PLACES.get(usize::from(status)).copied().unwrap_or_default())
    }

    /// Its place among all.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// There was no answer, or one with a status that is none.
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether a label value is of a request that failed.
    pub(crate) fn is_failure(name: &str) -> bool {
        matches!(name, "0" | "424" | "429") || name.starts_with('5')
    }

    /// The label value at this place.
    pub(crate) fn name(index: usize) -> &'static str {
        STATUSES.get(index).map_or("0", |(_, name)| name)
    }
}

impl CallResult {
    /// By the status of the answer.
    pub(crate) fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            404 => Self::NotFound,
            429 => Self::Limited,
            400..=499 => Self::Refused,
            500.. => Self::Failed,
            _ => Self::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_of_the_cache_has_its_place_and_a_name_of_its_own() {
        for (place, result) in CacheResult::ALL.into_iter().enumerate() {
            assert_eq!(result.index(), place);
            assert_eq!(CacheResult::ALL.iter().filter(|other| other.name() == result.name()).count(), 1);
        }
    }

    #[test]
    fn every_status_has_a_label_value_and_those_of_the_table_their_own() {
        for (index, (status, name)) in STATUSES.iter().enumerate() {
            let of = if name.ends_with("xx") { status * 100 + 99 } else { *status };
            assert_eq!((Status::of(of).index(), Status::name(index)), (index, *name));
        }
        for status in 100..600 {
            let name = Status::name(Status::of(status).index());
            assert_eq!(name.as_bytes()[0], status.to_string().as_bytes()[0], "{status}");
        }
        assert_eq!(Status::name(Status::of(999).index()), "0");
    }
}
