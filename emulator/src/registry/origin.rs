//! Content that a cache rule has not imported yet, which says so by `X-Azure-Origin: upstream` (Azure/acr#862).

use crate::answer::Answer;
use crate::state::State;

/// The answer, with that header if it is about such content.
pub(super) fn marked(state: &State, repository: &str, reference: &str, answer: Answer) -> Answer {
    if state.store.is_imported(repository, reference) { answer } else { answer.header("X-Azure-Origin", "upstream") }
}
