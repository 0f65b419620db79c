//! Runs a request with what its phases need to know beside what Pingora gives them.

use std::future::Future;
use std::sync::Arc;

use super::deadline;
use crate::access::Place;

tokio::task_local! {
    static PLACE: Option<Arc<Place>>;
}

/// Runs a request of a connection that has this place, with a watch over its deadlines. `None` is a client without an address,
/// or one of the admin listener.
pub(crate) async fn served<F: Future>(place: Option<Arc<Place>>, request: F) -> F::Output {
    PLACE.scope(place, deadline::watched(request)).await
}

/// The place of the request's connection.
pub(crate) fn place() -> Option<Arc<Place>> {
    PLACE.try_with(Clone::clone).ok().flatten()
}
