//! `--pull`: each engine that runs pulls a small image, and the proxy's own counts tell whether it was asked for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::image::Image;
use oci::name::Name;
use oci::route::OnFailure;
use serde_json::Value;

use super::ask;
use super::asked::{self, Asked};
use super::expected::by_hand;
use super::finding::{Code, Examined, Finding, Part, Way};
use super::report::Report;
use super::{containerd, dockerd, podman};
use crate::activation::Sockets;
use crate::config::Config;
use crate::host::Host;
use failure::{Failure, is_by_policy};

mod failure;

/// The pull of one engine. A registry that has to import an image answers its first pull within 30 s. One engine that hangs takes no time
/// of the next.
const LIMIT: Duration = Duration::from_secs(60);
/// What an engine says of a failure is quoted up to here.
const MAX_SAID: usize = 400;
/// Images that ctr pulls are kept apart from those of others.
const NAMESPACE: &str = "acr-cache-proxy-doctor";

/// What came of an engine's pull.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Pulled,
    /// In the engine's words.
    Failed(String),
    /// It has not ended within [`LIMIT`].
    Unended,
    /// There is nothing here to ask the engine by.
    Unasked,
    /// Whoever runs this may not ask the engine.
    Denied,
}

/// An image as engines are asked for it.
struct Wanted {
    /// `docker.io`
    registry: String,
    /// `library/hello-world`
    repository: String,
    /// `docker.io/library/hello-world`
    name: String,
    /// Tag or digest.
    reference: String,
    /// `docker.io/library/hello-world:latest`
    whole: String,
    /// Flags that have a command read the same settings.
    settings: String,
    /// Its route is, so engines that can be told ask nobody but the proxy.
    is_closed: bool,
    /// Why the proxy serves nothing of the registry to this host, a clause: that is a finding already.
    unserved: Option<&'static str>,
}

impl Wanted {
    fn new(image: &Image, settings: &str) -> Self {
        let separator = if image.digest().is_some() { '@' } else { ':' };
        let ((registry, repository), reference) = (image.in_full(), image.reference());
        let name = format!("{registry}/{repository}");
        let whole = format!("{name}{separator}{reference}");
        Self {
            registry: registry.to_owned(),
            repository,
            name,
            reference: reference.to_owned(),
            whole,
            settings: settings.to_owned(),
            is_closed: false,
            unserved: None,
        }
    }

    fn is_by_digest(&self) -> bool {
        self.reference.contains(':')
    }

    /// As the proxy is asked for its count.
    fn counted(&self) -> (&str, &str, &str) {
        (&self.registry, &self.repository, &self.whole)
    }
}

