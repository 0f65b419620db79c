//! What a manifest says of its image: which blob is the configuration, and what clients will ask for next.

use std::sync::Arc;
use std::time::Instant;

use oci::manifest::{Document, for_platform};
use oci::route::Blobs;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Read;
use super::configuration::MAX_CONFIGURATION;
use crate::cache::{Content, KeyRef, Part};
use crate::proxy::attempts::Attempts;
use crate::proxy::context::Admitted;
use crate::proxy::target::Target;

/// Prefetches under way, of all registries. What finds no room is asked for when a client wants it.
const MAX_PREFETCHES: usize = 64;
/// Manifests of one index. An index may have several for a platform: the versions of Windows, the variants of ARM.
const MAX_MANIFESTS: usize = 8;

static PREFETCHES: Semaphore = Semaphore::const_new(MAX_PREFETCHES);

/// A place among the prefetches.
pub(super) type Place = SemaphorePermit<'static>;

impl Read {
    /// A manifest has come whole: its configuration is known as one from now on.
    pub(super) fn remember(&self, manifest: &Content) {
        // Of a forgotten prefetch nobody has the manifest.
        if self.place.is_some() && self.is_forgotten() {
            return;
        }
        let Some(configuration) = self.configuration_of(manifest) else { return };
        if let Some(kept) = &self.admitted.destination.kept {
            kept.cache.remember(&self.key(Part::Configuration, configuration.path()));
        }
    }

    /// The same for a manifest that was not known before: what clients ask for next is fetched.
    pub(super) fn prefetch(&self, manifest: &Content) {
        let Some(kept) = self.admitted.destination.kept.as_ref().filter(|kept| !kept.prefetch.is_empty()) else {
            return;
        };
        if self.is_forgotten() {
            return;
        }
        if self.place.is_some() {
            if let Some(configuration) = self.configuration_of(manifest) {
                self.start(configuration, Part::Configuration);
            }
        } else if manifest.manifest.is_some_and(|manifest| manifest.is_index())
            && let Ok(Document::Index(entries)) = Document::parse(&manifest.body)
        {
            let wanted = kept.prefetch.iter().flat_map(|platform| for_platform(&entries, platform));
            for entry in wanted.take(MAX_MANIFESTS) {
                self.start(self.admitted.target.manifest(&entry.digest), Part::Manifest);
            }
        }
    }

    /// The configuration that a manifest names, if the route serves configurations and it is one to keep.
    fn configuration_of(&self, manifest: &Content) -> Option<Target> {
        let is_served = self.admitted.destination.blobs != Blobs::Redirect;
        if !is_served || manifest.manifest.is_none_or(|manifest| manifest.is_index()) {
            return None;
        }
        let Ok(Document::Manifest(document)) = Document::parse(&manifest.body) else { return None };
        let fits = document.config.size <= MAX_CONFIGURATION as u64;
        fits.then(|| self.admitted.target.blob(&document.config.digest))
    }

    /// Fetches this for the cache, if it is not there.
    fn start(&self, target: Target, part: Part) {
        let Some(kept) = &self.admitted.destination.kept else { return };
        let Ok(place) = PREFETCHES.try_acquire() else { return };
        let destination = Arc::clone(&self.admitted.destination);
        let path = target.path().to_owned();
        let attempts = Attempts::new(Instant::now());
        let admitted = Admitted { target, destination, client: self.admitted.client, attempts };
        let read = || Read { admitted, part, trip: Arc::default(), place: Some(place) };
        kept.cache.prefetch(self.key(part, &path), &kept.lifetimes, read);
    }

    /// What this flight brings is not kept any more, as somebody has purged it; what would follow from it is not either.
    fn is_forgotten(&self) -> bool {
        let key = self.key(self.part, self.admitted.target.path());
        self.admitted.destination.kept.as_ref().is_some_and(|kept| !kept.cache.is_under_way(&key))
    }

    fn key<'a>(&self, part: Part, path: &'a str) -> KeyRef<'a> {
        KeyRef { registry: self.admitted.destination.upstream.number, part, path }
    }
}
