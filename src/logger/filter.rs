//! The log's filter: a level, or a list such as `warn,access=info`.

use super::OWN;

/// The libraries that write log lines of their own; of all others there are none that a filter could choose.
const LIBRARIES: [&str; 7] =
    ["pingora_core", "pingora_pool", "pingora_proxy", "pingora_runtime", "hyper_util", "reqwest", "rustls"];

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A word this near to a target was meant as it (Jaro-Winkler).
const NEAR: f64 = 0.8;

/// The filter itself, if it is one. `env_logger` takes any word that is no level for a target, in silence, and a target that
/// there is not for one that says nothing. The error says what would be right.
pub fn parse_filter(text: &str) -> Result<String, String> {
    let filter = parse_shared_filter(text)?;
    match targets(text).find(|target| !exists(target)) {
        None => Ok(filter),
        Some(unknown) => {
            Err(format!("{text:?} is no log filter: there is no target {unknown:?}: {}", instead(unknown)))
        }
    }
}

/// The same of `RUST_LOG`, which other programs read as well: the targets may be theirs.
pub fn parse_shared_filter(text: &str) -> Result<String, String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let valid = text.split(',').all(|directive| {
        let (_, level) = directive.split_once('=').unwrap_or(("", directive));
        is_level(level.trim())
    });
    if valid {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no log filter: give a level ({}), or a list such as warn,access=info", LEVELS.join(", ")))
}

/// What is doubtful in a filter of `RUST_LOG`: a target that was meant as one of ours, or none that is, so that the log
/// would stay empty. Only such a filter can have targets that there are not.
pub fn doubt(text: &str) -> Option<String> {
    let concerns_us = |directive: &str| directive.split_once('=').is_none_or(|(target, _)| exists(target.trim_start()));
    let is_near = |target: &str| OWN.iter().any(|known| strsim::jaro_winkler(known, target) >= NEAR);
    let mut unknown = targets(text).filter(|target| !exists(target));
    let first = unknown.clone().next()?;
    if text.split(',').any(concerns_us) {
        let near = unknown.find(|target| is_near(target))?;
        return Some(format!("RUST_LOG: there is no target {near:?}: {}", instead(near)));
    }
    Some(format!("RUST_LOG: {text:?} names no target of this program, so its log stays empty: {}", instead(first)))
}

fn targets(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(',').filter_map(|directive| Some(directive.split_once('=')?.0.trim_start()))
}

/// A target stands for all that begin with it.
fn exists(target: &str) -> bool {
    OWN.iter().chain(&LIBRARIES).any(|known| {
        !target.is_empty()
            && (known.starts_with(target) || target.strip_prefix(known).is_some_and(|rest| rest.starts_with("::")))
    })
}

fn instead(unknown: &str) -> String {
    let nearest = OWN.iter().find(|known| strsim::jaro_winkler(known, unknown) >= NEAR);
    let meant = nearest.map(|nearest| format!("did you mean {nearest}? ")).unwrap_or_default();
    let [access, program] = OWN;
    format!(
        "{meant}there are {access}, a line for each request, {program} and its modules, and the libraries {}",
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
            "pingora=error",
        ] {
            assert_eq!(parse_filter(text).as_deref(), Ok(text));
        }
        const TARGETS: &str = "there are access, a line for each request, acr_cache_proxy and its modules, and the libraries pingora_core, ";
        for (text, says) in [
            (
                "loud",
                "\"loud\" is no log filter: give a level (error, warn, info, debug, trace, off), or a list such as warn,access=info",
            ),
            ("access", "\"access\" is no log filter: give a level"),
            ("warn,", "\"warn,\" is no log filter: give a level"),
            ("a=b=info", "\"a=b=info\" is no log filter: give a level"),
            ("access=loud", "\"access=loud\" is no log filter: give a level"),
            (
                "acess=info",
                "\"acess=info\" is no log filter: there is no target \"acess\": did you mean access? there are access, ",
            ),
            (
                "warn,acr-cache-proxy=info",
                "there is no target \"acr-cache-proxy\": did you mean acr_cache_proxy? there are",
            ),
            ("accessory=info", "there is no target \"accessory\""),
            ("access =info", "there is no target \"access \""),
            ("=info", "there is no target \"\""),
            ("tower_http=info", TARGETS),
        ] {
            let sentence = parse_filter(text).expect_err(text);
            assert!(sentence.contains(says), "{text}: {sentence}");
        }
        // Of the variable that other programs read, only the levels; but what is doubtful is said.
        for (text, says) in [
            (
                "acess=info",
                Some("RUST_LOG: \"acess=info\" names no target of this program, so its log stays empty: did you mean"),
            ),
            (
                "h2=debug,tower_http=info",
                Some("names no target of this program, so its log stays empty: there are access"),
            ),
            ("warn,acess=info", Some("RUST_LOG: there is no target \"acess\": did you mean access? there are")),
            ("info,tower_http=debug", None),
            ("tower_http=debug,access=info", None),
            ("off", None),
            ("warn,access=info", None),
        ] {
            let doubt = doubt(text);
            assert!(
                doubt.as_deref().is_some_and(|doubt| says.is_some_and(|says| doubt.contains(says)))
                    || doubt.is_none() && says.is_none(),
                "{text}: {doubt:?}"
            );
        }
        assert!(parse_shared_filter("info,tower_http=debug").is_ok());
        assert!(parse_shared_filter("loud").is_err());
    }
}
