//! What `init` asks for, and the configuration that it makes of it.

use std::fmt::Write as _;
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use oci::route::{DOCKER_HUB, Source, is_docker_hubs_website};

use super::ask::{Conversation, Stop};
use crate::config::{Domain, parse_guid, parse_prefix};
use crate::shell::shell_word;

/// More rules than any host's engines pull by; a list without an end is somebody's mistake.
pub(super) const MAX_RULES: usize = 16;
/// With this at their ends, Azure shows the source and the target of a rule.
const ALL: &str = "/*";
/// What YAML reads as something else than a text.
const RESERVED: [&str; 9] = ["false", "n", "no", "null", "off", "on", "true", "y", "yes"];

/// A cache rule: `source/*` is cached as `prefix/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// A registry, or a path in it.
    pub source: String,
    /// Without a slash at its ends; perhaps empty.
    pub prefix: String,
}

impl Rule {
    /// The source of a rule that says nothing else.
    pub(crate) const HUB: &str = DOCKER_HUB;

    /// A source that none of the rules has yet, also as Azure shows it, with `/*` at its end. The error says what to use.
    pub(crate) fn parse_source(text: &str, rules: &[Self]) -> Result<String, String> {
        let source = Source::parse(text.strip_suffix(ALL).unwrap_or(text))?;
        if is_docker_hubs_website(source.registry()) {
            return Err(format!("{} is a website and no registry: Docker Hub's is {}", source.registry(), Self::HUB));
        }
        let source = source.to_string();
        if rules.len() >= MAX_RULES {
            return Err(format!("more than {MAX_RULES} rules: write the others into the configuration"));
        }
        if rules.iter().any(|rule| rule.source == source) {
            return Err(format!("{source} has a rule already: name another source"));
        }
        Ok(source)
    }

    /// A rule's target, also as Azure shows it, with `/*` at its end. The error says what to use.
    pub(crate) fn parse_prefix(text: &str) -> Result<String, String> {
        let path = match text {
            // As a target without a path is written into the configuration.
            "*" => "",
            text => text.strip_suffix(ALL).filter(|path| !path.is_empty()).unwrap_or(text),
        };
        parse_prefix(path).map(|prefix| prefix.as_str().to_owned())
    }

    /// One or more, by answers.
    pub(super) fn ask_all<R: BufRead, W: Write>(talk: &mut Conversation<R, W>) -> Result<Vec<Self>, Stop> {
        let mut rules = Vec::new();
        loop {
            let (question, default) = match rules.as_slice() {
                [] => (format!("The registry whose images its cache rule is for [{}]: ", Self::HUB), Some(Self::HUB)),
                _ => ("The registry of another cache rule [no more]: ".to_owned(), None),
            };
            let source = talk.ask(&question, |answer| match (answer, default) {
                ("", None) => Ok(None),
                // Nobody has a registry of such a name, and who is asked for one more says no.
                (no, None) if ["n", "no"].contains(&no.to_ascii_lowercase().as_str()) => Ok(None),
                ("", Some(default)) => Self::parse_source(default, &rules).map(Some),
                (answer, _) => Self::parse_source(answer, &rules).map(Some),
            })?;
            let Some(source) = source else { return Ok(rules) };
            let question = format!("The target of the rule {source}/*, such as hub [none]: ");
            let prefix = talk.ask(&question, Self::parse_prefix)?;
            rules.push(Self { source, prefix });
        }
    }

    fn targets(&self) -> String {
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        format!("{}/* => {prefix}*", self.source)
    }
}

/// Everything that goes into the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The login server.
    pub registry: String,
    /// One or more.
    pub rules: Vec<Rule>,
    /// Of a user-assigned managed identity.
    pub client_id: Option<String>,
    /// Where the proxy listens for clients.
    pub listen: SocketAddr,
    /// Where it answers doctor.
    pub admin: SocketAddr,
}

impl Settings {
    /// Loopback, which no other host reaches.
    pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
    pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

    /// A login server. The error says what to use.
    pub(crate) fn parse_registry(text: &str) -> Result<String, String> {
        let domain = Domain::parse(text)?;
        if !domain.host().contains(['.', ':']) {
            return Err(format!("{text:?} has no dot: use the login server, such as {}.azurecr.io", domain.host()));
        }
        Ok(domain.authority().to_owned())
    }

    /// The client id of an identity. The error says what to use.
    pub(crate) fn parse_client_id(text: &str) -> Result<String, String> {
        parse_guid(text)
    }

    /// The flags that say the same, as a shell takes them.
    pub(super) fn to_flags(&self) -> String {
        let rules = self.rules.iter().flat_map(|rule| [("source", &rule.source), ("prefix", &rule.prefix)]);
        let id = self.client_id.iter().map(|id| ("client-id", id));
        let flags = std::iter::once(("registry", &self.registry)).chain(rules).chain(id);
        let listeners = [("listen-address", self.listen, Self::LISTEN), ("admin-address", self.admin, Self::ADMIN)];
        let listeners = listeners.into_iter().filter(|(_, address, default)| address != default);
        let listeners = listeners.map(|(name, address, _)| format!(" --{name} {}", shell_word(&address.to_string())));
        flags.map(|(name, text)| format!(" --{name} {}", shell_word(text))).chain(listeners).collect()
    }

