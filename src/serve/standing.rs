//! What clients get of each registry by this process, and whether they would lose by one that takes its place with nothing kept.

use super::handover::Request;
use crate::proxy::{Table, has_kept, upstreams};

/// What else there is to do than to wait until there is nothing to lose.
const OR_RESTART: &str = "or restart, which applies a change at once and loses what is kept";

/// The registries that do not answer clients by themselves now. Those without a token are named as [`Standing::without_token`] has
/// them.
#[derive(Default)]
pub(super) struct Standing {
    /// There is no token, and clients get what is kept.
    kept: Vec<String>,
    /// There is no token, and clients get nothing: a new process without a token is no worse.
    nothing: Vec<String>,
    /// They do not answer this process at all, and clients get what is kept; each with the reason. A new process may go another way.
    down: Vec<(String, String)>,
    /// What is kept stands in for what they do not answer, or will when it is asked for; each with the reason.
    stood_in: Vec<(String, String)>,
    /// Nothing is kept, and they are not asked during a pause, of which a new process would not know; each with the reason.
    paused: Vec<(String, String)>,
}

impl Standing {
    /// Now.
    pub(super) fn of(table: &Table) -> Self {
        let mut standing = Self::default();
        for upstream in upstreams(table) {
            let (name, has_kept) = (upstream.domain.authority().to_owned(), has_kept(table, &upstream));
            let health = &upstream.health;
            match (health.paused(), health.why_down(), has_kept) {
                (Some(why), _, true) => standing.stood_in.push((name.clone(), why)),
                (Some(why), _, false) => standing.paused.push((name.clone(), why)),
                (None, Some(cause), true) => standing.down.push((name.clone(), format!("it is down: {cause}"))),
                (None, None, true) => standing.stood_in.extend(health.trouble().map(|why| (name.clone(), why))),
                (None, _, false) => {}
            }
            match (upstream.tokens.readiness().ready, has_kept) {
                (true, _) => {}
                (false, true) => standing.kept.push(name),
                (false, false) => standing.nothing.push(name),
            }
        }
        standing
    }

    /// A line for each registry without a token.
    pub(super) fn without_token(&self) -> String {
        [self.kept.as_slice(), self.nothing.as_slice()].concat().join("\n")
    }

    /// Why a process that has nothing kept, and no token for these registries, must not take this one's place; a clause about it. Whether
    /// it may still depends on [`Self::is_down_for`], if [`Self::is_down`].
    pub(super) fn holds_back(&self, without_token: &str) -> Option<String> {
        let is_kept = |line: &str| self.kept.iter().any(|its| its == line);
        // Two identities may sign in to one registry.
        let is_worse = |line: &&str| is_kept(line) || !self.nothing.iter().any(|its| its == line);
        let lacks: Vec<_> = without_token.lines().filter(is_worse).collect();
        if !lacks.is_empty() {
            let lacks_kept: Vec<_> = lacks.iter().copied().filter(|line| is_kept(line)).collect();
            let kept = match lacks_kept.as_slice() {
                [] => String::new(),
                some => format!(
                    ", and clients still get what this process keeps of {}, which a new one does not have: upgrade when the sign-in works again, {OR_RESTART}",
                    some.join(", ")
                ),
            };
            return Some(format!("it has no token for {}{kept}", lacks.join(", ")));
        }
        if !self.stood_in.is_empty() {
            return Some(format!(
                "{}: upgrade when the registry answers again, {OR_RESTART}",
                keeps_nothing(self.stood_in.iter())
            ));
        }
        (!self.paused.is_empty()).then(|| {
            format!(
                "it would ask in a pause that it does not know of, of {}: upgrade when that is over",
                with_reasons(self.paused.iter())
            )
        })
    }

    /// Whether it matters which registries the new process reaches.
    pub(super) fn is_down(&self) -> bool {
        !self.down.is_empty()
    }

    /// Why a process that has nothing kept, and does not reach these registries, must not take this one's place; a clause about it.
    pub(super) fn is_down_for(&self, unreached: &str) -> Option<String> {
        let mut down = self.down.iter().filter(|(name, _)| unreached.lines().any(|line| line == name)).peekable();
        down.peek()?;
        Some(format!(
            "{}, which it does not reach either: upgrade when the registry answers again, {OR_RESTART}",
            keeps_nothing(down)
        ))
    }
}

/// What keeps the new process from taking this one's place.
pub(super) struct Obstacle {
    /// A clause about it.
    pub why: String,
    /// The registries that it did not reach when it was asked last.
    unreached: String,
}

impl Default for Obstacle {
    fn default() -> Self {
        Self { why: "it has not answered yet, so it may hang".to_owned(), unreached: String::new() }
    }
}

