//! What a doctor says: a line for each part of the host, the findings with their numbers, one line that sums it up.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use oci::printable::{bounded, line};
use serde_json::{Value, json};

use super::finding::{Code, Examined, Finding, Part, Way, listed};

/// Of what an engine says is its version. With the package of a distribution it has some 30 characters.
const MAX_VERSION: usize = 64;

/// All of it. Displays for people.
pub(super) struct Report {
    pub parts: Vec<Examined>,
    /// About the host as a whole.
    pub notes: Vec<String>,
    /// Engines were looked for, so one without a part is not here.
    pub has_looked: bool,
}

/// For programs, in place of the name of a way to a proxy that cannot serve: the pulls go to the source after it, or fail.
const UNSERVED: &str = "unserved";

impl Report {
    /// Each finding with the part that it is about.
    pub(super) fn findings(&self) -> impl Iterator<Item = (Part, &Finding)> {
        self.parts.iter().flat_map(|part| part.findings.iter().map(|finding| (part.part, finding)))
    }

    /// Registries whose pulls go past the proxy, with the engine.
    pub(super) fn past(&self) -> impl Iterator<Item = (Part, &str)> {
        self.parts.iter().flat_map(|part| {
            part.ways.iter().filter(|(_, way)| **way == Way::Source).map(|(name, _)| (part.part, name.as_str()))
        })
    }

    /// Why no engine is to be sent to the proxy: it does not run, or another program has its place.
    pub(super) fn lack(&self) -> Option<String> {
        let is_it = |(part, finding): &(Part, &Finding)| {
            *part == Part::Proxy && matches!(finding.code, Code::Down | Code::Stranger)
        };
        self.findings().find(is_it).map(|(_, finding)| finding.text())
    }

    /// That the proxy has not read these settings, which lead engines to it.
    pub(super) fn unread(&self, settings: Option<&str>) -> Option<String> {
        let is_it = |(part, finding): &(Part, &Finding)| {
            *part == Part::Proxy && finding.code == Code::NotLoaded && finding.file.as_deref() == settings
        };
        self.findings().find(is_it).map(|(_, finding)| finding.text())
    }