    /// The file, with comments for whoever edits it.
    pub(super) fn to_yaml(&self) -> String {
        let mut text = "\
# yaml-language-server: $schema=/usr/share/acr-cache-proxy/config.schema.json
# Written by acr-cache-proxy init. Every setting is in the manual page acr-cache-proxy.yaml(5). After a change:
#   acr-cache-proxy check --config /etc/acr-cache-proxy/config.yaml    says what is wrong with it
#   systemctl reload acr-cache-proxy                                   makes it count

"
        .to_owned();
        let others = if self.listen.ip().is_loopback() {
            "It is on loopback, which no other host reaches.".to_owned()
        } else {
            format!(
                "Every host that reaches {}\n# pulls by it, too, because clients are not authenticated; access can name those that may.",
                reached(self.listen)
            )
        };
        let _ =
            writeln!(text, "# Where the engines of this host pull from. {others}\nlisten: {}\n", address(self.listen));
        match self.rules.as_slice() {
            [rule] if rule.source == Rule::HUB => {
                let _ = write!(
                    text,
                    "# The registry, and the target of its cache rule: {}\nupstream:\n  domain: {}\n  prefix: {}\n",
                    rule.targets(),
                    scalar(&self.registry),
                    scalar(&rule.prefix)
                );
            }
            rules => {
                text += "# The cache rules of the registry. The longest source wins.\nroutes:\n";
                for rule in rules {
                    let _ = write!(
                        text,
                        "  # {}\n  - source: {}\n    domain: {}\n    prefix: {}\n",
                        rule.targets(),
                        scalar(&rule.source),
                        scalar(&self.registry),
                        scalar(&rule.prefix)
                    );
                }
            }
        }
        text += "\n# Who signs in to the registry. ";
        match &self.client_id {
            Some(id) => {
                let _ = write!(
                    text,
                    "Without this it is the first identity that this host has.\nidentity:\n  kind: managed_identity\n  client_id: {}\n",
                    scalar(id)
                );
            }
            None => {
                text += "\
By default it is the first that this host has: an application of the variables in
# /etc/acr-cache-proxy/environment, or the machine's managed identity. One of several managed identities is named so:
#identity:
#  kind: managed_identity
#  client_id: 00000000-0000-0000-0000-000000000000
";
            }
        }
        let others = if self.admin.ip().is_loopback() {
            "They are on loopback, which no other host reaches.".to_owned()
        } else {
            format!("Every host that reaches {} gets them.", reached(self.admin))
        };
        let _ = write!(
            text,
            "\n# Readiness, metrics and the status page. {others}\n# doctor asks here whether the proxy has its tokens, and what it has refused.\nadmin: {}\n",
            address(self.admin)
        );
        text
    }
}

/// By which a listener that is not on loopback is reached.
fn reached(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { "an address of this one".to_owned() } else { address.ip().to_string() }
}

/// An IPv6 address begins with a bracket, which is a list of YAML's.
fn address(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("\"{address}\"") } else { address.to_string() }
}

