//! The proxy itself: whether it runs, has its tokens, and has sent clients to the source.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ask::{self, Answer};
use super::expected::{Expected, by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, Part, listed};
use crate::activation::Sockets;
use crate::admin::ways::other_identities;
use crate::config::service_user::{Closed, ServiceUser};
use crate::config::{Config, Endpoint, reachable};
use crate::environment_file::{BESIDE as VARIABLES, Variables};
use crate::host::Host;
use crate::installed::{OWN_UNIT as UNIT, RELOAD, RESTART};
use crate::metrics::labels::Cause;
use crate::shell::shell_word;

mod behind;
mod closed;
mod down;
mod mirror;
mod older;

use closed::NotHandedOver;
use down::Service;
pub(super) use down::unit_state;
use mirror::Mirror;
pub(super) use mirror::is_own;

/// A sentence of the proxy's is quoted up to here.
const MAX_SENTENCE: usize = 500;

/// The lines of requests that were answered by an error, in both formats of the log. The registry's own answers are no warnings.
const FAILED_REQUESTS: &str = r#"grep -E 'access\] \S+ \S+ [45]|"status":[45]'"#;

/// What it says.
pub(super) struct Facts {
    /// Where it was asked.
    at: String,
    answers: io::Result<Option<Answer>>,
    /// It is a registry, and not this proxy.
    is_other: bool,
    /// Where the admin listener is set to be.
    admin: Option<SocketAddr>,
    ready: Option<io::Result<Answer>>,
    /// `/status`.
    pub status: Option<Value>,
    /// What systemd knows of the service.
    service: Service,
    /// Somebody takes connections there, who need not answer.
    is_there: bool,
    /// Those of the service, beside its settings, and the path of their file.
    variables: Option<(PathBuf, Result<Variables, String>)>,
    /// It was started with others than this file has: their names.
    older: Option<(String, Vec<&'static str>)>,
    /// Files that its user may not read, although whoever asks may.
    closed: Vec<Closed>,
    /// Credentials that the service does not get, although its settings name them.
    not_handed_over: Vec<NotHandedOver>,
    /// As whom it signs in where its settings say otherwise, a clause for each registry.
    other_identities: Vec<String>,
    /// Nobody listens on this host, and it is the address of the mirror that was asked.
    is_elsewhere: bool,
    /// The address of the mirror, where that is another, and the proxy of this host answers.
    mirror: Option<Mirror>,
}

/// Asks the first listener that can be asked as it is, and the admin listener. Where `--mirror` says where the clients of this host find
/// the proxy, that is asked as well; where nobody listens on this host, alone: the host need not have one of its own.
pub(super) async fn read(
    host: &Host,
    config: &Config,
    sockets: &Sockets,
    (file, given): (Option<&str>, &[(&'static str, String)]),
    mirror: Option<&str>,
) -> Facts {
    let mut own = read_own(host, config, file.map(Path::new), sockets).await;
    own.closed = ServiceUser::of(host, file, given).map(|user| user.closed(file, config)).unwrap_or_default();
    match (mirror, &own.answers) {
        (Some(url), Err(cause)) if !own.is_there && cause.kind() != io::ErrorKind::InvalidData => {
            elsewhere(url, sockets).await
        }
        _ => {
            own.service = Service::read(host, config, sockets, (file, given)).await;
            if let (Some(url), Ok(_)) = (mirror, &own.answers) {
                own.mirror = Some(Mirror::ask(url, sockets).await);
            }
            own
        }
    }
}

/// The proxy at this address, of which nothing else is known.
async fn elsewhere(url: &str, sockets: &Sockets) -> Facts {
    let Mirror { url, answers, is_other } = Mirror::ask(url, sockets).await;
    Facts {
        at: url,
        answers,
        is_other,
        admin: None,
        ready: None,
        status: None,
        service: Service::default(),
        is_there: false,
        variables: None,
        older: None,
        closed: Vec::new(),
        not_handed_over: Vec::new(),
        other_identities: Vec::new(),
        is_elsewhere: true,
        mirror: None,
    }
}

async fn read_own(host: &Host, config: &Config, file: Option<&Path>, sockets: &Sockets) -> Facts {
    let is_alone = |endpoint: &Endpoint| host.is_this() && sockets.alone_at(endpoint).is_some();
    let listener = config.listeners().iter().find(|listener| listener.is_plain()).or(config.listeners().first());
    let (at, answers) = match listener {
        Some(listener) => {
            let answers = match &listener.endpoint {
                endpoint if is_alone(endpoint) => Err(io::ErrorKind::ConnectionRefused.into()),
                endpoint if listener.is_plain() => ask_at(endpoint, "/v2/").await.map(Some),
                endpoint => connects_to(endpoint).await.map(|()| None),
            };
            (listener.endpoint.to_string(), answers)
        }
        None => (String::new(), Err(io::ErrorKind::NotFound.into())),
    };
    let is_there = match (listener, &answers) {
        (Some(listener), Err(cause)) if cause.kind() == io::ErrorKind::TimedOut => {
            connects_to(&listener.endpoint).await.is_ok()
        }
        _ => answers.is_ok(),
    };
    let is_other = match listener {
        Some(listener) if is_some_registry(&answers) => is_another_registrys(ask_at(&listener.endpoint, "/").await),
        _ => false,
    };
    let (mut ready, mut status) = (None, None);
    let admin = config.admin().filter(|admin| !is_alone(&Endpoint::Address(*admin)));
    if let (Some(admin), Ok(_)) = (admin, &answers) {
        let admin = reachable(admin);
        ready = Some(ask::get(admin, "/readyz").await);
        if matches!(ready, Some(Ok(_))) {
            status = ask_status(admin, "/status").await;
        }
    }
    let other_identities = status.as_ref().map(|status| other_identities(status, config)).unwrap_or_default();
    let beside = file.and_then(Path::parent).map(|directory| directory.join(VARIABLES));
    let older = older::read(beside.as_deref().filter(|_| host.is_this()), status.as_ref()).await;
    let variables = beside.filter(|_| answers.is_err()).map(|path| (path.clone(), Variables::read(&path)));
    Facts {
        at,
        answers,
        is_other,
        admin: config.admin(),
        ready,
        status,
        service: Service::default(),
        is_there,
        variables,
        older,
        closed: Vec::new(),
        not_handed_over: NotHandedOver::read(host, file, config),
        other_identities,
        is_elsewhere: false,
        mirror: None,
    }
}

async fn ask_at(endpoint: &Endpoint, target: &str) -> io::Result<Answer> {
    match endpoint {
        Endpoint::Address(address) => ask::get(reachable(*address), target).await,
        Endpoint::Unix { path, .. } => ask::get_unix(path, target).await,
    }
}

async fn connects_to(endpoint: &Endpoint) -> io::Result<()> {
    match endpoint {
        Endpoint::Address(address) => ask::connects(reachable(*address)).await,
        Endpoint::Unix { path, .. } => match ask::listens(path).await? {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        },
    }
}

/// Whether `/v2/` is answered as any registry answers it, who may want a token.
fn is_some_registry(answers: &io::Result<Option<Answer>>) -> bool {
    matches!(answers, Ok(Some(answer)) if answer.is_registry && matches!(answer.status, 200 | 401))
}

/// Whether this is what another registry answers to a request of `/`, for which others have a page. This proxy refuses it as one that it
/// does not support, unless it refuses every request of this client's at the moment.
fn is_another_registrys(answer: io::Result<Answer>) -> bool {
    let Ok(answer) = answer else { return false };
    let is_refused = matches!(answer.status, 403 | 429 | 500..);
    let is_ours = answer.json().is_some_and(|body| body["errors"][0]["code"] == "UNSUPPORTED");
    !is_refused && !is_ours
}

/// Whether the proxy answers at this address, in plain HTTP, if only by refusing this host.
pub(crate) async fn answers_at(address: SocketAddr) -> bool {
    let Ok(answer) = ask::get(reachable(address), "/").await else { return false };
    denial(&answer).is_some() || answer.is_registry && !is_another_registrys(Ok(answer))
}

/// `/status` of a proxy with an admin listener, which also tells of this image.
pub(super) async fn status_of(config: &Config, image: &str) -> Option<Value> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("image", image).finish();
    ask_status(reachable(config.admin()?), &format!("/status?{query}")).await
}

async fn ask_status(admin: SocketAddr, target: &str) -> Option<Value> {
    ask::get(admin, target).await.ok().filter(|answer| answer.status == 200)?.json()
}

/// Has the proxy listen at a new address before engines are sent there.
pub(super) fn first(facts: &Facts, parts: &mut [Examined]) {
    let findings = parts.iter_mut().flat_map(|part| &mut part.findings);
    for finding in findings.filter(|finding| facts.is_older() && finding.fix.by.is_some()) {
        finding.fix.command = format!("{RELOAD} && {}", finding.fix.command);
    }
}

/// Pure: what is wrong with it.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(Part::Proxy);
    closed::find(&facts.closed, &mut found);
    let (at, all) = (&facts.at, listed(&expected.names()));
    match &facts.answers {
        Ok(answer) => {
            if let Some(text) = answer.as_ref().and_then(|answer| strange(at, facts.is_other, answer)) {
                found.find(stranger(at, text, expected));
                return found;
            }
            found.runs = Some(true);
            if let Some(who) = answer.as_ref().and_then(denial) {
                found.unserve(expected.names(), "which refuses this host");
                found.find(Finding {
                    registries: Vec::new(),
                    code: Code::Refused,
                    file: expected.file.clone(),
                    text: format!("at {at} the proxy answers, and access refuses this host: {}", quoted(&who)),
                    why: format!(
                        "it answers 403 to the engines of this host, and pulls of {all} go to the source or fail"
                    ),
                    fix: in_settings(
                        expected,
                        "this host into access.allow, and out of access.deny",
                        "access.allow and access.deny, where the proxy's settings are",
                    ),
                });
            }
        }
        Err(cause) => {
            let (runs, finding) = down::unanswered(facts, cause, expected, &all);
            found.runs = runs;
            found.find(finding);
            return found;
        }
    }
    if let Some(finding) = facts.mirror.as_ref().and_then(|mirror| mirror.finding(facts, expected)) {
        found.unserve(expected.names(), "which does not answer at the address of --mirror");
        found.find(finding);
    }
    down::beside_socket(facts, expected).into_iter().for_each(|finding| found.find(finding));
    older::find(facts, &mut found);
    older::find_routes(facts, expected, &mut found);
    behind::find(facts, expected, &mut found);
    tokens(facts, expected, &mut found);
    refused(facts, expected, &mut found);
    limited(facts, expected, &mut found);
    found
}

/// What answers in the place of the proxy, if it is not that.
fn strange(at: &str, is_other: bool, answer: &Answer) -> Option<String> {
    let status = answer.status;
    if is_other {
        return Some(format!("at {at} another registry answers, and not this proxy"));
    }
    let is_proxys = denial(answer).is_some() || answer.is_registry && status < 500;
    (!is_proxys).then(|| format!("at {at} something else answers: {status} to GET /v2/, and not as a registry does"))
}

/// What to do about a sign-in that fails.
fn sign_in(facts: &Facts, expected: &Expected<'_>) -> Fix {
    let check = format!("acr-cache-proxy check --online{}", expected.settings);
    by_hand(if facts.older.is_some() { format!("{RESTART} && {check}") } else { check })
}

/// Whether it has a token for each registry, as far as its admin listener says it.
fn tokens(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let at = &facts.at;
    match (&facts.ready, facts.admin) {
        (Some(Ok(answer)), _) if answer.status == 200 => {
            if let Some(text) = serves_only_what_is_kept(answer) {
                found.find(Finding {
                    registries: Vec::new(),
                    code: Code::NotReady,
                    file: None,
                    text,
                    why: "what is not kept is answered by 502 or 503, and clients go to the source or fail".to_owned(),
                    fix: sign_in(facts, expected),
                });
            }
        }
        (Some(Ok(answer)), _) => {
            let body = answer.json();
            found.unserve(unready(body.as_ref(), expected), "which is not ready");
            let summary = body.and_then(|body| Some(body["summary"].as_str()?.to_owned()));
            let summary = quoted(&summary.unwrap_or_else(|| format!("/readyz answers {}", answer.status)));
            found.find(Finding {
                registries: Vec::new(),
                code: Code::NotReady,
                file: None,
                text: summary,
                why: "it answers 503 until it has a token, and clients go to the source or fail".to_owned(),
                fix: sign_in(facts, expected),
            });
        }
        (Some(Err(cause)), Some(admin)) => found.notes.push(format!(
            "the admin listener, {admin}, does not answer ({}): whether the proxy has its tokens is not known",
            told(cause)
        )),
        _ if facts.is_elsewhere => found.notes.push(format!(
            "it is asked at {at}, since none listens on this host: whether it has its tokens is known where it runs"
        )),
        _ => found.notes.push(format!(
            "without the setting admin nobody can say whether the proxy has its tokens: {}",
            expected.on_its_host(format!("acr-cache-proxy check --online{}", expected.settings))
        )),
    }
}

/// What this proxy says to a host that its `access` does not let in.
fn denial(answer: &Answer) -> Option<String> {
    let body = answer.json().filter(|_| answer.status == 403)?;
    let error = &body["errors"][0];
    let message = error["message"].as_str().filter(|message| message.contains("access."))?;
    (error["code"] == "DENIED").then(|| message.to_owned())
}

/// What `/readyz` says where the proxy is ready, and pulls of what is not kept fail all the same: it has no token, or the registry is
/// down.
fn serves_only_what_is_kept(answer: &Answer) -> Option<String> {
    let body = answer.json()?;
    let is_kept = body["upstreams"].as_array()?.iter().any(|one| one["serves"] == "kept");
    is_kept.then(|| quoted(body["summary"].as_str().unwrap_or("ready: only what is kept is served")))
}

/// The registries of which `/readyz` says that the proxy serves nothing; all of them, where it does not tell.
fn unready<'a>(body: Option<&Value>, expected: &Expected<'a>) -> Vec<&'a str> {
    let upstreams = body.and_then(|body| body["upstreams"].as_array()).into_iter().flatten();
    let domains: Vec<_> =
        upstreams.filter(|one| one["serves"] == "nothing").filter_map(|one| one["domain"].as_str()).collect();
    let routes = expected.routes.iter();
    let is_its = |domain: &str| domains.is_empty() || domains.contains(&domain);
    routes
        .filter(|route| is_its(route.destination.upstream.domain().authority()))
        .map(|route| route.source.registry())
        .collect()
}