/// Pulls, and adds what is found to the parts. `counts_all` is whether engines come to the proxy of this host and to no other instance;
/// `settings` are flags that have a command read the same settings.
pub(super) async fn pull(
    host: &Host,
    config: &Config,
    (image, counts_all): (&Image, bool),
    settings: &str,
    report: &mut Report,
) {
    let mut wanted = Wanted::new(image, settings);
    let on_failure = Name::parse(&wanted.repository).and_then(|name| {
        let choice = config.routes().choose_name(name, Some(&wanted.registry), None).ok()?;
        Some(choice.route.destination.on_failure)
    });
    wanted.is_closed = on_failure == Some(OnFailure::Closed);
    if on_failure.is_none() {
        let sources: Vec<_> = config.routes().iter().map(|route| route.source.to_string()).collect();
        report.notes.push(format!(
            "{} was not pulled: the proxy has no route for it, so engines have to pull it past the proxy; it has routes for {}",
            wanted.whole,
            sources.join(", ")
        ));
        return;
    }
    wanted.unserved = report.parts.iter().find_map(|part| part.unserved.get(&wanted.registry).copied());
    let proxy_serves = report.parts.iter().any(|part| part.part == Part::Proxy && part.runs == Some(true));
    for part in report.parts.iter_mut().filter(|part| part.runs != Some(false)) {
        let is_asked = match part.part {
            Part::Proxy | Part::Kubelet => false,
            // It serves dockerd, and a pull by ctr says nothing about those of dockerd.
            Part::Containerd => !part.ways.is_empty(),
            _ => true,
        };
        if !is_asked {
            continue;
        }
        // ctr reads the files itself, whatever containerd has loaded of them.
        let is_ctrs = part.part == Part::Containerd && !host.has_program(&["crictl"]);
        let is_loaded =
            |finding: &Finding| !matches!(finding.code, Code::NotLoaded | Code::NotEnabled | Code::Directory);
        if is_ctrs && !part.findings.iter().all(is_loaded) {
            part.notes.push(format!(
                "containerd was not asked to pull {}: it has not loaded what ctr would go by, and without crictl nothing else is here to ask it by",
                wanted.whole
            ));
            continue;
        }
        let (registry, repository, whole) = wanted.counted();
        let before = match proxy_serves {
            true => asked::count(config, registry, repository, whole).await,
            // At its address systemd may listen, and start it.
            false => Err("it does not run"),
        };
        let outcome = by_engine(host, part.part, &wanted).await;
        let asked = match outcome {
            Outcome::Pulled | Outcome::Failed(_) if proxy_serves => {
                asked::since(config, wanted.counted(), &before, wanted.is_by_digest()).await
            }
            _ => Asked::Not,
        };
        let asked = match asked {
            Asked::Not | Asked::NotServed if proxy_serves && !counts_all => {
                Asked::Unknown("another instance may have been asked at the address of --mirror")
            }
            known => known,
        };
        let by = if is_ctrs { "ctr, by the files that containerd reads," } else { part.part.name() };
        judge(part, by, &wanted, (outcome, asked), proxy_serves);
    }
}

/// Has one engine pull.
async fn by_engine(host: &Host, part: Part, wanted: &Wanted) -> Outcome {
    let pull = async {
        match part {
            Part::Dockerd => by_dockerd(host, wanted).await,
            Part::Containerd => by_containerd(host, &wanted.whole).await,
            Part::Podman => run(host, "podman", &["podman", "pull", "--quiet", &wanted.whole]).await,
            Part::Crio => by_crictl(host, podman::crio_socket(host).await, &wanted.whole).await,
            Part::Proxy | Part::Kubelet | Part::Buildkitd | Part::K3s | Part::Rke2 => Outcome::Unasked,
        }
    };
    tokio::time::timeout(LIMIT, pull).await.unwrap_or(Outcome::Unended)
}

/// Where an engine says why it has not asked a mirror.
fn log_of(part: Part, image: &str) -> String {
    match part {
        Part::Dockerd => "journalctl --unit docker --since -5min".to_owned(),
        Part::Crio => "journalctl --unit crio --since -5min".to_owned(),
        Part::Containerd => "journalctl --unit containerd --since -5min".to_owned(),
        _ => format!("podman pull --log-level debug {image}"),
    }
}

