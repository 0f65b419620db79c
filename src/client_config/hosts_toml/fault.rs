//! Whether whoever reads a `hosts.toml` understands it. With one value that it does not, it reads nothing of the file, and pulls go to the
//! registry itself.

use toml::de::DeTable;
use toml::{Table, Value};

use crate::client_config::text::{self, MARK};

/// Who reads the files, by which it depends what they may have.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// For sentences.
    pub name: &'a str,
    /// It is dockerd, which has its own releases.
    pub is_dockerd: bool,
    /// The first two numbers of its version; `None` where it is not known.
    pub release: Option<(u32, u32)>,
}

impl Reader<'_> {
    /// `2.1.9+unknown`, `1.6.20~ds1`
    pub(crate) fn release(version: &str) -> Option<(u32, u32)> {
        let mut numbers = version.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    fn is_containerd_1(self) -> bool {
        !self.is_dockerd && self.release.is_some_and(|release| release < (2, 0))
    }

    /// What it knows that a host can do. containerd takes `referrers` since 2.2, and dockerd with that.
    fn knows(self, capability: &str) -> bool {
        let since = if self.is_dockerd { (29, 0) } else { (2, 2) };
        match capability.to_ascii_lowercase().as_str() {
            "pull" | "resolve" | "push" => true,
            "referrers" => self.release.is_none_or(|release| release >= since),
            _ => false,
        }
    }
}

/// Why the reader takes a file for none, as it reads it: with one value that it does not understand it reads nothing of it.
pub(crate) fn fault(content: &str, reader: Reader<'_>) -> Option<String> {
    if content.starts_with(MARK) && !reader.is_containerd_1() {
        return Some("it begins with a byte order mark, which an editor does not show".to_owned());
    }
    let table = match text::toml(content) {
        Ok(table) => table,
        Err(wrong) => return Some(wrong),
    };
    let hosts = match table.get("host") {
        None if reader.is_containerd_1() && !table.is_empty() => {
            return Some("it has no [host], without which containerd 1 reads none".to_owned());
        }
        None => Vec::new(),
        Some(Value::Table(hosts)) => hosts.iter().map(|(name, host)| (format!("host.{name:?}."), host)).collect(),
        Some(_) => return Some("host is not a table".to_owned()),
    };
    if !reader.is_containerd_1()
        && let Some(name) = without_header(content)
    {
        return Some(format!("host.{name:?} has no line [host.{name:?}], without which it is not asked"));
    }
    if table.get("server").is_some_and(|server| !server.is_str()) {
        return Some("server is not a text".to_owned());
    }
    let of_hosts = hosts.into_iter().find_map(|(name, host)| match host {
        Value::Table(host) => fault_of_host(&name, host, reader),
        _ => Some(format!("{} is not a table", name.trim_end_matches('.'))),
    });
    of_hosts.or_else(|| fault_of_host("", &table, reader))
}

/// A host whose table has no header of its own. containerd 2 asks those alone that have one (`getSortedHosts`).
fn without_header(content: &str) -> Option<String> {
    let parsed = DeTable::parse(content).ok()?;
    let hosts = parsed.get_ref().get("host")?.get_ref().as_table()?;
    let has_header = |at: usize| {
        let line = content.get(..at).and_then(|before| before.rsplit('\n').next());
        line.is_some_and(|line| line.trim_start().starts_with('['))
    };
    hosts.keys().find(|name| !has_header(name.span().start)).map(|name| name.get_ref().to_string())
}

fn fault_of_host(name: &str, host: &Table, reader: Reader<'_>) -> Option<String> {
    let is_text = |value: &Value| value.is_str();
    let is_texts = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(is_text));
    let is_pair = |value: &Value| is_texts(value) && value.as_array().is_some_and(|pair| pair.len() == 2);
    let is_pairs =
        |value: &Value| value.as_array().is_some_and(|all| all.iter().all(|one| is_text(one) || is_pair(one)));
    let is_header =
        |value: &Value| value.as_table().is_some_and(|all| all.values().all(|value| is_text(value) || is_texts(value)));
    for (key, value) in host {
        let (is_right, right) = match key.as_str() {
            "capabilities" => (is_texts(value), "a list of texts"),
            "override_path" | "skip_verify" => (value.is_bool(), "true or false, without quotation marks"),
            "ca" => (is_text(value) || is_texts(value), "a path or a list of paths"),
            "client" => (is_text(value) || is_pairs(value), "a path, a list of paths or of pairs of paths"),
            "header" => (is_header(value), "a table of texts"),
            // It came with containerd 2, and what is not known is no fault.
            "dial_timeout" if !reader.is_containerd_1() => {
                (value.as_str().is_some_and(is_duration), "a time such as \"3s\"")
            }
            _ => continue,
        };
        if !is_right {
            return Some(format!("{name}{key} is not {right}"));
        }
    }
    let unknown = text::texts(host, "capabilities").into_iter().flatten().find(|one| !reader.knows(one))?;
    Some(format!("{name}capabilities has {unknown:?}, which this {} does not know", reader.name))
}

