//! The text of the log filter: a level, or a list of directives such as `warn,access=info`.

/// The log targets of this program: the access log, and the modules of the crate.
pub(super) const OWN_TARGETS: [&str; 2] = [ACCESS, PROGRAM];
const ACCESS: &str = "access";
const PROGRAM: &str = env!("CARGO_CRATE_NAME");

/// The modules of the crate, such as `listen::bind`, with a space between two. The build lists them by their files.
const MODULES: &str = env!("ACR_CACHE_PROXY_MODULES");

/// The dependencies that log anything at all; a filter can name these besides our own targets.
const LIBRARIES: [&str; 7] =
    ["pingora_core", "pingora_pool", "pingora_proxy", "pingora_runtime", "hyper_util", "reqwest", "rustls"];

/// All that a directive can say, from few lines to many; `off` is none.
pub(crate) const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// From this similarity (Jaro-Winkler) on, an unknown target is taken for a mistyped one.
const NEAR: f64 = 0.8;

/// Checks a filter and returns it unchanged. `env_logger` takes any word that is not a level for a target, without a warning,
/// and an unknown target leaves the log empty. The error names the known ones.
pub(crate) fn parse_filter(text: &str) -> Result<String, String> {
    // What tools that read YAML 1.1 write for `off`.
    let text = if text.eq_ignore_ascii_case("false") { "off" } else { text };
    let filter = parse_levels(text)?;
    match targets(text).find(|target| !exists(target)) {
        None if is_all_off(text) => Err(format!(
            "{text:?} turns off the whole log, because what no directive names is off: put a level before it, as in info,{text}, or say off"
        )),
        None => Ok(filter),
        Some(unknown) => {
            Err(format!("{text:?} is not a log filter: there is no target {unknown:?}: {}", suggestion(unknown)))
        }
    }
}

/// Checks a filter from `RUST_LOG`. Other programs read the variable too, so its targets may be theirs. It is wrong where one looks
/// like one of ours mistyped, and where none is ours at all, so that the log would stay empty.
pub(crate) fn parse_shared_filter(text: &str) -> Result<String, String> {
    let filter = parse_levels(text)?;
    let concerns_us = |directive: &str| directive.split_once('=').is_none_or(|(target, _)| exists(target.trim_start()));
    let is_near = |target: &&str| {
        module(target).is_some() || OWN_TARGETS.iter().any(|known| strsim::jaro_winkler(known, target) >= NEAR)
    };
    let mut unknown = targets(text).filter(|target| !exists(target));
    if text.split(',').any(concerns_us) {
        return match unknown.find(is_near) {
            None => Ok(filter),
            Some(near) => Err(format!("there is no target {near:?}: {}", suggestion(near))),
        };
    }
    let suggestion = unknown.next().map(suggestion).unwrap_or_default();
    Err(format!("{text:?} names no target of this program, so its log would stay empty: {suggestion}"))
}

/// Checks the levels of a filter, and no target.
pub(crate) fn parse_levels(text: &str) -> Result<String, String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let valid = text.split(',').all(|directive| {
        let (_, level) = directive.split_once('=').unwrap_or(("", directive));
        is_level(level.trim())
    });
    if valid {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a log filter: use a level ({}), or a list such as warn,access=info",
        LEVELS.join(", ")
    ))
}

/// Targets alone, each of them turned off.
fn is_all_off(text: &str) -> bool {
    text.split(',')
        .all(|directive| directive.split_once('=').is_some_and(|(_, level)| level.trim().eq_ignore_ascii_case("off")))
}

fn targets(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(',').filter_map(|directive| Some(directive.split_once('=')?.0.trim_start()))
}

/// What a target has behind the name of the program, if it is meant for a module of it.
fn module(target: &str) -> Option<&str> {
    target.strip_prefix(PROGRAM)?.strip_prefix("::")
}

/// A directive matches every target that begins with it, and so does a module below a library.
fn exists(target: &str) -> bool {
    let is_begin = |known: &str| !target.is_empty() && known.starts_with(target);
    let is_below = |known: &str| target.strip_prefix(known).is_some_and(|rest| rest.starts_with("::"));
    OWN_TARGETS.into_iter().any(is_begin)
        || module(target).is_some_and(|begin| MODULES.split(' ').any(|known| known.starts_with(begin)))
        || LIBRARIES.into_iter().any(|known| is_begin(known) || is_below(known))
}

