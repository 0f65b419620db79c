//! Which records reach the log: the user's filter decides, except about dependencies, whose records may quote
//! credentials or report everyday events.

use std::sync::Arc;

use arc_swap::ArcSwap;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::directives::OWN_TARGETS;
use super::flood;
use super::writer::Writer;

/// Dependencies log nothing below this level, whatever the filter says. Pingora prints whole request headers at debug and
/// trace, hyper whole messages at trace (registry tokens and client credentials among them), and Pingora its steps at info.
const DEPENDENCY_LEVEL: LevelFilter = LevelFilter::Warn;

/// Never logged: Pingora's small HTTP server, which the admin port runs on, quotes what it cannot parse at error, and that
/// may be a credential. (The proxy's own server logs nothing of the kind: see `ProxyHttp::suppress_error_log`.)
const SILENT: &str = "pingora_core::apps::http_app";

/// Who causes the events below.
const CLIENT: &str = "a client";

/// Where Pingora warns of everyday events, and which peer the event is about: a client leaves, sends half a request or stops
/// reading; a registry closes an idle connection just as it is about to be reused, and Pingora opens another one. Nobody has
/// to act on either, so the record is logged at info. If the event ends a request, that request's own line says so too.
const EVERYDAY: [(&str, &str); 7] = [
    ("pingora_proxy", CLIENT),
    ("pingora_proxy::proxy_h1", CLIENT),
    ("pingora_core::apps", CLIENT),
    ("pingora_core::protocols::http::v1::common", CLIENT),
    ("pingora_core::protocols::http::v2::server", CLIENT),
    ("pingora_core::connectors", "a kept connection"),
    ("pingora_pool::connection", "a kept connection"),
];

/// The logger that the `log` facade calls.
pub(super) struct Filter {
    logger: ArcSwap<env_logger::Logger>,
    /// The thread that writes; `None` if the logger writes to standard error itself.
    writer: Option<Writer>,
}

impl Filter {
    pub(super) fn new(logger: env_logger::Logger, writer: Option<Writer>) -> Self {
        Self { logger: ArcSwap::from_pointee(logger), writer }
    }

    /// Other settings from now on.
    pub(super) fn replace(&self, logger: env_logger::Logger) {
        self.logger.store(Arc::new(logger));
    }

    /// The thread that writes.
    pub(super) fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }
}

impl Log for Filter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match Treatment::of(metadata) {
            Treatment::Unchanged => self.logger.load().enabled(metadata),
            Treatment::AtInfo { .. } => {
                self.logger.load().enabled(&Metadata::builder().level(Level::Info).target(metadata.target()).build())
            }
            Treatment::Dropped => false,
        }
    }

    fn log(&self, record: &Record<'_>) {
        // `env_logger` applies the user's filter in `log` itself.
        match Treatment::of(record.metadata()) {
            Treatment::Unchanged => self.logger.load().log(record),
            Treatment::AtInfo { peer } => {
                if !self.enabled(record.metadata()) || (peer == CLIENT && !flood::has_room()) {
                    return;
                }
                let args = format_args!("{peer}: {}", record.args());
                self.logger
                    .load()
                    .log(&Record::builder().level(Level::Info).target(record.target()).args(args).build());
            }
            Treatment::Dropped => {}
        }
    }

    /// Called before the process ends: waits for the last lines to be written.
    fn flush(&self) {
        if let Some(writer) = &self.writer {
            writer.drain();
        }
    }
}

/// What happens to a record before the user's filter sees it.
enum Treatment {
    Unchanged,
    AtInfo { peer: &'static str },
    Dropped,
}

impl Treatment {
    fn of(metadata: &Metadata<'_>) -> Self {
        let (target, level) = (metadata.target(), metadata.level());
        let is_below =
            |module: &&str| target.strip_prefix(*module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        if OWN_TARGETS.iter().any(is_below) {
            Self::Unchanged
        } else if level > DEPENDENCY_LEVEL || target == SILENT {
            Self::Dropped
        } else {
            let everyday = EVERYDAY.iter().find(|(known, _)| *known == target);
            everyday.map_or(Self::Unchanged, |(_, peer)| Self::AtInfo { peer })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_log_nothing_below_warn_and_nothing_that_quotes_requests() {
        let logger = env_logger::Builder::new().parse_filters("trace").build();
        let filter = Filter::new(logger, None);
        for (target, level, is_logged) in [
            ("acr_cache_proxy", Level::Trace, true),
            ("acr_cache_proxy::token", Level::Trace, true),
            ("access", Level::Debug, true),
            ("acr_cache_proxy_other", Level::Debug, false),
            ("pingora_proxy", Level::Debug, false),
            ("pingora_proxy", Level::Info, false),
            ("pingora_proxy", Level::Warn, true),
            ("hyper::proto", Level::Trace, false),
            ("pingora_core::apps::http_app", Level::Error, false),
            ("pingora_core::apps", Level::Error, true),
        ] {
            let metadata = Metadata::builder().target(target).level(level).build();
            assert_eq!(filter.enabled(&metadata), is_logged, "{target} {level}");
        }
    }

    #[test]
    fn everyday_events_of_dependencies_are_logged_at_info() {
        for (directives, target, is_logged) in [
            ("info", "pingora_proxy", true),
            ("warn", "pingora_proxy", false),
            ("warn", "pingora_proxy::proxy_h1", false),
            ("warn", "pingora_core::apps", false),
            ("warn", "pingora_core::protocols::http::v2::server", false),
            ("warn", "pingora_core::protocols::http::v1::body", true),
            ("warn", "pingora_core::connectors", false),
            ("warn", "pingora_pool::connection", false),
            ("warn", "pingora_core::server", true),
            ("warn", "acr_cache_proxy::serve", true),
        ] {
            let logger = env_logger::Builder::new().parse_filters(directives).build();
            let filter = Filter::new(logger, None);
            for level in [Level::Error, Level::Warn] {
                let metadata = Metadata::builder().target(target).level(level).build();
                assert_eq!(filter.enabled(&metadata), is_logged, "{directives}: {target} {level}");
            }
        }
    }
}