/// Pure: what the pull of one engine tells.
fn judge(part: &mut Examined, by: &str, wanted: &Wanted, came: (Outcome, Asked), proxy_serves: bool) {
    const PAST: &str = "the image has come from somewhere else, so pulls go past the proxy";
    let (name, image) = (part.part.name(), &wanted.whole);
    let log = log_of(part.part, image);
    let check = format!("acr-cache-proxy check --online --image {image}{}; {log}", wanted.settings);
    let leads_past = |finding: &Finding| {
        finding.code == Code::NotClosed && finding.registries.iter().all(|name| *name == wanted.registry)
    };
    let asks_nobody_else = wanted.is_closed
        && part.ways.get(&wanted.registry) == Some(&Way::Proxy)
        && !part.never_closed.contains(&wanted.registry)
        && !part.findings.iter().any(leads_past);
    let is_past = part.ways.get(&wanted.registry) == Some(&Way::Source);
    // The proxy was asked, or may have been, and has not given the image.
    let fix = match &came {
        (Outcome::Failed(cause), _) if is_by_policy(cause) => log,
        (Outcome::Failed(_), Asked::Not) if proxy_serves && wanted.unserved.is_none() => log,
        (Outcome::Failed(_), _) | (_, Asked::Refused(_)) => check,
        _ => log,
    };
    let (text, why) = match came {
        (Outcome::Unasked, _) => {
            part.notes.push(format!("{name} was not asked to pull {image}: nothing is here to ask it by"));
            return;
        }
        (Outcome::Denied, _) => {
            part.notes.push(format!("{name} was not asked to pull {image}: permission denied: run doctor as root"));
            return;
        }
        (Outcome::Pulled, Asked::Served) => {
            part.notes.push(format!("{by} has pulled {image}, and the proxy was asked for it"));
            return;
        }
        (Outcome::Pulled, Asked::Unknown(why)) => {
            part.notes.push(format!(
                "{by} has pulled {image}; whether the proxy was asked for it only the proxy's access log tells, because {why}"
            ));
            return;
        }
        // So it was said already. A finding that explains it has the command.
        (Outcome::Pulled, Asked::Not) if is_past => {
            part.notes
                .push(format!("{by} has pulled {image} from the source, as it does with all of {}", wanted.registry));
            return;
        }
        // The proxy counts no requests that it does not let in.
        (Outcome::Pulled, Asked::Not) if let Some(why) = wanted.unserved => {
            part.notes.push(format!("{by} has pulled {image} from the source, in place of the proxy, {why}"));
            return;
        }
        (Outcome::Unended, _) => (
            format!("a pull of {image} has not ended within {} s", LIMIT.as_secs()),
            "the engine hangs, or waits for whoever it asks; what it waits for, its own log tells".to_owned(),
        ),
        (Outcome::Failed(cause), asked) => {
            let asks_source = !asks_nobody_else;
            let failure = Failure {
                cause: &cause,
                asked,
                asks_source,
                is_past,
                is_counted: proxy_serves && wanted.unserved.is_none(),
            };
            (format!("a pull of {image} fails: {cause}"), failure.why())
        }
        (Outcome::Pulled, Asked::Refused(said)) => (
            format!("{image} was pulled, and the proxy has answered {}", quoted(&said)),
            "after such an answer an engine goes to the source, so what it has pulled came from there".to_owned(),
        ),
        (Outcome::Pulled, _) if !proxy_serves => (
            format!("{image} was pulled, and the proxy does not answer"),
            "while it does not answer, the images come from the source".to_owned(),
        ),
        (Outcome::Pulled, Asked::Not) => (format!("{image} was pulled, and the proxy was not asked"), PAST.to_owned()),
        (Outcome::Pulled, Asked::NotServed) => (
            format!("{image} was pulled, and the proxy, which was asked for other things meanwhile, has not served it"),
            PAST.to_owned(),
        ),
    };
    part.find(Finding {
        code: Code::Pull,
        file: None,
        text,
        why,
        registries: vec![wanted.registry.clone()],
        fix: by_hand(fix),
    });
}

/// dockerd answers at once, and tells of a failure in the last line of the answer.
async fn by_dockerd(host: &Host, wanted: &Wanted) -> Outcome {
    let Some(socket) = dockerd::socket(host, &Sockets::look(host).await).await else { return Outcome::Unasked };
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("fromImage", &wanted.name)
        .append_pair("tag", &wanted.reference)
        .finish();
    let answer = match ask::post_unix(&socket, &format!("/images/create?{query}"), LIMIT).await {
        Ok(answer) => answer,
        Err(cause) => return failed(&cause),
    };
    let lines = answer.body.split(|byte| *byte == b'\n').rev();
    let said = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let wrong = said.into_iter().find_map(|line| Some(line["error"].as_str().or(line["message"].as_str())?.to_owned()));
    match wrong {
        Some(wrong) => Outcome::Failed(quoted(&wrong)),
        None if answer.status == 200 => Outcome::Pulled,
        None => Outcome::Failed(format!("dockerd answers {}", answer.status)),
    }
}