/// A change of the proxy's settings, and what is said of it where their file is not known.
fn in_settings(expected: &Expected<'_>, change: &str, elsewhere: &str) -> Fix {
    match &expected.file {
        Some(file) => edit(file, &format!(" && acr-cache-proxy reload  # {change}")),
        None => by_hand(format!("acr-cache-proxy --help  # {elsewhere}")),
    }
}

/// What limits of a client refused in the last hour, before a route was looked for.
fn limited(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let all = facts.status.as_ref().and_then(|status| status["load"]["limited_last_hour"].as_object());
    for (limit, count) in all.into_iter().flatten() {
        let count = count.as_u64().unwrap_or_default();
        let (key, what) = match limit.as_str() {
            "connections_per_client" => ("limits.connections_per_client", "connection"),
            "concurrent_requests_per_client" => ("limits.concurrent_requests_per_client", "request"),
            "request_rate" => ("limits.requests_per_second_per_client", "request"),
            _ => continue,
        };
        if count == 0 {
            continue;
        }
        let change = format!("a higher {key}, if these are no attack");
        let (plural, were) = if count == 1 { ("", "was") } else { ("s", "were") };
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Refused,
            file: expected.file.clone(),
            text: format!("{count} {what}{plural} of clients {were} refused in the last hour by {key}"),
            why: "after such an answer an engine goes to the source, or the pull fails where the route is closed"
                .to_owned(),
            fix: in_settings(expected, &change, &change),
        });
    }
}

