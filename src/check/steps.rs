//! The hops of one way, tried one after the other: each has its line, and what follows a failure is not tried.

use std::future::Future;

use tokio::time::{Instant, timeout_at};

use super::CHECK_LIMIT;
use super::report::{Hop, Line, Status, Value};

/// Why the way ends at a hop.
pub(super) struct Finding {
    status: Status,
    text: String,
}

impl Finding {
    /// Pulls fail here.
    pub(super) fn failed(text: impl ToString) -> Self {
        Self { status: Status::Failed, text: text.to_string() }
    }

    /// The way ends here, and pulls may go on all the same.
    pub(super) fn warning(text: impl ToString) -> Self {
        Self { status: Status::Warning, text: text.to_string() }
    }

    /// The same as a warning.
    pub(super) fn only_warns(self) -> Self {
        Self { status: Status::Warning, ..self }
    }
}

/// What a hop that works has to say.
pub(super) struct Works<T> {
    pub result: T,
    pub text: String,
    pub value: Option<Value>,
    /// It works, and somebody should look at it.
    pub is_doubtful: bool,
}

impl<T> Works<T> {
    pub(super) fn new(result: T, text: impl Into<String>) -> Self {
        Self { result, text: text.into(), value: None, is_doubtful: false }
    }
}

/// The lines of one group, until the time of the whole check is up.
pub(super) struct Steps {
    pub lines: Vec<Line>,
    /// The first hop where the way ended.
    pub ended: Option<Hop>,
    until: Instant,
}

impl Steps {
    pub(super) fn new(until: Instant) -> Self {
        Self { lines: Vec::new(), ended: None, until }
    }

    /// Tries a hop. `None` if the way ends there.
    pub(super) async fn step<T>(
        &mut self,
        hop: Hop,
        work: impl Future<Output = Result<Works<T>, Finding>>,
    ) -> Option<T> {
        let begun = Instant::now();
        // What nothing is left for has not failed.
        if begun >= self.until && self.ended.is_some() {
            let limit = CHECK_LIMIT.as_secs();
            self.note(hop, Status::Skipped, format!("not tried: the {limit} s of the whole check are over"), None);
            return None;
        }
        let late = |_| {
            let limit = CHECK_LIMIT.as_secs();
            Err(Finding::failed(format!(
                "not over when the {limit} s of the whole check were: try again, or look why it is slow"
            )))
        };
        let outcome = timeout_at(self.until, work).await.unwrap_or_else(late);
        let elapsed = Some(begun.elapsed());
        match outcome {
            Ok(Works { result, text, value, is_doubtful }) => {
                let status = if is_doubtful { Status::Warning } else { Status::Ok };
                self.lines.push(Line { hop, status, elapsed, text, value });
                Some(result)
            }
            Err(Finding { status, text }) => {
                self.lines.push(Line { hop, status, elapsed, text, value: None });
                self.ended.get_or_insert(hop);
                None
            }
        }
    }

    /// Something that was found on the way, and took no time.
    pub(super) fn note(&mut self, hop: Hop, status: Status, text: String, value: Option<Value>) {
        self.lines.push(Line { hop, status, elapsed: None, text, value });
    }

    /// These are not tried, because the way ended before.
    pub(super) fn skip(&mut self, hops: impl IntoIterator<Item = Hop>) {
        let before = self.ended.map(|ended| format!(": {} comes first", ended.name())).unwrap_or_default();
        for hop in hops {
            self.note(hop, Status::Skipped, format!("not tried{before}"), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_hangs_ends_with_the_time_of_the_whole_check_and_what_follows_is_not_tried() {
        let begun = Instant::now();
        let mut steps = Steps::new(begun + CHECK_LIMIT);
        let works = steps.step(Hop::Dns, async { Ok(Works::new((), "192.0.2.1")) }).await;
        let hangs = steps.step(Hop::Tcp, std::future::pending::<Result<Works<()>, Finding>>()).await;
        // Nothing is left of the time, so this is not tried.
        let late = steps.step(Hop::Identity, std::future::pending::<Result<Works<()>, Finding>>()).await;
        steps.skip([Hop::Tls]);
        assert_eq!((works, hangs, late, begun.elapsed()), (Some(()), None, None, CHECK_LIMIT));
        let lines: Vec<_> = steps.lines.iter().map(|line| (line.hop, line.status)).collect();
        let expected = [
            (Hop::Dns, Status::Ok),
            (Hop::Tcp, Status::Failed),
            (Hop::Identity, Status::Skipped),
            (Hop::Tls, Status::Skipped),
        ];
        assert_eq!(lines, expected);
        assert!(
            steps.lines[1].text.starts_with("not over when the 60 s of the whole check were"),
            "{}",
            steps.lines[1].text
        );
        assert_eq!(steps.lines[3].text, "not tried: tcp comes first");
    }
}
