//! What clients get of each registry by this process, and whether they would lose by one that takes its place with nothing kept.

use crate::proxy::{Table, has_kept, upstreams};

/// The registries that do not answer clients by themselves now. Those without a token are named as [`Standing::without_token`] has
/// them.
#[derive(Default)]
pub(super) struct Standing {
    /// There is no token, and clients get what is kept.
    kept: Vec<String>,
    /// There is no token, and clients get nothing: a new process without a token is no worse.
    nothing: Vec<String>,
    /// What is kept stands in for what they do not answer, or will when it is asked for; each with the reason.
    stood_in: Vec<(String, String)>,
}

impl Standing {
    /// Now.
    pub(super) fn of(table: &Table) -> Self {
        let mut standing = Self::default();
        for upstream in upstreams(table) {
            let (name, has_kept) = (upstream.domain.authority().to_owned(), has_kept(table, &upstream));
            if let Some(why) = upstream.health.trouble().filter(|_| has_kept) {
                standing.stood_in.push((name.clone(), why));
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

    /// Why a process that has nothing kept, and no token for these registries, must not take this one's place; a clause about it.
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
                    ", and clients still get what this process keeps of {}, which a new one does not have: upgrade when the sign-in works again",
                    some.join(", ")
                ),
            };
            return Some(format!("it has no token for {}{kept}", lacks.join(", ")));
        }
        let stood_in: Vec<_> = self.stood_in.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        (!stood_in.is_empty()).then(|| {
            format!(
                "it keeps nothing yet, while clients live on what this process keeps of {}: upgrade when the registry answers again",
                stood_in.join(", ")
            )
        })
    }
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
            let standing = Standing { kept: names(kept), nothing: names(nothing), stood_in };
            let why = standing.holds_back(without_token);
            let is_expected = match (&why, expected) {
                (Some(why), Some(expected)) => why.starts_with(expected),
                (why, expected) => why.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{kept:?} {nothing:?} {without_token:?}: {why:?}");
        }
    }
}