/// A text as YAML reads it back: plain where that cannot mean anything else.
fn scalar(text: &str) -> String {
    // A JSON string is a YAML one.
    if is_plain(text) && !RESERVED.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// A word that is nothing else to YAML, but for the reserved ones.
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Flags};

    fn settings(registry: &str, rules: &[(&str, &str)], client_id: Option<&str>) -> Settings {
        let mut parsed = Vec::new();
        for (source, prefix) in rules {
            let source = Rule::parse_source(source, &parsed).expect("a source");
            let prefix = Rule::parse_prefix(prefix).expect("a prefix");
            parsed.push(Rule { source, prefix });
        }
        let registry = Settings::parse_registry(registry).expect("a registry");
        let client_id = client_id.map(|id| Settings::parse_client_id(id).expect("an id"));
        Settings { registry, rules: parsed, client_id, listen: Settings::LISTEN, admin: Settings::ADMIN }
    }

    fn load(text: &str) -> Config {
        Config::load(&Flags::default().with_text(Path::new("config.yaml"), text))
            .unwrap_or_else(|wrong| panic!("{wrong}{text}"))
    }

    #[test]
    fn the_proxy_reads_back_what_was_answered() {
        let id = "11111111-2222-4333-8444-555555555555";
        for (registry, rules, client_id) in [
            ("example.azurecr.io", &[("docker.io", "hub")][..], None),
            ("example.azurecr.io:5000", &[("docker.io", "")], Some(id)),
            ("10.0.0.5", &[("ghcr.io", "ghcr/all")], None),
            ("[fd00::5]:5000", &[("docker.io/library", "123"), ("registry.example:5000", "true")], Some(id)),
            (
                "123.azurecr.io",
                &[("docker.io", "null"), ("ghcr.io", "no"), ("quay.io", "1_0"), ("mcr.microsoft.com", "0x1f")],
                None,
            ),
        ] {
            let settings = settings(registry, rules, client_id);
            let text = settings.to_yaml();
            let config = load(&text);
            let [upstream] = config.upstreams() else { panic!("one registry: {text}") };
            assert_eq!(upstream.domain().authority(), registry, "{text}");
            let told = client_id.map_or(("default chain", None), |id| ("managed identity", Some(id)));
            assert_eq!(upstream.identity().kind().told(), told, "{text}");
            let mut found: Vec<_> = config
                .routes()
                .iter()
                .map(|route| (route.source.to_string(), route.prefix.as_str().to_owned()))
                .collect();
            let mut expected: Vec<_> =
                rules.iter().map(|(source, prefix)| ((*source).to_owned(), (*prefix).to_owned())).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }

    /// Of 0.0.0.0 it said "for this host alone".
    #[test]
    fn who_reaches_a_listener_is_told_as_it_is_for_its_address() {
        for (address, listen, admin) in [
            ("127.0.0.1", "It is on loopback, which no other host reaches.", "They are on loopback, which no other"),
            ("[::1]", "It is on loopback, which no other host reaches.", "They are on loopback, which no other"),
            (
                "0.0.0.0",
                "Every host that reaches an address of this one\n# pulls",
                "reaches an address of this one gets them",
            ),
            (
                "[::]",
                "Every host that reaches an address of this one\n# pulls",
                "reaches an address of this one gets them",
            ),
            (
                "10.0.0.5",
                "Every host that reaches 10.0.0.5\n# pulls by it",
                "Every host that reaches 10.0.0.5 gets them",
            ),
        ] {
            let at = |port| format!("{address}:{port}").parse().expect("an address");
            let settings = Settings {
                listen: at(8080),
                admin: at(8081),
                ..settings("example.azurecr.io", &[("docker.io", "hub")], None)
            };
            let text = settings.to_yaml();
            assert!(text.contains(listen) && text.contains(admin), "{text}");
            let is_loopback = settings.listen.ip().is_loopback();
            assert_eq!(text.matches("on loopback").count(), if is_loopback { 2 } else { 0 }, "{text}");
            assert_eq!(load(&text).admin(), Some(settings.admin), "{text}");
        }
    }

    /// Who takes the `#` away gets what the comment promises.
    #[test]
    fn what_is_commented_out_is_right_too() {
        let text = settings("example.azurecr.io", &[("docker.io", "hub")], None).to_yaml();
        let all: String = text
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| !rest.starts_with(' ') || rest.starts_with("  k") || rest.starts_with("  c"))
                    .unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config = load(&all);
        assert!(config.admin().is_some(), "{all}");
        assert_eq!(config.upstreams()[0].identity().kind().told().0, "managed identity", "{all}");
    }

    #[test]
    fn a_wrong_answer_is_told_what_would_be_right() {
        let rules = [Rule { source: "docker.io".to_owned(), prefix: "hub".to_owned() }];
        for (wrong, says) in [
            (Settings::parse_registry("example"), "use the login server, such as example.azurecr.io"),
            (Settings::parse_registry("https://example.azurecr.io"), "without https://"),
            (Settings::parse_registry("example.azurecr.io/hub"), "goes into the prefix"),
            (Settings::parse_registry(""), "is not a host name"),
            (Rule::parse_source("docker.io", &rules), "has a rule already"),
            (Rule::parse_source("Docker Hub", &rules), "is not a source"),
            (Rule::parse_source("hub.docker.com", &[]), "Docker Hub's is docker.io"),
            // Its settings were written, and then warned of.
            (Rule::parse_source("registry.hub.docker.com", &[]), "Docker Hub's is docker.io"),
            (Rule::parse_prefix("/hub"), "is not a repository path"),
            (Settings::parse_client_id("a\u{1b}b"), ""),
            (Settings::parse_client_id("pull-identity"), "it is not a GUID: use the id"),
        ] {
            let sentence = wrong.expect_err(says);
            assert!(sentence.contains(says) && !sentence.contains('\u{1b}'), "{sentence}");
        }
        assert_eq!(Rule::parse_source("index.docker.io", &[]).as_deref(), Ok("docker.io"), "another name of it");
    }

    /// `docker.io/*` was refused, though Azure, the prompt and the documentation write a rule so.
    #[test]
    fn a_rule_is_taken_as_azure_shows_it() {
        for (source, parsed) in [("docker.io/*", "docker.io"), ("docker.io/library/*", "docker.io/library")] {
            assert_eq!(Rule::parse_source(source, &[]).as_deref(), Ok(parsed));
        }
        for (prefix, parsed) in [("hub/*", "hub"), ("hub", "hub"), ("a/b/*", "a/b"), ("*", ""), ("", "")] {
            assert_eq!(Rule::parse_prefix(prefix).as_deref(), Ok(parsed));
        }
        for text in ["hub/", "/*", "hub/**", "Hub"] {
            assert!(Rule::parse_prefix(text).is_err() && Rule::parse_source(text, &[]).is_err(), "{text}");
        }
    }
}