    /// Why the proxy serves nothing of a registry, a clause.
    fn unserved(&self, registry: &str) -> Option<&'static str> {
        if self.lack().is_some() {
            return Some("which does not serve");
        }
        self.parts.iter().find_map(|part| part.unserved.get(registry).copied())
    }

    /// As docs/troubleshooting.md has it.
    pub(super) fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "code": finding.code.name(),
                "file": finding.file,
                "text": finding.text(),
                "why": finding.why(),
                "registries": finding.registries,
                "fix": line(&finding.fix.command),
                "fixable": finding.fix.by.is_some(),
            })
        };
        let way_of = |name: &str, way: Way| match way {
            Way::Proxy if self.unserved(name).is_some() => UNSERVED,
            way => way.name(),
        };
        let part = |part: &Examined| {
            json!({
                "name": part.part.name(),
                "version": part.version,
                "runs": part.runs,
                "pulls": part.ways.iter().map(|(name, way)| (name.clone(), json!(way_of(name, *way)))).collect::<Value>(),
                "findings": part.findings.iter().map(finding).collect::<Vec<_>>(),
                "notes": part.notes,
                "never_closed": part.never_closed,
            })
        };
        let count = self.findings().count();
        let status = match count {
            0 if self.lacks_answers() => "unknown",
            0 => "ok",
            _ => "findings",
        };
        json!({
            "status": status,
            "findings": count,
            "parts": self.parts.iter().map(part).collect::<Vec<_>>(),
            "absent": self.absent(),
            "notes": self.notes,
        })
    }

    /// Nothing, if nobody has looked.
    fn absent(&self) -> Vec<&'static str> {
        let is_here = |part: &Part| self.parts.iter().any(|found| found.part == *part);
        Part::ALL.into_iter().filter(|part| self.has_looked && !is_here(part)).map(Part::name).collect()
    }

    /// The proxy runs, and could not be asked whether it has its tokens: that is what its own notes are about.
    fn knows_no_tokens(&self) -> bool {
        self.parts.iter().any(|part| part.part == Part::Proxy && !part.notes.is_empty())
    }

    /// Something of an engine could not be read, or it could not be asked, and may be wrong.
    fn lacks_answers(&self) -> bool {
        self.parts.iter().any(|part| part.is_blind || part.is_silent)
    }

    /// The last line.
    fn summary(&self) -> String {
        let count = self.findings().count();
        let mut text = match count {
            0 if self.lacks_answers() => {
                "doctor: nothing is wrong in what could be read and asked; the notes say what could not".to_owned()
            }
            0 if self.knows_no_tokens() => {
                "doctor: ok: nothing is wrong with the engines; whether the proxy has its tokens is not known"
                    .to_owned()
            }
            0 if self.parts.iter().any(|part| !part.never_closed.is_empty()) => {
                "doctor: ok, but that sources of closed routes are asked all the same, as the notes say".to_owned()
            }
            0 => "doctor: ok: nothing is wrong on this host".to_owned(),
            1 => "doctor: 1 finding".to_owned(),
            count => format!("doctor: {count} findings"),
        };
        let mut past: Vec<(&str, Vec<&str>)> = Vec::new();
        for (part, registry) in self.past() {
            match past.last_mut().filter(|(known, _)| *known == part.name()) {
                Some((_, registries)) => registries.push(registry),
                None => past.push((part.name(), vec![registry])),
            }
        }
        let past: Vec<_> = past.iter().map(|(part, names)| format!("{part} pulls {}", listed(names))).collect();
        if !past.is_empty() {
            text += &format!("; past the proxy: {}", past.join(", "));
        }
        text
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        /// The longest name, `containerd`.
        const NAME: usize = 10;
        for part in &self.parts {
            writeln!(f, "{:<NAME$}  {}", part.part.name(), state(part, |name| self.unserved(name)))?;
        }
        let absent = self.absent();
        if !absent.is_empty() {
            writeln!(f, "{:<NAME$}  {}", "not here", absent.join(", "))?;
        }
        for (number, (part, finding)) in (1..).zip(self.findings()) {
            let file = finding.file.as_ref().map(|file| format!("{file}: ")).unwrap_or_default();
            writeln!(f, "\n{number}. {}: {}{}", part.name(), line(&file), line(&finding.text()))?;
            writeln!(f, "   why: {}", line(&finding.why()))?;
            writeln!(f, "   fix: {}", line(&finding.fix.command))?;
        }
        let notes = self.parts.iter().flat_map(|part| &part.notes).chain(&self.notes);
        for (at, note) in notes.enumerate() {
            writeln!(f, "{}note: {}", if at == 0 { "\n" } else { "" }, line(note))?;
        }
        writeln!(f, "\n{}", self.summary())
    }
}

