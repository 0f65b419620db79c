//! The spans of requests: whether the environment asks for them, and whether this build has them.

#[cfg(feature = "otlp")]
use std::sync::Arc;

use log::warn;

use super::table::RouteTable;
use crate::metrics::Meters;
use crate::net::trust::TrustRoots;
use crate::otlp;
use crate::proxy::Proxy;

/// Where the spans of this process go; nowhere without the feature `otlp`.
#[derive(Clone, Default)]
pub(super) struct SpanExport {
    #[cfg(feature = "otlp")]
    spans: Option<Arc<otlp::Spans>>,
}

impl SpanExport {
    /// By the variables of the environment. What is wrong with them is in the log: the spans are not worth a pull.
    #[cfg(feature = "otlp")]
    pub(super) fn start(roots: &TrustRoots, table: &RouteTable, meters: &Meters) -> Self {
        let mut warnings = Vec::new();
        let settings = otlp::Settings::read(variable, &mut warnings);
        for warning in warnings {
            warn!("{warning}");
        }
        let start = |settings| otlp::Spans::start(settings, roots, table.way_out(), &meters.spans);
        let started = settings.map(start).transpose();
        let spans = started.inspect_err(|cause| warn!("otlp: no spans are exported: a thread for it: {cause}"));
        Self { spans: spans.ok().flatten().map(Arc::new) }
    }

    /// A build without them says so, if the environment asks for them.
    #[cfg(not(feature = "otlp"))]
    pub(super) fn start(_: &TrustRoots, _: &RouteTable, _: &Meters) -> Self {
        if let Some(sentence) = otlp::missing(variable) {
            warn!("{sentence}");
        }
        Self::default()
    }

    /// The proxy whose requests have them.
    pub(super) fn of(&self, proxy: Proxy) -> Proxy {
        #[cfg(feature = "otlp")]
        let proxy = proxy.with_spans(self.spans.clone());
        proxy
    }

    /// At the end of the process, after the last request.
    pub(super) fn flush(&self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = &self.spans {
            spans.flush();
        }
    }
}

fn variable(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}
