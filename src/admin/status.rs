//! `/status`: what the page shows, as JSON. Nothing in it is a secret, and much of it is what clients have made up.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};

use super::health::{self, Readiness, Registry};
use super::process::Process;
use super::{Reply, State, cache, named};
use crate::access::Client;
use crate::load::opening::{Handshake, Openings, RefusedProxyHeader};
use crate::metrics::history::{STEP, Sum};
use crate::metrics::labels::Cause;
use crate::metrics::recent::{Count, Failure};
use crate::metrics::refused::LastHour;
use crate::proxy::{Call, Destination, Target};
use crate::token::{Life, TokenReport};
use oci::request::Request;
use oci::route::{OnFailure, Route};

/// Images and clients that are listed, of those that are counted.
const LISTED: usize = 15;
/// How an image is named.
const USE: &str = "use /status?image=docker.io/library/nginx:1.27";

/// All of it, now. With a query `image=`, and an image as clients name it, also how often that one was pulled, however rare it is.
/// The error is the answer to a query that is not this.
pub(super) fn report(state: &State, query: Option<&str>) -> Result<Value, Reply> {
    let asked = query.filter(|query| !query.is_empty()).map(|query| asked(state, query)).transpose()?;
    let mut now = Readiness::of(state);
    let (sum, process) = (Sum::of(&state.meters), Process::read());
    let failures = state.meters.failures.all();
    now.registries.sort_by_cached_key(|registry| (registry.domain().to_owned(), registry.upstream.number));
    let registries: Vec<_> = now.registries.iter().map(|registry| told(registry, &failures)).collect();
    let points: Vec<_> = state.meters.history.points().iter().map(|point| {
        let millis = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
        json!({"at": point.at, "rate": point.rate, "failed": point.failed, "median": millis(point.median), "slow": millis(point.slow)})
    }).collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": env!("ACR_CACHE_PROXY_BUILD"),
        "uptime_seconds": state.started.elapsed().as_secs(),
        "ready": now.is_ready(),
        "stopping": now.is_stopping,
        "summary": now.summary(state),
        "registries": registries,
        "routes": routes(state),
        "requests": {"total": sum.requests, "failed": sum.failed, "hits": sum.hits},
        "history": {"step_seconds": STEP.as_secs(), "points": points},
        "load": health::limits(&state.load),
        "opening": opening(&state.load.openings),
        "cache": cache::report(state),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
        "images": images(state),
        "asked": asked,
        "clients": clients(state),
        "process": {
            "id": std::process::id(),
            "resident_bytes": process.resident,
            "descriptors": process.descriptors,
            "max_descriptors": process.max_descriptors,
        },
    }))
}

/// What was refused lately of each route, so that its clients may have turned to the source.
fn routes(state: &State) -> Vec<Value> {
    let told = |route: &Route<Arc<Destination>>| {
        let destination = &route.destination;
        let LastHour { requests, cause } = destination.meter.refused.last_hour();
        json!({
            "route": destination.route,
            "registry": destination.upstream.domain.authority(),
            "prefix": route.prefix.as_str(),
            "on_failure": match destination.on_failure {
                OnFailure::Fallback => "fallback",
                OnFailure::Closed => "closed",
            },
            "refused_last_hour": requests,
            "most_frequent_cause": cause.map(Cause::name),
            "because": cause.map(Cause::words),
        })
    };
    state.routes.load().iter().map(told).collect()
}

/// What came of connections before their first request.
fn opening(openings: &Openings) -> Value {
    let [clients, admin] = openings.accepted();
    let handshakes = Handshake::ALL.map(|result| (result.name(), json!(openings.handshakes(result))));
    let refused = RefusedProxyHeader::ALL.map(|reason| (reason.name(), json!(openings.refused_proxy_headers(reason))));
    let certificates = openings.certificates();
    let certificates = certificates.iter().map(|(address, end)| json!({"address": address, "end": unix(*end)}));
    json!({
        "accepted": {"clients": clients, "admin": admin},
        "handshakes": handshakes.into_iter().collect::<Value>(),
        "refused_proxy_headers": refused.into_iter().collect::<Value>(),
        "certificates": certificates.collect::<Vec<_>>(),
    })
}