/// Version, whether it runs, where pulls go.
fn state(part: &Examined, unserved: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut words = Vec::new();
    words.extend(part.version.as_deref().map(|version| bounded(version, MAX_VERSION)));
    words.extend(part.runs.map(|runs| if runs { "runs" } else { "does not run" }.to_owned()));
    for way in Way::ALL {
        let mut groups: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for (name, _) in part.ways.iter().filter(|(_, found)| **found == way) {
            groups.entry(unserved(name).filter(|_| way == Way::Proxy)).or_default().push(name);
        }
        for (why, names) in groups {
            let names = listed(&names);
            words.push(match (way, why) {
                (Way::Proxy, None) => format!("pulls {names} through the proxy"),
                (Way::Proxy, Some(why)) => format!("pulls {names} by way of the proxy, {why}"),
                (Way::Source, _) => format!("pulls {names} past the proxy"),
                (Way::Nowhere, _) => format!("pulls {names} not at all"),
            });
        }
    }
    match part.part {
        Part::Proxy if words.is_empty() => "whether it runs is not known".to_owned(),
        _ if words.is_empty() => "here".to_owned(),
        _ => words.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::expected::by_hand;
    use super::super::finding::{Code, Examined, Finding, Part, Way};
    use super::super::settings::with_mistakes;
    use super::Report;

    #[test]
    fn a_proxy_that_tells_nothing_of_its_tokens_is_not_called_right() {
        let mut proxy = Examined::new(Part::Proxy);
        let summary =
            |proxy: &Examined| Report { parts: vec![proxy.clone()], notes: Vec::new(), has_looked: true }.summary();
        assert_eq!(summary(&proxy), "doctor: ok: nothing is wrong on this host");
        proxy.notes.push("without the setting admin nobody can say".to_owned());
        assert!(summary(&proxy).ends_with("whether the proxy has its tokens is not known"), "{}", summary(&proxy));
    }

    /// It was "through the proxy", and every pull went to the source.
    #[test]
    fn nothing_is_pulled_through_a_proxy_that_has_no_token() {
        let mut engine = Examined::new(Part::Podman);
        engine.lead_all(vec!["docker.io"], Way::Proxy);
        for (code, lacks, [by, for_programs]) in [
            (None, "", ["pulls docker.io through the proxy", "proxy"]),
            (
                Some(Code::NotReady),
                "docker.io",
                ["pulls docker.io by way of the proxy, which is not ready", "unserved"],
            ),
            // It was said of every registry.
            (Some(Code::NotReady), "ghcr.io", ["pulls docker.io through the proxy", "proxy"]),
            (Some(Code::Down), "", ["pulls docker.io by way of the proxy, which does not serve", "unserved"]),
            (Some(Code::Refused), "", ["pulls docker.io through the proxy", "proxy"]),
        ] {
            let mut proxy = Examined::new(Part::Proxy);
            proxy.unserved.insert(lacks.to_owned(), "which is not ready");
            proxy.findings.extend(code.map(|code| {
                let (text, why, fix) = ("it is".to_owned(), "so".to_owned(), by_hand("do"));
                Finding { code, file: None, text, why, registries: Vec::new(), fix }
            }));
            let report = Report { parts: vec![proxy, engine.clone()], notes: Vec::new(), has_looked: true };
            assert!(report.to_string().contains(by), "{code:?}: {report}");
            assert_eq!(report.to_json()["parts"][1]["pulls"]["docker.io"], for_programs, "{code:?}");
        }
    }

    /// For programs it was "ok".
    #[test]
    fn what_could_not_be_read_is_not_called_right() {
        let mut engine = Examined::new(Part::Dockerd);
        let report = |engine: &Examined| Report { parts: vec![engine.clone()], notes: Vec::new(), has_looked: true };
        assert_eq!(report(&engine).to_json()["status"], "ok");
        engine.is_blind = true;
        assert_eq!(report(&engine).to_json()["status"], "unknown");
        assert!(report(&engine).summary().contains("in what could be read"));
    }

    /// Of a dockerd that hung, and of one that this user may not ask, it was said that nothing is wrong on this host.
    #[test]
    fn an_engine_that_could_not_be_asked_is_not_called_right() {
        let mut engine = Examined::new(Part::Dockerd);
        engine.is_silent = true;
        let report = Report { parts: vec![engine], notes: Vec::new(), has_looked: true };
        assert_eq!(report.to_json()["status"], "unknown");
        assert!(report.summary().contains("nothing is wrong in what could be read and asked"), "{report}");
    }

    #[test]
    fn nothing_is_said_of_engines_that_nobody_has_looked_for() {
        for (file, mistake, text, fix) in [
            (
                Some("a.yaml"),
                "a.yaml:4: prefx: unknown",
                "line 4: prefx: unknown",
                "vi} a.yaml && acr-cache-proxy check",
            ),
            (Some("a.yaml"), "--config a.yaml: No such file", "--config a.yaml: No such file", "vi} a.yaml && "),
            (None, "the registry is not named", "the registry is not named", "acr-cache-proxy init"),
        ] {
            let report = Report {
                parts: vec![with_mistakes(mistake, file, Path::new("/"), None)],
                notes: Vec::new(),
                has_looked: false,
            };
            let (_, finding) = report.findings().next().expect("a finding");
            assert_eq!(finding.text(), text);
            assert!(finding.fix.command.contains(fix), "{}", finding.fix.command);
            assert!(!report.to_string().contains("not here"), "{report}");
        }
    }

    #[test]
    fn the_page_explains_every_finding_in_their_order() {
        let page = include_str!("../../docs/troubleshooting.md");
        let section = page.split("\n## What doctor finds\n").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = section.expect("the section").lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), Code::ALL.map(Code::name));
    }
}
