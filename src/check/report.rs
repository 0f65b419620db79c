//! What a check has found: lines in groups, for people or as JSON.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use oci::printable;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::config::MAX_TOLD;
use crate::label::labels;

labels! {
    /// What came of a hop.
    Status {
        /// It works.
        Ok = "ok",
        /// It works, or is not needed, and somebody should look at it all the same.
        Warning = "warning",
        /// Pulls fail here.
        Failed = "failed",
        /// It was not tried.
        Skipped = "skipped",
    }
}

labels! {
    /// A part of the way, in the order in which they are tried.
    Hop {
        /// The settings and the files that they name.
        Configuration = "configuration",
        /// The registry's name is looked up.
        Dns = "dns",
        /// It takes a connection.
        Tcp = "tcp",
        /// The egress proxy gives a tunnel to it; in place of the two.
        Egress = "egress",
        /// Its certificate is good.
        Tls = "tls",
        /// It answers as a registry.
        Registry = "registry",
        /// Its clock and this host's.
        Clock = "clock",
        /// Entra ID, or the machine's identity endpoint, gives a token.
        Identity = "identity",
        /// The registry takes it.
        Exchange = "exchange",
        /// The registry gives a token to pull with.
        Token = "token",
        /// An image's manifest.
        Manifest = "manifest",
        /// Where one of its blobs is.
        Blob = "blob",
        /// The same for the storage that the registry redirects to.
        StorageDns = "storage-dns",
        /// It takes a connection.
        StorageTcp = "storage-tcp",
        /// The egress proxy gives a tunnel to it.
        StorageEgress = "storage-egress",
        /// Its certificate is good.
        StorageTls = "storage-tls",
        /// The first bytes of the blob come.
        Storage = "storage",
    }
}

labels! {
    /// What the lines of a group are about.
    Kind {
        /// Of the whole program.
        Configuration = "configuration",
        /// A registry, with who signs in to it.
        Registry = "registry",
        /// A route, with an image.
        Route = "route",
    }
}

/// One hop.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub hop: Hop,
    pub status: Status,
    /// How long it took; `None` where that says nothing.
    pub elapsed: Option<Duration>,
    /// What was found, or what is wrong and what to do, the cause last.
    pub text: String,
    /// A number in it, for programs.
    pub value: Option<Value>,
}

/// A number in a line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// When the certificate ends, in seconds since 1970.
    CertificateEnds(u64),
    /// How far this host's clock is ahead of the registry's, in seconds.
    Ahead(i64),
}

/// Lines about one thing.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub kind: Kind,
    /// The file, the registry with who signs in, or the route with its image.
    pub name: String,
    pub lines: Vec<Line>,
}

/// All of it. Displays as a table with one line at the end that sums it up.
pub(crate) struct Report {
    pub groups: Vec<Group>,
    /// How long all of it took.
    pub elapsed: Duration,
    /// The way to the registries was to be tried.
    pub is_online: bool,
}

impl Report {
    fn count(&self, status: Status) -> usize {
        self.lines().filter(|line| line.status == status).count()
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.groups.iter().flat_map(|group| &group.lines)
    }

    /// Mistakes in the configuration.
    pub(crate) fn mistakes(&self) -> usize {
        self.lines().filter(|line| line.hop == Hop::Configuration && line.status == Status::Failed).count()
    }