fn suggestion(unknown: &str) -> String {
    let near = |known: &str, unknown: &str| Some(strsim::jaro_winkler(known, unknown)).filter(|how| *how >= NEAR);
    let nearest = match module(unknown) {
        Some(unknown) => MODULES
            .split(' ')
            .filter_map(|known| Some((near(known, unknown)?, known)))
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .map(|(_, known)| format!("{PROGRAM}::{known}")),
        None => OWN_TARGETS.into_iter().find(|known| near(known, unknown).is_some()).map(str::to_owned),
    };
    let meant = nearest.map(|nearest| format!("did you mean {nearest}? ")).unwrap_or_default();
    format!(
        "{meant}there are {ACCESS}, a line for each request, {PROGRAM} and its modules, and the libraries {}",
        LIBRARIES.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_levels_and_targets_that_exist() {
        for text in [
            "info",
            "WARN",
            "off",
            "warn,access=info",
            " warn, access=info",
            "acr_cache_proxy::token=debug",
            "acr_cache_proxy::serve::announce=debug",
            "acr_cache_proxy::tok=debug",
            "pingora=error",
            "pingora_core::apps=error",
        ] {
            assert_eq!(parse_filter(text).as_deref(), Ok(text));
        }
        // As of `log: off` in a chart's values.
        assert_eq!(parse_filter("false").as_deref(), Ok("off"));
        const TARGETS: &str = "there are access, a line for each request, acr_cache_proxy and its modules, and the libraries pingora_core, ";
        for (text, says) in [
            (
                "loud",
                "\"loud\" is not a log filter: use a level (error, warn, info, debug, trace, off), or a list such as warn,access=info",
            ),
            ("access", "\"access\" is not a log filter: use a level"),
            ("warn,", "\"warn,\" is not a log filter: use a level"),
            ("a=b=info", "\"a=b=info\" is not a log filter: use a level"),
            ("access=loud", "\"access=loud\" is not a log filter: use a level"),
            (
                "acess=info",
                "\"acess=info\" is not a log filter: there is no target \"acess\": did you mean access? there are access, ",
            ),
            (
                "warn,acr-cache-proxy=info",
                "there is no target \"acr-cache-proxy\": did you mean acr_cache_proxy? there are",
            ),
            ("accessory=info", "there is no target \"accessory\""),
            ("access =info", "there is no target \"access \""),
            (
                "access=off",
                "turns off the whole log, because what no directive names is off: put a level before it, as in info,access=off",
            ),
            ("=info", "there is no target \"\""),
            // They were taken, and nothing was logged.
            ("acr_cache_proxy::nope=info", "there is no target \"acr_cache_proxy::nope\": there are access, "),
            ("acr_cache_proxy::tokens=info", "did you mean acr_cache_proxy::token? there are access, "),
            ("acr_cache_proxy::serve::anounce=info", "did you mean acr_cache_proxy::serve::announce? there are"),
            ("acr_cache_proxy::tests=info", "there is no target"),
            ("access::nope=info", "there is no target \"access::nope\": did you mean access? "),
            ("tower_http=info", TARGETS),
        ] {
            let sentence = parse_filter(text).expect_err(text);
            assert!(sentence.contains(says), "{text}: {sentence}");
        }
        // `RUST_LOG`: unknown targets are those of other programs, unless they look like ours, or ours are missing.
        for (text, says) in [
            ("loud", Some("\"loud\" is not a log filter: use a level")),
            (
                "acess=info",
                Some("\"acess=info\" names no target of this program, so its log would stay empty: did you mean"),
            ),
            (
                "h2=debug,tower_http=info",
                Some("names no target of this program, so its log would stay empty: there are access"),
            ),
            ("warn,acess=info", Some("there is no target \"acess\": did you mean access? there are")),
            ("acr_cache_proxy::nope=info", Some("names no target of this program, so its log would stay empty: there")),
            ("info,acr_cache_proxy::zzzzzzzzzzzzzzzzzzzzzzzz=debug", Some("there is no target \"acr_cache_proxy::zzz")),
            ("acr_cache_proxy::token=debug", None),
            ("info,tower_http=debug", None),
            ("tower_http=debug,access=info", None),
            ("off", None),
            ("warn,access=info", None),
        ] {
            match (parse_shared_filter(text), says) {
                (Err(sentence), Some(says)) => assert!(sentence.contains(says), "{text}: {sentence}"),
                (filter, says) => assert_eq!((filter.as_deref(), says), (Ok(text), None)),
            }
        }
        assert!(parse_levels("h2=debug").is_ok() && parse_levels("loud").is_err());
    }
}
