//! Runs a request with what its phases need to know beside what Pingora gives them.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;

use super::deadline;
use crate::access::Place;

tokio::task_local! {
    static SERVED: Served;
}

struct Served {
    place: Option<Arc<Place>>,
    has_begun: Cell<bool>,
}

/// What came of a request.
pub(crate) struct Ended<T> {
    /// What it returned.
    pub output: T,
    /// Whether the proxy has seen it. Pingora answers a header that it takes for invalid by itself, with 400 and no body, and ends.
    pub has_begun: bool,
}

/// Runs a request of a connection that has this place, with a watch over its deadlines. `None` is a client without an address,
/// or one of the admin listener.
pub(crate) async fn served<F: Future>(place: Option<Arc<Place>>, request: F) -> Ended<F::Output> {
    let request = async {
        let output = deadline::watched(request).await;
        Ended { output, has_begun: SERVED.with(|served| served.has_begun.get()) }
    };
    SERVED.scope(Served { place, has_begun: Cell::new(false) }, request).await
}

/// The proxy has the request.
pub(crate) fn begin() {
    // Outside of a request, as in a test, nobody asks.
    let _ = SERVED.try_with(|served| served.has_begun.set(true));
}

/// The place of the request's connection.
pub(crate) fn place() -> Option<Arc<Place>> {
    SERVED.try_with(|served| served.place.clone()).ok().flatten()
}
