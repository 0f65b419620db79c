//! Log lines on standard error, with a limit on what dependencies may say.

use std::io::Write as _;

use env_logger::Target;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;

mod field;
mod filter;
mod line;
mod lines;

use line::Reader;
use lines::Lines;

pub use field::{Rest, Word};
pub use filter::{doubt, parse_filter, parse_shared_filter};
pub use line::stamp;

/// Pingora prints whole request headers at debug and trace, hyper whole messages at trace: registry tokens and
/// client credentials among them, and its steps at info. So a dependency is never heard below this level, whatever the filter says.
const DEPENDENCY_LEVEL: LevelFilter = LevelFilter::Warn;
/// What is this program's own: the access log, and its modules.
const OWN: [&str; 2] = ["access", env!("CARGO_CRATE_NAME")];

/// Never heard: Pingora's small HTTP server, which the admin port runs on, quotes what it cannot read at error, and that
/// may be a credential. (The proxy's own says nothing: see `ProxyHttp::suppress_error_log`.)
const SILENT: &str = "pingora_core::apps::http_app";

/// Where Pingora warns of what is everyday, and about whom: clients leave, send half a request, or stop reading; a kept
/// connection to a registry is closed by its other end just as it is to be used, and another one is opened. Nobody has to do
/// anything about either, so it is heard at info. What of it ends a request is in that request's line as well.
const EVERYDAY: [(&str, &str); 7] = [
    ("pingora_proxy", "a client"),
    ("pingora_proxy::proxy_h1", "a client"),
    ("pingora_core::apps", "a client"),
    ("pingora_core::protocols::http::v1::common", "a client"),
    ("pingora_core::protocols::http::v2::server", "a client"),
    ("pingora_core::connectors", "a kept connection"),
    ("pingora_pool::connection", "a kept connection"),
];

struct Lid {
    logger: env_logger::Logger,
    /// Where its lines go; `None` if it writes them itself.
    lines: Option<Lines>,
}

impl Log for Lid {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match heard(metadata) {
            Heard::AsItIs => self.logger.enabled(metadata),
            Heard::AtInfo(_) => {
                self.logger.enabled(&Metadata::builder().level(Level::Info).target(metadata.target()).build())
            }
            Heard::Never => false,
        }
    }

    fn log(&self, record: &Record<'_>) {
        // The logger asks its filter itself.
        match heard(record.metadata()) {
            Heard::AsItIs => self.logger.log(record),
            Heard::AtInfo(about) => {
                let args = format_args!("{about}: {}", record.args());
                self.logger.log(&Record::builder().level(Level::Info).target(record.target()).args(args).build());
            }
            Heard::Never => {}
        }
    }

    /// Before the process ends: its last lines are still on their way.
    fn flush(&self) {
        if let Some(lines) = &self.lines {
            lines.drain();
        }
    }
}

/// What becomes of a record, whatever the filter says.
enum Heard {
    AsItIs,
    /// With whom it is about.
    AtInfo(&'static str),
    Never,
}

fn heard(metadata: &Metadata<'_>) -> Heard {
    let (target, level) = (metadata.target(), metadata.level());
    let is_own =
        OWN.iter().any(|name| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")));
    let everyday = || EVERYDAY.iter().find(|(known, _)| *known == target).map(|(_, about)| *about);
    if is_own {
        Heard::AsItIs
    } else if level > DEPENDENCY_LEVEL || target == SILENT {
        Heard::Never
    } else {
        everyday().map_or(Heard::AsItIs, Heard::AtInfo)
    }
}

/// Starts logging with an `env_logger` filter such as `info` or `warn,access=info`. A second call changes nothing.
pub fn start(filter: &str) {
    let reader = reader();
    // Without a thread for them, lines are written where they arise.
    let lines = Lines::to(std::io::stderr(), reader.priority(Level::Warn)).ok();
    let target = lines.clone().map_or(Target::Stderr, |lines| Target::Pipe(Box::new(lines)));
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter).format(move |out, record| line::write(reader, out, record)).target(target);
    let logger = builder.build();
    // What is heard at info may have been said at any level above it.
    let level = logger.filter();
    if log::set_boxed_logger(Box::new(Lid { logger, lines })).is_ok() {
        log::set_max_level(level);
    }
}

/// Says on standard error, beside the log, why the program ends; a line for each sentence.
pub fn complain(sentences: &str) {
    let priority = reader().priority(Level::Error);
    let text: String = sentences.lines().map(|sentence| format!("{priority}acr-cache-proxy: {sentence}\n")).collect();
    // There is nobody to tell that standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// systemd names the stream that it has given a service as its standard error, `device:inode` (`systemd.exec(5)`,
/// `JOURNAL_STREAM`). A service's own children inherit the variable, so it counts only where standard error is that stream.
fn reader() -> Reader {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let is_journal = named.is_some_and(|named| {
        fstat(std::io::stderr()).is_ok_and(|stream| named == format!("{}:{}", stream.st_dev, stream.st_ino))
    });
    if is_journal { Reader::Journal } else { Reader::Any }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_not_heard_below_warn_nor_where_they_quote_requests() {
        let logger = env_logger::Builder::new().parse_filters("trace").build();
        let lid = Lid { logger, lines: None };
        for (target, level, is_heard) in [
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
            assert_eq!(lid.enabled(&metadata), is_heard, "{target} {level}");
        }
    }

    #[test]
    fn what_is_everyday_is_info_and_all_else_is_as_it_is() {
        for (filter, target, is_heard) in [
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
            let logger = env_logger::Builder::new().parse_filters(filter).build();
            let lid = Lid { logger, lines: None };
            for level in [Level::Error, Level::Warn] {
                let metadata = Metadata::builder().target(target).level(level).build();
                assert_eq!(lid.enabled(&metadata), is_heard, "{filter}: {target} {level}");
            }
        }
    }
}