impl Obstacle {
    /// What the new process is asked next, after this answer; `None` if it may take this one's place.
    pub(super) fn judge(&mut self, standing: &Standing, request: Request, lines: String) -> Option<Request> {
        let why = match request {
            Request::Unreached => {
                self.unreached = lines;
                // It had its tokens when it was asked for them.
                standing.holds_back("").or_else(|| standing.is_down_for(&self.unreached))
            }
            _ => standing.holds_back(&lines),
        };
        match why {
            Some(why) => {
                self.why = why;
                Some(Request::Unready)
            }
            None if request == Request::Unready && standing.is_down() => {
                // The limit may end before the answer: what it said last holds until then.
                let said = standing.is_down_for(&self.unreached);
                self.why = said.unwrap_or_else(|| "it has not said whether it reaches the registries".to_owned());
                Some(Request::Unreached)
            }
            None => None,
        }
    }
}

fn keeps_nothing<'a>(of: impl Iterator<Item = &'a (String, String)>) -> String {
    format!("it keeps nothing yet, while clients live on what this process keeps of {}", with_reasons(of))
}

fn with_reasons<'a>(registries: impl Iterator<Item = &'a (String, String)>) -> String {
    registries.map(|(name, why)| format!("{name} ({why})")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_takes_over_where_clients_lose_nothing_by_it() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        for (kept, nothing, stood_in, without_token, expected) in [
            (&[][..], &[][..], &[][..], "", None),
            (&[], &[], &[], "a:443", Some("it has no token for a:443")),
            // No worse than this one.
            (&[], &["a:443"], &[], "a:443", None),
            (&[], &["a:443"], &[], "a:443\nb:443", Some("it has no token for b:443")),
            (&["a:443"], &[], &[], "", None),
            (
                &["a:443"],
                &[],
                &[],
                "a:443",
                Some("it has no token for a:443, and clients still get what this process keeps of a:443, "),
            ),
            // Two identities, one of which has something kept.
            (&["a:443"], &["a:443"], &[], "a:443", Some("it has no token for a:443, and clients still get what ")),
            (
                &[],
                &[],
                &["a:443"],
                "",
                Some(
                    "it keeps nothing yet, while clients live on what this process keeps of a:443 (it is down): upgrade ",
                ),
            ),
            (&[], &["b:443"], &["a:443"], "b:443", Some("it keeps nothing yet, ")),
            (&[], &[], &["a:443"], "b:443", Some("it has no token for b:443")),
        ] {
            let stood_in = names(stood_in).into_iter().map(|name| (name, "it is down".to_owned())).collect();
            let standing = Standing { kept: names(kept), nothing: names(nothing), stood_in, ..Standing::default() };
            let why = standing.holds_back(without_token);
            let is_expected = match (&why, expected) {
                (Some(why), Some(expected)) => why.starts_with(expected),
                (why, expected) => why.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{kept:?} {nothing:?} {without_token:?}: {why:?}");
        }
    }

    #[test]
    fn a_new_process_that_reached_what_the_old_one_did_not_was_ended() {
        let down = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), "it is down".to_owned())).collect();
        for (down, unreached, expected) in [
            (down(&["a:443"]), "", None),
            (down(&["a:443"]), "b:443", None),
            (
                down(&["a:443", "b:443"]),
                "b:443\nc:443",
                Some("keeps of b:443 (it is down), which it does not reach either:"),
            ),
            (Vec::new(), "a:443", None),
        ] {
            let standing = Standing { down, ..Standing::default() };
            assert_eq!(standing.holds_back(""), None);
            let why = standing.is_down_for(unreached);
            assert_eq!(why.is_some(), expected.is_some(), "{unreached:?}: {why:?}");
            assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()), "{unreached:?}");
        }
    }

    /// The limit ended between the two questions, and "it has not said whether it reaches the registries" was all that was told.
    #[test]
    fn what_the_new_process_had_said_was_forgotten_when_it_was_asked_again() {
        let standing = Standing { down: vec![("a:443".to_owned(), "it is down".to_owned())], ..Standing::default() };
        let mut obstacle = Obstacle::default();
        for (request, lines, next, why) in [
            (Request::Unready, "a:443", Some(Request::Unready), "it has no token for a:443"),
            (Request::Unready, "", Some(Request::Unreached), "it has not said whether it reaches the registries"),
            (Request::Unreached, "a:443", Some(Request::Unready), ", which it does not reach either: "),
            (Request::Unready, "", Some(Request::Unreached), ", which it does not reach either: "),
            (Request::Unreached, "", None, ""),
        ] {
            assert_eq!(obstacle.judge(&standing, request, lines.to_owned()), next, "{lines:?}");
            assert!(obstacle.why.contains(why), "{}", obstacle.why);
        }
    }
}
