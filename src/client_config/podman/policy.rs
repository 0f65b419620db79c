//! `policy.json`, by which podman, buildah, skopeo and CRI-O accept an image or reject it: which files there are, and what each requires of
//! images of a source.

use oci::route::Route;
use serde_json::{Map, Value};

mod requirement;

use super::super::text;
use crate::config::{Destination, Routes};
use crate::host::{Host, Text};
pub(crate) use requirement::Requirements;
use requirement::requirements;

/// Of the system: the first of them that is there counts. Only a podman that came after 5 knows the second.
pub(crate) const FILES: [&str; 2] = ["/etc/containers/policy.json", "/usr/share/containers/policy.json"];
/// A user's own, below the home directory, which counts in place of the system's.
pub(crate) const USERS: &str = ".config/containers/policy.json";
/// CRI-O's settings, which may name a file of its own, and a directory of one for each namespace.
const CRIO: [&str; 2] = ["/etc/crio/crio.conf", "/etc/crio/crio.conf.d"];
const CRIO_POLICIES: &str = "/etc/crio/policies";

/// All that are on a host.
pub(crate) struct Files {
    /// The system's.
    pub system: Option<Text>,
    /// Of users who have one, with the home.
    pub users: Vec<(String, Text)>,
    /// CRI-O's own.
    crios: Vec<Text>,
}

impl Files {
    pub(crate) fn read(host: &Host) -> Self {
        let own = |home: String| host.read(&format!("{home}/{USERS}")).map(|text| (home, text));
        Self {
            system: FILES.iter().find_map(|path| host.read(path)),
            users: host.homes().into_iter().filter_map(own).collect(),
            crios: of_crio(host),
        }
    }

    /// Whether one of them requires of an image of a route the signature that clients find beside it. What cannot be read requires nothing:
    /// who cannot read its policy takes no image.
    pub(crate) fn want_sigstore(&self, routes: &Routes) -> bool {
        let texts = self.system.iter().chain(self.users.iter().map(|(_, text)| text)).chain(&self.crios);
        let mut policies = texts.filter_map(|text| Policy::parse(text.content.as_ref().ok()?).ok());
        policies.any(|policy| routes.iter().any(|route| policy.wants_sigstore(route)))
    }
}

fn of_crio(host: &Host) -> Vec<Text> {
    let [main, drop_ins] = CRIO;
    let settings = host.read(main).into_iter().chain(host.read_all(drop_ins, ""));
    let (mut files, mut directories) = (Vec::new(), vec![CRIO_POLICIES.to_owned()]);
    for table in settings.filter_map(|text| text::toml(&text.content.ok()?).ok()) {
        let Some(image) = text::table(&table, &["crio", "image"]) else { continue };
        files.extend(text::text(image, "signature_policy").and_then(|path| host.read(path)));
        directories.extend(text::text(image, "signature_policy_dir").map(str::to_owned));
    }
    files.extend(directories.iter().flat_map(|directory| host.read_all(directory, ".json")));
    files
}

/// What a file says of images of registries.
pub(crate) struct Policy {
    /// Without a scope that fits.
    default: Requirements,
    /// Of the transport `docker`.
    scopes: Vec<(String, Requirements)>,
}

impl Policy {
    /// The error says why the programs refuse the file; it quotes nothing of it.
    pub(crate) fn parse(content: &str) -> Result<Self, String> {
        let parsed = text::json(content)?;
        text::once(content)?;
        let all = parsed.as_object().map_or_else(Map::new, Clone::clone);
        if all.keys().any(|key| !["default", "transports"].contains(&key.as_str())) {
            return Err("it has another key than default and transports".to_owned());
        }
        let Some(default) = all.get("default") else { return Err("it has no default".to_owned()) };
        let default = requirements(default, "its default")?;
        let mut scopes = Vec::new();
        for (transport, all) in all.get("transports").and_then(Value::as_object).into_iter().flatten() {
            for (scope, list) in all.as_object().into_iter().flatten() {
                let required = requirements(list, "a scope of its transports")?;
                if transport == "docker" {
                    scopes.push((scope.clone(), required));
                }
            }
        }
        Ok(Self { default, scopes })
    }

