//! `--pull`: each engine that runs pulls a small image, and the proxy's own count tells whether it was asked.

use std::time::{Duration, Instant};

use oci::image::Image;
use oci::route::DOCKER_HUB;
use serde_json::Value;

use super::ask;
use super::expected::by_hand;
use super::finding::{Code, Examined, Finding, Part};
use super::{containerd, dockerd, podman, proxy};
use crate::config::Config;
use crate::host::Host;

/// All pulls together. A registry that has to import an image answers its first pull within 30 s.
const LIMIT: Duration = Duration::from_secs(120);
/// What an engine says of a failure is quoted up to here.
const MAX_SAID: usize = 400;
/// Images that ctr pulls are kept apart from those of others.
const NAMESPACE: &str = "acr-cache-proxy-doctor";

/// Pulls, and adds what is found to the parts. `flags` have a command read the same settings.
pub(super) async fn pull(host: &Host, config: &Config, image: &Image, flags: &str, parts: &mut [Examined]) {
    let until = Instant::now() + LIMIT;
    let registry = image.registry().unwrap_or(DOCKER_HUB);
    let (separator, reference) = match (image.digest(), image.tag()) {
        (Some(digest), _) => ("@", digest),
        (None, tag) => (":", tag.unwrap_or("latest")),
    };
    let repository = image.repository();
    let repository = match repository.contains('/') || registry != DOCKER_HUB {
        true => repository.to_owned(),
        false => format!("library/{repository}"),
    };
    let name = format!("{registry}/{repository}");
    let whole = format!("{name}{separator}{reference}");
    for part in parts.iter_mut().filter(|part| part.runs != Some(false)) {
        let before = requests(config).await;
        let left = until.saturating_duration_since(Instant::now());
        let outcome = match part.part {
            Part::Dockerd => by_dockerd(host, &name, reference, left).await,
            // It serves dockerd, and a pull by ctr says nothing about those of dockerd.
            Part::Containerd if part.ways.is_empty() => continue,
            Part::Containerd => by_containerd(host, &whole, left).await,
            Part::Podman => run(host, "podman", &["podman", "pull", "--quiet", &whole], left).await,
            Part::Crio => by_crictl(host, podman::crio_socket(host).await, &whole, left).await,
            Part::Proxy | Part::Kubelet => continue,
            Part::Buildkitd | Part::K3s | Part::Rke2 => None,
        };
        let after = requests(config).await;
        let more = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        judge(part, &whole, registry, flags, outcome, more);
    }
}

/// How many requests of clients the proxy has had.
async fn requests(config: &Config) -> Option<u64> {
    proxy::status(config).await?["requests"]["total"].as_u64()
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

fn judge(
    part: &mut Examined,
    image: &str,
    registry: &str,
    flags: &str,
    outcome: Option<Result<(), String>>,
    requests: Option<u64>,
) {
    let name = part.part.name();
    let log = log_of(part.part, image);
    let finding = |text: String, why: &str, fix: String| Finding {
        code: Code::Pull,
        file: None,
        text,
        why: why.to_owned(),
        registries: vec![registry.to_owned()],
        fix: by_hand(fix),
    };
    match (outcome, requests) {
        (None, _) => part.notes.push(format!("{name} was not asked to pull {image}: nothing is here to ask it by")),
        (Some(Err(cause)), _) => {
            let why = "neither the proxy nor the source has given the image";
            part.find(finding(
                format!("a pull of {image} fails: {cause}"),
                why,
                format!("acr-cache-proxy check --online --image {image}{flags}; {log}"),
            ));
        }
        (Some(Ok(())), Some(0)) => {
            let why = "the image has come from somewhere else, so pulls go past the proxy";
            part.find(finding(format!("{image} was pulled, and the proxy was not asked"), why, log));
        }
        (Some(Ok(())), Some(_)) => part.notes.push(format!("{name} has pulled {image}, and the proxy was asked")),
        (Some(Ok(())), None) => part.notes.push(format!(
            "{name} has pulled {image}; whether the proxy was asked only its access log tells, because it has no admin listener"
        )),
    }
}

/// dockerd answers at once, and tells of a failure in the last line of the answer.
async fn by_dockerd(host: &Host, name: &str, reference: &str, limit: Duration) -> Option<Result<(), String>> {
    let socket = dockerd::socket(host).await?;
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("fromImage", name)
        .append_pair("tag", reference)
        .finish();
    let answer = match ask::post_unix(&socket, &format!("/images/create?{query}"), limit).await {
        Ok(answer) => answer,
        Err(cause) => return Some(Err(cause.to_string().to_lowercase())),
    };
    let lines = answer.body.split(|byte| *byte == b'\n').rev();
    let said = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let wrong = said.into_iter().find_map(|line| Some(line["error"].as_str().or(line["message"].as_str())?.to_owned()));
    Some(match wrong {
        Some(wrong) => Err(quoted(&wrong)),
        None if answer.status == 200 => Ok(()),
        None => Err(format!("dockerd answers {}", answer.status)),
    })
}

/// As a kubelet does where crictl is installed; else by ctr with the flags for that.
async fn by_containerd(host: &Host, image: &str, limit: Duration) -> Option<Result<(), String>> {
    if host.has_program(&["crictl"]) {
        return by_crictl(host, containerd::socket(host).ok(), image, limit).await;
    }
    let flags = containerd::ctr_flags(host).await?;
    let mut words = vec!["ctr", "--namespace", NAMESPACE, "images", "pull"];
    words.extend(flags.iter().map(String::as_str));
    words.push(image);
    let outcome = run(host, "ctr", &words, limit).await;
    if matches!(outcome, Some(Ok(()))) {
        let _ = run(host, "ctr", &["ctr", "--namespace", NAMESPACE, "images", "rm", image], limit).await;
    }
    outcome
}

async fn by_crictl(
    host: &Host,
    socket: Option<std::path::PathBuf>,
    image: &str,
    limit: Duration,
) -> Option<Result<(), String>> {
    let endpoint = format!("unix://{}", socket?.display());
    let words = ["crictl", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "pull", image];
    run(host, "crictl", &words, limit).await
}

/// `None` where the program is not here, or the host is another one's tree.
async fn run(host: &Host, program: &str, words: &[&str], limit: Duration) -> Option<Result<(), String>> {
    if !host.is_this() || !host.has_program(&[program]) {
        return None;
    }
    Some(match ask::run(words, limit).await {
        Ok((true, ..)) => Ok(()),
        Ok((false, _, said)) => Err(quoted(said.trim_end().lines().next_back().unwrap_or_default())),
        Err(cause) => Err(cause.to_string().to_lowercase()),
    })
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