fn told(registry: &Registry, failures: &[Failure]) -> Value {
    let health = &registry.upstream.health;
    let TokenReport { refresh, access, repositories, .. } = registry.upstream.tokens.report();
    let mut told = registry.told();
    let paused = Call::ALL.into_iter().map(|call| (call, health.pause_left(call))).filter(|(_, left)| !left.is_zero());
    let paused = paused.map(|(call, left)| json!({"call": call.plural(), "left_seconds": seconds(left)}));
    let last_failure = failures.iter().find(|failure| failure.registry == registry.domain());
    let more = json!({
        "token": {"refresh": life(refresh), "access": life(access), "repositories": repositories},
        "last_success_seconds": health.last_success().map(|ago| ago.as_secs()),
        "last_failure": last_failure.map(|failure| json!({"at": unix(failure.at), "error": failure.error})),
        "down": registry.down.as_ref().map(|cause| cause.to_string()),
        "paused": paused.collect::<Vec<_>>(),
        "pauses": health.pauses(),
        "stale": health.stale_answers(),
        "budget": health.budget().map(|(limit, wait)| json!({"reads_per_minute": limit, "wait_seconds": seconds(wait)})),
    });
    if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
        told.extend(more);
    }
    told
}

fn life(life: Option<Life>) -> Value {
    life.map_or(Value::Null, |Life { age, left }| json!({"age_seconds": age.as_secs(), "left_seconds": left.as_secs()}))
}

fn failure(failure: &Failure) -> Value {
    json!({
        "at": unix(failure.at),
        "registry": failure.registry,
        "method": failure.method,
        "path": failure.path,
        "status": failure.status,
        "error": failure.error,
        "client": failure.client,
        "correlation": failure.correlation,
    })
}

/// The images of all routes that were pulled most often, as clients name them: `/cache/purge` and `?image=` take them as they are.
fn images(state: &State) -> Vec<Value> {
    let of_route = |(route, meter): (String, Arc<crate::metrics::RouteMeter>)| {
        let top = meter.images.top(LISTED).into_iter();
        top.map(move |(path, count)| (count.times, route.clone(), path)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = state.meters.routes().into_iter().flat_map(of_route).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.2.cmp(&b.2)));
    all.truncate(LISTED);
    all.into_iter()
        .map(|(pulls, route, path)| json!({"image": image(&route, &path), "route": route, "pulls": pulls}))
        .collect()
}

/// Of the image in a query.
fn asked(state: &State, query: &str) -> Result<Value, Reply> {
    let image = named::image(query, USE)?;
    let routes = state.routes.load();
    let choice = named::choose(&routes, &image)?;
    let path = format!("/v2/{}/manifests/{}", image.repository(), image.reference());
    let pulls = match Request::parse(&Method::HEAD, &path, None) {
        Ok(Request::Pull(pull)) => {
            let target = Target::new(&pull, &choice.repository);
            choice.route.destination.meter.images.times(target.below_source())
        }
        // No client can ask for it.
        _ => 0,
    };
    Ok(json!({"image": image.to_string(), "pulls": pulls}))
}

/// Of the source `docker.io`, `/library/nginx/manifests/1.27` is `docker.io/library/nginx:1.27`.
fn image(source: &str, path: &str) -> String {
    match path.rsplit_once("/manifests/") {
        Some((repository, digest)) if digest.contains(':') => format!("{source}{repository}@{digest}"),
        Some((repository, tag)) => format!("{source}{repository}:{tag}"),
        None => format!("{source}{path}"),
    }
}

fn clients(state: &State) -> Vec<Value> {
    let told = |(client, count): (Client, Count)| json!({"client": client.to_string(), "requests": count.times, "last_seconds": count.last.elapsed().as_secs()});
    state.meters.clients.top(LISTED).into_iter().map(told).collect()
}

fn seconds(time: Duration) -> u64 {
    // Rounded up: what is left is not 0 before it is over.
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_as_clients_name_it() {
        for (source, path, expected) in [
            ("docker.io", "/library/nginx/manifests/1.27", "docker.io/library/nginx:1.27"),
            ("docker.io/library/nginx", "/manifests/1.27", "docker.io/library/nginx:1.27"),
            ("ghcr.io", "/a/manifests/manifests/b", "ghcr.io/a/manifests:b"),
            ("registry.example:5000", "/a/manifests/sha256:ab", "registry.example:5000/a@sha256:ab"),
        ] {
            assert_eq!(image(source, path), expected);
        }
    }
}