    /// What is required of images of a source that no narrower scope is for: the narrowest scope that has all of it counts, one with a star
    /// after the others, and one without a name after those.
    pub(crate) fn of(&self, source: &str) -> Requirements {
        let fits = self.scopes.iter().filter(|(scope, _)| covers(scope, source));
        let fit = fits.max_by_key(|(scope, _)| (!scope.starts_with("*."), scope.len()));
        let unnamed = || self.scopes.iter().find(|(scope, _)| scope.is_empty());
        fit.or_else(unnamed).map_or(self.default, |(_, required)| *required)
    }

    /// Scopes for a part of a source.
    pub(crate) fn parts<'a>(&'a self, source: &'a str) -> impl Iterator<Item = (&'a str, Requirements)> {
        let is_part = move |scope: &str| scope.strip_prefix(source).is_some_and(|rest| rest.starts_with(['/', ':']));
        let parts = self.scopes.iter().filter(move |(scope, _)| is_part(scope));
        parts.map(|(scope, required)| (scope.as_str(), *required))
    }

    fn wants_sigstore(&self, route: &Route<Destination>) -> bool {
        let source = route.source.to_string();
        self.of(&source).sigstore || self.parts(&source).any(|(_, part)| part.sigstore)
    }
}

/// Whether a scope of this name, or an entry of `registries.conf` with this prefix, is one for a source.
pub(crate) fn covers(prefix: &str, source: &str) -> bool {
    match prefix.strip_prefix("*.") {
        Some(domain) => source
            .split('/')
            .next()
            .is_some_and(|host| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))),
        None => source.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_that_has_all_of_a_source_says_whether_it_is_rejected() {
        let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
        let reject = r#"[{"type": "reject"}]"#;
        for (default, scopes, source, rejects, others) in [
            (accept, String::new(), "docker.io", false, ""),
            (reject, String::new(), "docker.io", true, ""),
            (reject, format!(r#""docker.io": {accept}"#), "docker.io", false, ""),
            (reject, format!(r#""docker.io": {accept}"#), "docker.io/library", false, ""),
            (accept, format!(r#""*.io": {reject}"#), "docker.io", true, ""),
            (accept, format!(r#""*.io": {reject}, "docker.io": {accept}"#), "docker.io", false, ""),
            (accept, format!(r#""": {reject}"#), "docker.io", true, ""),
            (accept, format!(r#""ghcr.io": {reject}"#), "docker.io", false, ""),
            // An entry of registries.conf counts for each port, and a scope does not.
            (accept, format!(r#""localhost": {reject}"#), "localhost:5000", false, ""),
            (accept, format!(r#""docker.io/a": {reject}"#), "docker.io", false, "docker.io/a"),
            (reject, format!(r#""docker.io/a": {accept}"#), "docker.io", true, "docker.io/a"),
        ] {
            let text = format!(r#"{{"default": {default}, "transports": {{"docker": {{{scopes}}}}}}}"#);
            let policy = Policy::parse(&text).expect("a policy");
            assert_eq!(policy.of(source).rejects, rejects, "{text}");
            let parts = policy.parts(source).filter(|(_, part)| part.rejects != rejects);
            assert_eq!(parts.map(|(scope, _)| scope).collect::<Vec<_>>().join(" "), others, "{text}");
        }
    }

    #[test]
    fn a_policy_that_podman_cannot_read_is_told() {
        for (text, expected) in [
            ("{", "it is not JSON, line 1, column 1"),
            ("[]", "it is not a JSON object"),
            ("{}", "it has no default"),
            (r#"{"default": []}"#, "its default has no list of requirements"),
            (r#"{"default": [{"type": "reject"}], "comment": 1}"#, "it has another key than default and transports"),
            (
                r#"{"default": [{"type": "reject"}], "transports": {"docker": {"a": []}}}"#,
                "a scope of its transports has no list of requirements",
            ),
            (
                r#"{"default": [{"type": "reject"}], "transports": {"docker-daemon": {"": []}}}"#,
                "a scope of its transports has no list of requirements",
            ),
            (r#"{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}"#, "it has a key twice, line 1"),
            (
                "{\"default\": [{\"type\": \"reject\"}],\n\"transports\": {\"docker\": {\"a\": [{\"type\": \"reject\",\n\"type\": \"reject\"}]}}}",
                "it has a key twice, line 3",
            ),
            (r#"{"default": [{"type": "nope"}]}"#, "a requirement of its default is of no known type"),
        ] {
            assert_eq!(Policy::parse(text).err().as_deref(), Some(expected), "{text}");
        }
    }
}