/// As Go's `time.ParseDuration` takes it: numbers with units, `0`, or nothing.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" || text.is_empty() {
        return true;
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let (unit, behind) = behind.split_at(behind.find(is_number).unwrap_or(behind.len()));
        if number.matches('.').count() > 1 || !number.contains(|c: char| c.is_ascii_digit()) || !UNITS.contains(&unit) {
            return false;
        }
        rest = behind;
    }
    !text.ends_with(['+', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINERD_1: Reader<'_> = Reader { name: "containerd", is_dockerd: false, release: Some((1, 6)) };
    const CONTAINERD_2: Reader<'_> = Reader { name: "containerd", is_dockerd: false, release: Some((2, 1)) };
    const NEWEST: Reader<'_> = Reader { name: "containerd", is_dockerd: false, release: Some((2, 4)) };
    const DOCKERD: Reader<'_> = Reader { name: "dockerd", is_dockerd: true, release: Some((28, 5)) };
    const UNKNOWN: Reader<'_> = Reader { name: "containerd", is_dockerd: false, release: None };

    /// As containerd 1.6, 2.1 and 2.4 and dockerd 28.5 have shown: each of these files is ignored in silence by those that do not take it.
    #[test]
    fn one_value_that_is_not_understood_is_a_file_that_is_not_read() {
        let all = [CONTAINERD_1, CONTAINERD_2, NEWEST, DOCKERD, UNKNOWN];
        for (host, takes) in [
            ("", [true; 5]),
            ("capabilities = [\"pull\", \"resolve\"]", [true; 5]),
            ("capabilities = [\"Pull\", \"Resolve\", \"push\"]", [true; 5]),
            ("capabilities = [\"pull\", \"resolve\", \"referrers\"]", [false, false, true, false, true]),
            ("capabilities = [\"pull\", \"resolve\", \"foo\"]", [false; 5]),
            ("capabilities = \"pull\"", [false; 5]),
            ("skip_verify = \"yes\"", [false; 5]),
            ("override_path = 1", [false; 5]),
            ("ca = 7", [false; 5]),
            ("client = [[\"a\"]]", [false; 5]),
            ("client = [\"a\", [\"b\", \"c\"]]", [true; 5]),
            ("header = {x = 5}", [false; 5]),
            ("header = {x = \"5\", y = [\"6\"]}", [true; 5]),
            ("dial_timeout = \"3x\"", [true, false, false, false, false]),
            ("dial_timeout = \"1m3.5s\"", [true; 5]),
            ("unknown = 5", [true; 5]),
        ] {
            let content = format!("server = \"https://ghcr.io\"\n[host.\"http://127.0.0.1:8080\"]\n{host}\n");
            assert_eq!(all.map(|reader| fault(&content, reader).is_none()), takes, "{host}");
        }
        let server = "server = \"http://127.0.0.1:8080\"\n";
        assert_eq!(
            all.map(|reader| fault(server, reader).is_none()),
            [false, true, true, true, true],
            "without [host]"
        );
    }

    /// It was "through the proxy", and pulls went to the source.
    #[test]
    fn a_byte_order_mark_is_read_by_containerd_1_alone() {
        let content = format!("{MARK}server = \"https://ghcr.io\"\n[host.\"http://127.0.0.1:8080\"]\n");
        let all = [CONTAINERD_1, CONTAINERD_2, NEWEST, DOCKERD, UNKNOWN];
        assert_eq!(all.map(|reader| fault(&content, reader).is_none()), [true, false, false, false, false]);
    }

    /// It was "through the proxy", and pulls went to the source.
    #[test]
    fn a_host_without_a_header_of_its_own_is_asked_by_containerd_1_alone() {
        let all = [CONTAINERD_1, CONTAINERD_2, NEWEST, DOCKERD, UNKNOWN];
        for (hosts, takes) in [
            ("[host.\"http://a\"]\ncapabilities = [\"pull\"]\n[host.'http://b']\n", [true; 5]),
            ("  [ host . \"http://a\" ]\n[host.\"http://a\".header]\nx = \"5\"\n", [true; 5]),
            ("host.\"http://a\".capabilities = [\"pull\"]\n", [true, false, false, false, false]),
            ("[host]\n\"http://a\".capabilities = [\"pull\"]\n", [true, false, false, false, false]),
            ("[host]\n\"http://a\" = {skip_verify = true}\n", [true, false, false, false, false]),
            ("host = {\"http://a\" = {}}\n", [true, false, false, false, false]),
        ] {
            assert_eq!(all.map(|reader| fault(hosts, reader).is_none()), takes, "{hosts}");
        }
    }

    #[test]
    fn a_release_is_the_first_two_numbers_of_a_version() {
        for (version, release) in [
            ("2.1.9+unknown", Some((2, 1))),
            ("1.6.20~ds1", Some((1, 6))),
            ("28.5.2+dfsg4", Some((28, 5))),
            ("dev", None),
        ] {
            assert_eq!(Reader::release(version), release, "{version}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, expected) in [
            ("3s", true),
            ("1h2m3.5s", true),
            ("-3s", true),
            ("0", true),
            ("", true),
            (".5s", true),
            ("300ms", true),
            ("3x", false),
            ("3", false),
            ("s", false),
            ("1.2.3s", false),
            ("+", false),
            (".s", false),
        ] {
            assert_eq!(is_duration(text), expected, "{text}");
        }
    }
}