/// Another program has the proxy's place.
fn stranger(at: &str, text: String, expected: &Expected<'_>) -> Finding {
    Finding {
        registries: Vec::new(),
        code: Code::Stranger,
        file: None,
        text,
        why: format!("engines that ask there get nothing of use: {}", down::without_it(expected)),
        fix: by_hand(who_listens(at)),
    }
}

/// Shows the process that has the address.
fn who_listens(at: &str) -> String {
    match at.strip_prefix("unix:") {
        Some(path) => format!("ss -lxp src {}", shell_word(path)),
        None => format!("ss -ltnp 'sport = :{}'", at.rsplit(':').next().unwrap_or_default()),
    }
}

/// Routes whose requests were answered in the last hour by a status that sends clients to the source.
fn refused(facts: &Facts, expected: &Expected<'_>, found: &mut Examined) {
    let routes = facts.status.as_ref().and_then(|status| status["routes"].as_array());
    for route in routes.into_iter().flatten() {
        let count = route["refused_last_hour"].as_u64().unwrap_or_default();
        let name = ["route", "source"].into_iter().find_map(|key| route[key].as_str());
        let (Some(name), true) = (name, count > 0) else { continue };
        let name = quoted(name);
        // A proxy of another release may have others.
        let cause = route["most_frequent_cause"].as_str().map(|name| match Cause::parse(name) {
            Some(cause) => format!("because {}", cause.words()),
            None => format!("for {}", quoted(name)),
        });
        let mostly = if count == 1 { "" } else { "mostly " };
        let cause = cause.map(|cause| format!(", {mostly}{cause}")).unwrap_or_default();
        let requests = if count == 1 { "1 request".to_owned() } else { format!("{count} requests") };
        let were = if count == 1 { "was" } else { "were" };
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Refused,
            file: None,
            text: format!("{requests} for {name} {were} refused in the last hour{cause}"),
            why: "after such an answer an engine goes to the source, or the pull fails where the route is closed"
                .to_owned(),
            fix: by_hand(format!(
                "acr-cache-proxy check --online{}; journalctl --unit {UNIT} --since -1h | {FAILED_REQUESTS}",
                expected.settings
            )),
        });
    }
}

/// What it says, up to a bound.
fn quoted(said: &str) -> String {
    said.chars().take(MAX_SENTENCE).collect()
}

/// An error in lower case, without the system's number.
fn told(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        _ => cause.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests;