/// As a kubelet does where crictl is installed; else by ctr with the flags for that.
async fn by_containerd(host: &Host, image: &str) -> Outcome {
    if host.has_program(&["crictl"]) {
        return by_crictl(host, containerd::socket(host).ok(), image).await;
    }
    let Ok(socket) = containerd::socket(host) else { return Outcome::Unasked };
    if is_denied(&socket).await {
        return Outcome::Denied;
    }
    let Some(flags) = containerd::ctr_flags(host).await else { return Outcome::Unasked };
    let address = socket.display().to_string();
    let ctr = ["ctr", "--address", &address, "--namespace", NAMESPACE, "images"];
    let mut words = [&ctr[..], &["pull"]].concat();
    words.extend(flags.iter().map(String::as_str));
    words.push(image);
    let outcome = run(host, "ctr", &words).await;
    if outcome == Outcome::Pulled {
        let _ = run(host, "ctr", &[&ctr[..], &["rm", image]].concat()).await;
    }
    outcome
}

async fn by_crictl(host: &Host, socket: Option<PathBuf>, image: &str) -> Outcome {
    let Some(socket) = socket else { return Outcome::Unasked };
    if is_denied(&socket).await {
        return Outcome::Denied;
    }
    let endpoint = format!("unix://{}", socket.display());
    let words = ["crictl", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "pull", image];
    run(host, "crictl", &words).await
}

/// By a program, which can ask nobody for the tree of another host.
async fn run(host: &Host, program: &str, words: &[&str]) -> Outcome {
    if !host.is_this() || !host.has_program(&[program]) {
        return Outcome::Unasked;
    }
    match ask::run(words, LIMIT).await {
        Ok((true, ..)) => Outcome::Pulled,
        Ok((false, _, said)) => Outcome::Failed(quoted(said.trim_end().lines().next_back().unwrap_or_default())),
        Err(cause) => failed(&cause),
    }
}

