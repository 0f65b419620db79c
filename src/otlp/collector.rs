//! One call to the collector (OTLP/HTTP, "OpenTelemetry Protocol Specification"), and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use oci::quote::{Sent, quoted};
use prost::Message as _;
use reqwest::Url;

use super::export::{Collect, NotTaken, Taken};
use super::message::ExportTraceServiceResponse;
use super::settings::Settings;
use crate::answer::{is_of_type, read_body, retry_after, with_causes};
use crate::net::addresses::{Addresses, Single, Way};
use crate::net::egress::Egress;
use crate::net::trust::TrustRoots;
use crate::net::{USER_AGENT, client};

/// Where spans go.
pub(crate) struct Collector {
    url: Url,
    headers: HeaderMap,
    timeout: Duration,
    roots: TrustRoots,
    egress: Box<dyn Fn() -> Arc<Egress> + Send>,
    /// The client of the last call, and what it was built for.
    built: Option<Built>,
}

#[derive(Clone)]
struct Built {
    egress: Arc<Egress>,
    way: Way,
    http: reqwest::Client,
}

impl Collector {
    /// Does no network I/O.
    pub(crate) fn new(
        settings: &Settings,
        roots: TrustRoots,
        egress: impl Fn() -> Arc<Egress> + Send + 'static,
    ) -> Self {
        let Settings { url, headers, timeout, .. } = settings;
        let (url, headers) = (url.clone(), headers.clone());
        Self { url, headers, timeout: *timeout, roots, egress: Box::new(egress), built: None }
    }

    /// Its address, for the log: without a query, which may have a key.
    pub(crate) fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    /// What its answer may repeat and nobody may see.
    fn secrets(&self) -> Vec<Sent<'_>> {
        let configured = self.headers.iter().filter(|(name, _)| *name != header::CONTENT_TYPE);
        configured.filter_map(|(_, value)| value.to_str().ok()).map(Sent::from).collect()
    }

    /// The client for the proxy that is in the settings now.
    fn client(&mut self) -> reqwest::Result<Built> {
        let egress = (self.egress)();
        if let Some(built) = self.built.as_ref().filter(|built| Arc::ptr_eq(&built.egress, &egress)) {
            return Ok(built.clone());
        }
        let (host, port) =
            (self.url.host_str().unwrap_or_default(), self.url.port_or_known_default().unwrap_or_default());
        let direct = || Arc::new(Addresses::of_collector(host, port));
        // As for all that leaves: no proxy is asked for plain HTTP.
        let is_secure = self.url.scheme() == "https";
        let way = if is_secure { egress.way((host, port), direct) } else { Way::direct(direct()) };
        let http = client::builder(&self.roots, Single(Arc::clone(way.addresses())))?;
        let http = http.user_agent(USER_AGENT).timeout(self.timeout);
        let http = match way.tunnel() {
            Some(tunnel) => client::through(http, tunnel.proxy(), |_| true),
            None => http,
        };
        let built = Built { egress, way, http: http.build()? };
        self.built = Some(built.clone());
        Ok(built)
    }
}

impl Collect for Collector {
    fn name(&self) -> String {
        Self::name(self)
    }

    async fn send(&mut self, body: Bytes) -> Result<Taken, NotTaken> {
        let Built { way, http, .. } =
            self.client().map_err(|cause| NotTaken::Never(format!("TLS client: {}", with_causes(&cause))))?;
        way.resolve().await.map_err(|unresolved| NotTaken::Now(unresolved, None))?;
        let call = way.track_call();
        let sent = http.post(self.url.clone()).headers(self.headers.clone()).body(body).send().await;
        let answer = match sent.inspect(|answer| call.answered(answer)) {
            Ok(answer) => answer,
            Err(cause) => {
                let cause = call.failed(cause).without_url();
                let no_tunnel = if cause.is_connect() { way.explain(&cause).await } else { None };
                let why = no_tunnel.map_or_else(|| with_causes(&cause), |no_tunnel| no_tunnel.to_string());
                return Err(NotTaken::Now(why, None));
            }
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = read_body(answer).await;
        match status {
            status if status.is_success() => {
                let body =
                    body.map_err(|_| NotTaken::Never(format!("{status}: its answer broke off or is too long")))?;
                taken(&headers, &body, &self.secrets())
            }
            // The statuses that the specification wants to be repeated.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(NotTaken::Now(status.to_string(), retry_after(&headers))),
            status => Err(NotTaken::Never(format!("{status}: {}", advice(status)))),
        }
    }
}

/// Of a good answer, whether all was taken.
fn taken(headers: &HeaderMap, body: &[u8], sent: &[Sent<'_>]) -> Result<Taken, NotTaken> {
    if is_of_type(headers, "text/") {
        return Err(NotTaken::Never("its answer is a page: is this the address of a collector?".to_owned()));
    }
    // Some answer in JSON what was asked in another form; `{}` says that all was taken.
    let answer = if is_of_type(headers, "application/json") {
        Ok(ExportTraceServiceResponse::default())
    } else {
        ExportTraceServiceResponse::decode(body)
    };
    let answer =
        answer.map_err(|_| NotTaken::Never("its answer is no OTLP: is this the address of a collector?".to_owned()))?;
    let partial = answer.partial_success.unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
    Ok(Taken { rejected, message: quoted(&partial.error_message, sent).unwrap_or_default() })
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "check OTEL_EXPORTER_OTLP_HEADERS",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            "check the path: /v1/traces is added to OTEL_EXPORTER_OTLP_ENDPOINT, and nothing to OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "it does not take http/protobuf",
        StatusCode::PAYLOAD_TOO_LARGE => "the batch is too large for it: lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        status if status.is_redirection() => "redirects are not followed: name the address that it leads to",
        _ => "it refuses the spans: see its log",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// What is JSON was said to be no OTLP, and its spans were counted as lost; a page was taken for the answer that all was well.
    #[test]
    fn a_type_in_other_letters_than_usual_was_not_known() {
        for (kind, body, is_taken) in [
            ("application/json", "{}", true),
            ("Application/JSON; charset=utf-8", "{}", true),
            ("text/html", "", false),
            ("Text/HTML", "", false),
            ("application/x-protobuf", "", true),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(taken(&headers, body.as_bytes(), &[]).is_ok(), is_taken, "{kind}");
        }
    }
}
