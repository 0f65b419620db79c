//! Log lines on standard error, with a lid on what dependencies may say.

use env_logger::Target;
use log::{LevelFilter, Log, Metadata, Record};

mod line;
mod lines;

use lines::Lines;

pub use line::stamp;

/// Pingora prints whole request headers at debug and trace, hyper whole messages at trace: registry tokens and
/// client credentials among them, and its steps at info. So a dependency is never heard below this level, whatever the filter says.
const DEPENDENCY_LEVEL: LevelFilter = LevelFilter::Warn;
/// What is this program's own: its modules, and the access log.
const OWN: [&str; 2] = [env!("CARGO_CRATE_NAME"), "access"];

/// Never heard: Pingora's small HTTP server, which the admin port runs on, quotes what it cannot read at error, and that
/// may be a credential. (The proxy's own says nothing: see `ProxyHttp::suppress_error_log`.)
const SILENT: &str = "pingora_core::apps::http_app";

struct Lid {
    logger: env_logger::Logger,
    /// Where its lines go; `None` if it writes them itself.
    lines: Option<Lines>,
}

impl Log for Lid {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_heard(metadata) && self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_heard(record.metadata()) {
            // It asks its filter itself.
            self.logger.log(record);
        }
    }

    /// Before the process ends: its last lines are still on their way.
    fn flush(&self) {
        if let Some(lines) = &self.lines {
            lines.drain();
        }
    }
}

/// Whether anybody is heard on this, whatever the filter says.
fn is_heard(metadata: &Metadata<'_>) -> bool {
    let is_own = OWN
        .iter()
        .any(|name| metadata.target().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")));
    is_own || (metadata.level() <= DEPENDENCY_LEVEL && metadata.target() != SILENT)
}

/// Starts logging with an `env_logger` filter such as `info` or `warn,access=info`. A second call changes nothing.
pub fn start(filter: &str) {
    // Without a thread for them, lines are written where they arise.
    let lines = Lines::to(std::io::stderr()).ok();
    let target = lines.clone().map_or(Target::Stderr, |lines| Target::Pipe(Box::new(lines)));
    let logger = env_logger::Builder::new().parse_filters(filter).format(line::write).target(target).build();
    let level = logger.filter();
    if log::set_boxed_logger(Box::new(Lid { logger, lines })).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn dependencies_are_not_heard_below_warn_nor_where_they_quote_requests() {
        let logger = env_logger::Builder::new().parse_filters("trace").build();
        let lid = Lid { logger, lines: None };
        for (target, level, heard) in [
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
            assert_eq!(lid.enabled(&metadata), heard, "{target} {level}");
        }
    }
}