/// Whether this user may not ask an engine. Its programs say so in a sentence among others.
async fn is_denied(socket: &Path) -> bool {
    ask::listens(socket).await.is_err_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

fn failed(cause: &io::Error) -> Outcome {
    match cause.kind() {
        io::ErrorKind::TimedOut => Outcome::Unended,
        io::ErrorKind::PermissionDenied => Outcome::Denied,
        _ => Outcome::Failed(cause.to_string().to_lowercase()),
    }
}

/// What an engine says, in one line, without the query of an address, which may be a signature.
fn quoted(said: &str) -> String {
    let (mut text, mut is_query) = (String::new(), false);
    for c in said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SAID) {
        is_query = is_query && !c.is_whitespace() && c != '"';
        if !is_query {
            text.push(c);
        }
        is_query |= c == '?';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two minutes for all of them the first took all.
    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_takes_no_time_of_the_next() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("run")).expect("made");
        // It is stopped: the kernel takes connections for it.
        let _hangs = std::os::unix::net::UnixListener::bind(root.path().join("run/docker.sock")).expect("a socket");
        let host = Host::new(root.path().to_owned());
        let wanted = Wanted::new(&Image::parse("hello-world").expect("an image"), "");
        for _ in 0..2 {
            let start = tokio::time::Instant::now();
            assert_eq!(by_engine(&host, Part::Dockerd, &wanted).await, Outcome::Unended);
            assert_eq!(start.elapsed().as_secs(), LIMIT.as_secs());
        }
        assert_eq!(by_engine(&host, Part::Crio, &wanted).await, Outcome::Unasked);
    }

    #[test]
    fn what_came_of_a_pull_is_a_finding_only_where_the_image_has_not_come_through_the_proxy() {
        let wanted = Wanted::new(&Image::parse("hello-world").expect("an image"), "");
        let refused = || Asked::Refused("503, no token".to_owned());
        let failed = || Outcome::Failed("no such image".to_owned());
        for (outcome, asked, proxy_serves, text) in [
            (Outcome::Pulled, Asked::Served, true, None),
            (Outcome::Pulled, Asked::Unknown("it has no admin listener"), true, None),
            (Outcome::Denied, Asked::Not, true, None),
            (Outcome::Unasked, Asked::Not, true, None),
            (Outcome::Pulled, Asked::Not, true, Some("was pulled, and the proxy was not asked")),
            (Outcome::Pulled, Asked::NotServed, true, Some("has not served it")),
            (Outcome::Pulled, refused(), true, Some("was pulled, and the proxy has answered 503, no token")),
            (Outcome::Pulled, Asked::Not, false, Some("was pulled, and the proxy does not answer")),
            (failed(), Asked::Not, true, Some("fails: no such image")),
            (failed(), refused(), true, Some("fails: no such image")),
            (Outcome::Unended, Asked::Not, true, Some("has not ended within 60 s")),
        ] {
            let mut part = Examined::new(Part::Dockerd);
            judge(&mut part, "dockerd", &wanted, (outcome.clone(), asked), proxy_serves);
            let found = part.findings.first().map(|finding| finding.text.clone());
            assert_eq!((found.is_some(), part.notes.is_empty()), (text.is_some(), text.is_some()), "{outcome:?}");
            assert!(found.as_deref().unwrap_or_default().ends_with(text.unwrap_or_default()), "{found:?}");
        }
    }

    /// It was a finding, of a dockerd that mirrors Docker Hub alone.
    #[test]
    fn a_registry_that_an_engine_is_known_to_pull_past_the_proxy_is_no_finding_again() {
        let wanted = Wanted::new(&Image::parse("quay.io/org/app:1").expect("an image"), "");
        for (ways, notes) in [(&[("quay.io", Way::Source)][..], 1), (&[("docker.io", Way::Source)], 0), (&[], 0)] {
            let mut part = Examined::new(Part::Dockerd);
            part.ways.extend(ways.iter().map(|(name, way)| ((*name).to_owned(), *way)));
            judge(&mut part, "dockerd", &wanted, (Outcome::Pulled, Asked::Not), true);
            assert_eq!((part.notes.len(), part.findings.len()), (notes, 1 - notes), "{ways:?}");
        }
    }

    /// Each engine had a second finding, whose command told nothing of the cause, which the first one had.
    #[test]
    fn a_pull_past_the_proxy_whose_cause_is_a_finding_is_no_finding_again() {
        let wanted = Wanted::new(&Image::parse("hello-world").expect("an image"), "");
        let refused = Wanted { unserved: Some("which refuses this host"), ..wanted };
        let wanted = Wanted::new(&Image::parse("hello-world").expect("an image"), "");
        for (wanted, way, says) in [
            (&refused, Way::Proxy, "from the source, in place of the proxy, which refuses this host"),
            (&wanted, Way::Source, "from the source, as it does with all of docker.io"),
        ] {
            let mut part = Examined::new(Part::Containerd);
            part.ways.insert("docker.io".to_owned(), way);
            part.find(Finding {
                code: Code::NoMirror,
                file: None,
                text: "there is no hosts.toml".to_owned(),
                why: String::new(),
                registries: vec!["docker.io".to_owned()],
                fix: by_hand("write"),
            });
            judge(&mut part, "containerd", wanted, (Outcome::Pulled, Asked::Not), true);
            assert_eq!(part.findings.len(), 1, "{part:?}");
            assert!(part.notes[0].ends_with(says), "{part:?}");
        }
    }

    #[test]
    fn an_image_is_named_whole() {
        for (text, whole) in [
            ("hello-world", "docker.io/library/hello-world:latest"),
            ("ghcr.io/org/app:2", "ghcr.io/org/app:2"),
            ("quay.io/app", "quay.io/app:latest"),
        ] {
            assert_eq!(Wanted::new(&Image::parse(text).expect("an image"), "").whole, whole);
        }
    }

    #[test]
    fn the_query_of_an_address_is_not_shown() {
        for (said, expected) in [
            ("no such image", "no such image"),
            (
                r#"Get "https://a.blob.core.windows.net/x?sig=secret&se=1": refused"#,
                r#"Get "https://a.blob.core.windows.net/x?": refused"#,
            ),
            ("a?b c?d\ne", "a? c? e"),
        ] {
            assert_eq!(quoted(said), expected);
        }
    }
}