    /// What they are in: what is said of a flag begins with it.
    fn mistaken(&self) -> &'static str {
        let is_mistake = |line: &&Line| line.hop == Hop::Configuration && line.status == Status::Failed;
        let is_all_flags = self.lines().filter(is_mistake).all(|line| line.text.starts_with("--"));
        if is_all_flags { "the flags" } else { "the configuration" }
    }

    /// The worst of all lines.
    pub(crate) fn status(&self) -> Status {
        match (self.count(Status::Failed), self.count(Status::Warning)) {
            (0, 0) => Status::Ok,
            (0, _) => Status::Warning,
            _ => Status::Failed,
        }
    }

    /// Its JSON, as docs/troubleshooting.md has it.
    pub(crate) fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.unwrap_or_else(|cause| format!("{{\"error\": {:?}}}", cause.to_string()))
    }

    /// What is known of pulls where no hop fails. One was tried if the registry has told where a blob is.
    fn pulls(&self) -> &'static str {
        let is_tried =
            |group: &&Group| group.lines.iter().any(|line| line.hop == Hop::Blob && line.status == Status::Ok);
        let routes = self.groups.iter().filter(|group| group.kind == Kind::Route);
        match (routes.clone().count(), routes.filter(is_tried).count()) {
            (_, 0) => "no hop fails, but no pull is known to get through",
            (all, tried) if tried < all => "pulls get through on some routes",
            _ => "pulls get through",
        }
    }

    /// The last line.
    fn summary(&self) -> String {
        let (failed, warnings, skipped) =
            (self.count(Status::Failed), self.count(Status::Warning), self.count(Status::Skipped));
        let mistakes = self.mistakes();
        let mut text = format!("check: {}", self.status().name());
        let _ = match (mistakes, failed) {
            (0, 0) if !self.is_online => write!(text, ": there is no mistake in the configuration"),
            (0, 0) => write!(text, ": {}", self.pulls()),
            (0, _) => write!(text, ": {}", counted(failed, "hop fails", "hops fail")),
            _ if mistakes > MAX_TOLD => write!(text, ": more than {MAX_TOLD} mistakes in {}", self.mistaken()),
            _ => write!(text, ": {} in {}", counted(mistakes, "mistake", "mistakes"), self.mistaken()),
        };
        if warnings > 0 {
            let _ = write!(text, ", {}", counted(warnings, "warning", "warnings"));
        }
        if skipped > 0 {
            let _ = write!(text, ", {skipped} not tried");
        }
        if self.is_online && mistakes == 0 {
            let _ = write!(text, ", in {:.1} s", self.elapsed.as_secs_f64());
        } else if mistakes == 0 {
            text.push_str("; --online tries the way to the registry");
        }
        text
    }
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        /// The longest names, `warning` and `storage-egress`.
        const STATUS: usize = 7;
        const HOP: usize = 14;
        for group in &self.groups {
            writeln!(f, "{} {}", group.kind.name(), printable::line(&group.name))?;
            for line in &group.lines {
                let elapsed = line.elapsed.map(|elapsed| format!("{} ms", elapsed.as_millis())).unwrap_or_default();
                let (status, hop) = (line.status.name(), line.hop.name());
                writeln!(f, "  {status:<STATUS$}  {hop:<HOP$} {elapsed:>8}  {}", printable::line(&line.text))?;
            }
        }
        writeln!(f, "{}", self.summary())
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Report", 8)?;
        object.serialize_field("status", self.status().name())?;
        object.serialize_field("online", &self.is_online)?;
        for status in Status::ALL {
            object.serialize_field(status.name(), &self.count(status))?;
        }
        object.serialize_field("elapsed_ms", &milliseconds(self.elapsed))?;
        object.serialize_field("groups", &self.groups)?;
        object.end()
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Group", 3)?;
        object.serialize_field("kind", self.kind.name())?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("lines", &self.lines)?;
        object.end()
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Line", 5)?;
        object.serialize_field("hop", self.hop.name())?;
        object.serialize_field("status", self.status.name())?;
        object.serialize_field("elapsed_ms", &self.elapsed.map(milliseconds))?;
        match self.value {
            Some(Value::CertificateEnds(end)) => object.serialize_field("certificate_ends_unix_seconds", &end)?,
            Some(Value::Ahead(seconds)) => object.serialize_field("clock_ahead_seconds", &seconds)?,
            None => {}
        }
        object.serialize_field("text", &self.text)?;
        object.end()
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_explains_every_hop_in_their_order() {
        let page = include_str!("../../docs/troubleshooting.md");
        let section = page.split("\n## What check tries\n").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = section.expect("the section").lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), Hop::ALL.map(Hop::name));
    }

    #[test]
    fn a_report_is_a_table_for_people_and_an_object_for_programs() {
        let line = |hop, status, milliseconds: Option<u64>, text: &str, value| Line {
            hop,
            status,
            elapsed: milliseconds.map(Duration::from_millis),
            text: text.to_owned(),
            value,
        };
        let lines = vec![
            line(Hop::Dns, Status::Ok, Some(3), "192.0.2.1", None),
            line(Hop::Tls, Status::Ok, Some(1_234), "TLS 1.3", Some(Value::CertificateEnds(7))),
            line(Hop::Clock, Status::Warning, None, "off", Some(Value::Ahead(-90))),
            line(Hop::Exchange, Status::Failed, Some(40), "403", None),
            line(Hop::Token, Status::Skipped, None, "not tried: exchange comes first", None),
        ];
        let groups = vec![Group { kind: Kind::Registry, name: "example.azurecr.io".to_owned(), lines }];
        let report = Report { groups, elapsed: Duration::from_millis(1_300), is_online: true };
        let text = [
            "registry example.azurecr.io",
            "  ok       dns                3 ms  192.0.2.1",
            "  ok       tls             1234 ms  TLS 1.3",
            "  warning  clock                    off",
            "  failed   exchange          40 ms  403",
            "  skipped  token                    not tried: exchange comes first",
            "check: failed: 1 hop fails, 1 warning, 1 not tried, in 1.3 s",
            "",
        ];
        assert_eq!(report.to_string(), text.join("\n"));
        let lines = serde_json::json!([
            {"hop": "dns", "status": "ok", "elapsed_ms": 3, "text": "192.0.2.1"},
            {"hop": "tls", "status": "ok", "elapsed_ms": 1234, "certificate_ends_unix_seconds": 7, "text": "TLS 1.3"},
            {"hop": "clock", "status": "warning", "elapsed_ms": null, "clock_ahead_seconds": -90, "text": "off"},
            {"hop": "exchange", "status": "failed", "elapsed_ms": 40, "text": "403"},
            {"hop": "token", "status": "skipped", "elapsed_ms": null, "text": "not tried: exchange comes first"},
        ]);
        let object = serde_json::json!({
            "status": "failed", "online": true, "ok": 2, "warning": 1, "failed": 1, "skipped": 1, "elapsed_ms": 1300,
            "groups": [{"kind": "registry", "name": "example.azurecr.io", "lines": lines}],
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&report.to_json()).expect("JSON"), object);
    }

    #[test]
    fn pulls_get_through_only_where_one_was_tried() {
        let line = |hop, status| Line { hop, status, elapsed: None, text: String::new(), value: None };
        let route = |blob| Group {
            kind: Kind::Route,
            name: String::new(),
            lines: vec![line(Hop::Manifest, Status::Ok), line(Hop::Blob, blob)],
        };
        let untried =
            || Group { kind: Kind::Route, name: String::new(), lines: vec![line(Hop::Manifest, Status::Skipped)] };
        for (groups, says) in [
            (vec![route(Status::Ok)], "check: ok: pulls get through, in 0.0 s"),
            (vec![route(Status::Ok), untried()], "check: ok: pulls get through on some routes, 1 not tried, in 0.0 s"),
            (vec![untried()], "check: ok: no hop fails, but no pull is known to get through, 1 not tried, in 0.0 s"),
        ] {
            let report = Report { groups, elapsed: Duration::ZERO, is_online: true };
            assert_eq!(report.summary(), says);
        }
    }
}
