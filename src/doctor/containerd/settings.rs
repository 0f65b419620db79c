//! What `config.toml` and its imports say together of mirrors: which table counts is a matter of the release and of the file's version.

use toml::Table;

use super::Facts;
use crate::client_config::address::Address;
use crate::client_config::text;
use crate::doctor::hosts_toml;

/// The table of the mirrors, by the version of the file: from 3 on, of 2, and before.
pub(super) const NEW: [&str; 3] = ["plugins", "io.containerd.cri.v1.images", "registry"];
pub(super) const OLD: [&str; 3] = ["plugins", "io.containerd.grpc.v1.cri", "registry"];
pub(super) const FIRST: [&str; 3] = ["plugins", "cri", "registry"];

/// The first release that takes a file of version 1, or of none, for one (containerd's pull request 12608). Releases 2.0 to 2.2 lose what
/// its tables have of mirrors.
const MIGRATES_FIRST: [u32; 2] = [2, 3];
/// A release that takes the table of version 2 in a file of version 3 as well, which 2.1 does not.
const TAKES_OLD: [u32; 2] = [2, 4];
/// The CRI plugin by its name in a file of version 1, by the one of version 2, and the two parts of it that containerd 2 has.
const CRI: [&str; 4] =
    ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];

/// What the settings say together.
#[derive(Default)]
pub(super) struct Settings {
    /// That of containerd, where it is known; the file's version tells else.
    pub(super) release: Option<u32>,
    /// It is one of those that bring each file from version 1 up to their own, with what its tables have of mirrors.
    migrates_first: bool,
    takes_old: bool,
    pub(super) version: i64,
    /// Of the table that counts, and of one that does not.
    pub(super) path: Option<String>,
    pub(super) ignored: Option<&'static str>,
    /// An imported file that has taken the place of a table with mirrors, and has none.
    pub(super) replaced_by: Option<String>,
    /// The mirrors of `docker.io` and so on, as they were set before `hosts.toml`.
    pub(super) mirrors: Vec<(String, Vec<Address>)>,
    pub(super) cri_is_off: bool,
}

impl Settings {
    /// The error is about a file, which it names first.
    pub(super) fn of(facts: &Facts) -> Result<Self, (String, String)> {
        Self::with(facts, None)
    }

    /// The same if one file, by its path, had this content.
    pub(super) fn with(facts: &Facts, other: Option<(&str, &str)>) -> Result<Self, (String, String)> {
        let numbers = facts.version.iter().flat_map(|version| version.split('.')).map_while(|part| part.parse().ok());
        let numbers: Vec<u32> = numbers.collect();
        let release = numbers.first().copied();
        let migrates_first = numbers.as_slice() >= MIGRATES_FIRST.as_slice();
        let takes_old = numbers.as_slice() >= TAKES_OLD.as_slice();
        let mut settings = Self { release, migrates_first, takes_old, ..Self::default() };
        let config = facts.config.iter().map(|text| (true, text));
        for (is_main, text) in config.chain(facts.imports.iter().map(|text| (false, text))) {
            let content = match other.filter(|(path, _)| *path == text.path) {
                Some((_, content)) => Ok(content.to_owned()),
                None => text.content.clone(),
            };
            let table = content.and_then(|content| text::toml(&content));
            let table = table.map_err(|wrong| (text.path.clone(), wrong))?;
            if is_main {
                // containerd 2 takes a file that names none for one of the newest.
                let unnamed = if settings.release >= Some(2) { 3 } else { 1 };
                settings.version = table.get("version").and_then(toml::Value::as_integer).unwrap_or(unnamed);
            }
            if let Some(wrong) = settings.refuses(&table) {
                return Err((text.path.clone(), wrong));
            }
            settings.take(&text.path, &table);
        }
        if let (Some(1), Some(path)) = (release, &settings.path) {
            // containerd 1 looks into each of several directories, and 2 into none of them.
            let has_files =
                |path: &&str| facts.certs.iter().any(|(known, all)| known == path && hosts_toml::have_files(all));
            let one = path.split(':').find(has_files).or(path.split(':').next());
            settings.path = one.map(str::to_owned);
        }
        Ok(settings)
    }

    /// The table that counts, as it is written.
    pub(super) fn section(&self) -> &'static str {
        match (self.release, self.version) {
            (Some(1), _) | (_, ..=2) => r#"[plugins."io.containerd.grpc.v1.cri".registry]"#,
            _ => r#"[plugins."io.containerd.cri.v1.images".registry]"#,
        }
    }

    /// Why containerd does not start with a file: from version 2 on, plugins have their long names. containerd 1 wants that of each table, too,
    /// and of an import without a version.
    fn refuses(&self, table: &Table) -> Option<String> {
        let is_first = self.release == Some(1);
        let own = table.get("version").and_then(toml::Value::as_integer).unwrap_or(1);
        if (if is_first { self.version } else { own }) < 2 {
            return None;
        }
        let is_long = |name: &str| if is_first { name.split('.').count() >= 4 } else { name.contains('.') };
        for key in ["disabled_plugins", "required_plugins"] {
            let names = text::texts(table, key).unwrap_or_default();
            if let Some(short) = names.iter().find(|name| !is_long(name)) {
                return Some(format!(
                    "its {key} has {short:?}, a name of version 1, and from version = 2 on a plugin has its long name, such as {:?}",
                    OLD[1]
                ));
            }
        }
        let plugins = text::table(table, &["plugins"]).filter(|_| is_first)?;
        let short = plugins.keys().find(|name| !name.starts_with("io.containerd.") || !is_long(name))?;
        Some(format!(
            "it has [plugins.{short:?}], a name of version 1, and with version = 2 a plugin has its long name, as in {}",
            self.section()
        ))
    }

    fn take(&mut self, file: &str, table: &Table) {
        let own = table.get("version").and_then(toml::Value::as_integer);
        // containerd 1 knows the plugin by the one name that the file's version has for it.
        let names = match (self.release, self.version) {
            (Some(1), 2..) => &CRI[1..2],
            (Some(1), _) => &CRI[..1],
            _ => &CRI[..],
        };
        let off = text::texts(table, "disabled_plugins").unwrap_or_default();
        self.cri_is_off |= off.iter().any(|name| names.contains(&name.as_str()));
        let version = own.unwrap_or(self.version);
        let counts: &[_] = match (self.release, version) {
            _ if self.migrates_first && own.unwrap_or(1) < 2 => &[FIRST, OLD, NEW],
            // It takes files of versions that came after it, and knows its own tables.
            (Some(1), 2..) => &[OLD],
            (_, 3) if self.takes_old => &[OLD, NEW],
            (_, 3..) | (Some(2..), ..2) => &[NEW],
            // containerd 2 moves what is in the old table to the new one, and leaves what is there.
            (Some(2..), 2) => &[OLD, NEW],
            (_, 2) => &[OLD],
            _ => &[FIRST],
        };
        for (way, shown) in [
            (NEW, r#"[plugins."io.containerd.cri.v1.images".registry]"#),
            (OLD, r#"[plugins."io.containerd.grpc.v1.cri".registry]"#),
            (FIRST, "[plugins.cri.registry]"),
        ] {
            // It merges no table of a plugin: that of the last file counts, whatever it has.
            let replaces = self.release == Some(1) && counts.contains(&way) && text::table(table, &way[..2]).is_some();
            if replaces && (self.path.take().is_some() || !self.mirrors.is_empty()) {
                self.mirrors.clear();
                self.replaced_by = Some(file.to_owned());
            }
            let Some(registry) = text::table(table, &way) else { continue };
            let path = text::text(registry, "config_path").filter(|path| !path.is_empty());
            let path = path.map(|path| path.trim_end_matches('/').to_owned());
            if counts.contains(&way) {
                self.path = path.or_else(|| self.path.take());
                self.replaced_by = self.replaced_by.take().filter(|_| self.path.is_none());
                for (name, mirror) in text::entries(registry, "mirrors") {
                    let endpoints = text::texts(mirror, "endpoint").unwrap_or_default();
                    let endpoints = endpoints.iter().map(|url| Address::parse(url).or_tls(true));
                    self.mirrors.push((name.to_owned(), endpoints.collect()));
                }
            } else if path.is_some() {
                self.ignored = Some(shown);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::containerd::CONFIG;
    use crate::doctor::started::Running;
    use crate::host::{Host, Text};
    use crate::unit::Unit;

    /// As `containerd config dump` of 1.6, 2.1 and 2.4 has shown.
    #[test]
    fn which_table_counts_is_a_matter_of_the_release_and_of_the_files_version() {
        let table =
            |way: &[&str; 3], path: &str| format!("[plugins.\"{}\".{}]\nconfig_path = \"{path}\"\n", way[1], way[2]);
        let [first, old, new] = [FIRST, OLD, NEW].map(|way| table(&way, "/certs"));
        let both = table(&OLD, "/none:/certs");
        for (release, version, lines, path) in [
            ("1.6.20", "version = 2\n", &old, Some("/certs")),
            ("1.6.20", "version = 2\n", &new, None),
            ("1.6.20", "version = 3\n", &old, Some("/certs")),
            ("1.6.20", "version = 3\n", &new, None),
            ("1.6.20", "", &old, None),
            ("1.6.20", "version = 2\n", &both, Some("/certs")),
            ("2.1.9", "version = 2\n", &old, Some("/certs")),
            ("2.1.9", "version = 2\n", &new, Some("/certs")),
            ("2.1.9", "version = 3\n", &old, None),
            ("2.1.9", "version = 3\n", &new, Some("/certs")),
            ("2.1.9", "", &old, None),
            ("2.1.9", "", &new, Some("/certs")),
            ("2.1.9", "version = 2\n", &both, Some("/none:/certs")),
            ("1.6.20", "version = 1\n", &first, Some("/certs")),
            ("1.6.20", "", &first, Some("/certs")),
            ("2.1.9", "version = 3\n", &first, None),
            ("2.1.9", "version = 2\n", &first, None),
            ("2.1.9", "version = 1\n", &first, None),
            ("2.1.9", "version = 1\n", &old, None),
            ("2.1.9", "version = 1\n", &new, Some("/certs")),
            ("2.1.9", "", &first, None),
            ("2.4.2", "version = 3\n", &first, None),
            ("2.4.2", "version = 2\n", &first, None),
            ("2.4.2", "version = 1\n", &first, Some("/certs")),
            ("2.4.2", "", &first, Some("/certs")),
            ("2.4.2", "", &old, Some("/certs")),
            ("2.4.2", "version = 1\n", &new, Some("/certs")),
            ("2.4.2", "version = 3\n", &old, Some("/certs")),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let hub = root.path().join("certs/docker.io");
            std::fs::create_dir_all(&hub).expect("made");
            std::fs::write(hub.join("hosts.toml"), "").expect("written");
            let certs = vec![("/certs".to_owned(), hosts_toml::read(&Host::new(root.path().to_owned()), "/certs"))];
            let facts = Facts { certs, ..facts(release, &format!("{version}{lines}"), "") };
            let settings = Settings::of(&facts).expect("TOML");
            assert_eq!(settings.path.as_deref(), path, "{release}: {version}{lines}");
        }
    }

    fn facts(release: &str, config: &str, import: &str) -> Facts {
        let text = |path: &str, content: &str| Text { path: path.to_owned(), content: Ok(content.to_owned()) };
        Facts {
            config: Some(text(CONFIG, config)),
            imports: vec![text("/import.toml", import)],
            unit: Unit::default(),
            certs: Vec::new(),
            running: Running::default(),
            started: None,
            is_older: false,
            version: Some(release.to_owned()),
            is_dockers: false,
            is_nerdctls: false,
        }
    }

    /// An import with the image of the sandbox took the mirrors away, and nobody was told. As `containerd config dump` of both has shown.
    #[test]
    fn an_import_takes_a_plugins_whole_table_away_from_containerd_1_and_none_from_2() {
        let main = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/certs\"\n";
        let mirror =
            "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"http://a\"]\n";
        let path = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/other\"\n";
        for (import, by_1, by_2) in [
            ("", Some("/certs"), Some("/certs")),
            ("[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"a\"\n", None, Some("/certs")),
            ("[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"/a\"\n", Some("/certs"), Some("/certs")),
            (mirror, None, Some("/certs")),
            (path, Some("/other"), Some("/other")),
        ] {
            for (release, expected) in [("1.6.20", by_1), ("2.1.9", by_2)] {
                let settings = Settings::of(&facts(release, main, import)).expect("TOML");
                assert_eq!(settings.path.as_deref(), expected, "{release}: {import}");
                assert_eq!(settings.replaced_by.as_deref(), expected.is_none().then_some("/import.toml"), "{import}");
            }
        }
    }

    /// The right table was added below the wrong one, and containerd did not start.
    #[test]
    fn a_short_name_of_a_plugin_in_a_file_of_version_2_is_one_that_containerd_1_does_not_start_with() {
        let short = "[plugins.\"cri\".registry]\nconfig_path = \"/certs\"\n";
        for (release, version, starts) in
            [("1.6.20", "version = 2\n", false), ("1.6.20", "", true), ("2.1.9", "version = 2\n", true)]
        {
            let of_file = Settings::of(&facts(release, &format!("{version}{short}"), ""));
            let of_import = Settings::of(&facts(release, version, short));
            assert_eq!([of_file.is_ok(), of_import.is_ok()], [starts; 2], "{release}: {version}");
        }
    }

    /// Of a plugin that pulled it was said to be off, and of one that was off that it pulled. As pulls by 1.6, 2.1 and 2.4 have shown.
    #[test]
    fn which_name_takes_the_cri_plugin_out_is_a_matter_of_the_release_and_of_the_files_version() {
        let [short, long, images, runtime] = CRI;
        for (release, version, name, is_off) in [
            ("1.6.20", "", short, true),
            ("1.6.20", "version = 1\n", long, false),
            ("1.6.20", "version = 2\n", long, true),
            ("1.6.20", "version = 2\n", images, false),
            ("1.6.20", "version = 3\n", long, true),
            ("1.6.20", "version = 3\n", runtime, false),
            ("2.1.9", "version = 2\n", long, true),
            ("2.1.9", "version = 2\n", images, true),
            ("2.1.9", "version = 3\n", long, true),
            ("2.1.9", "version = 3\n", runtime, true),
            ("2.4.2", "version = 1\n", long, true),
            ("2.4.2", "", short, true),
            ("2.4.2", "version = 3\n", images, true),
            ("2.4.2", "version = 3\n", runtime, true),
        ] {
            let lines = format!("{version}disabled_plugins = [\"{name}\"]\n");
            let settings = Settings::of(&facts(release, &lines, "")).expect("it starts");
            assert_eq!(settings.cri_is_off, is_off, "{release}: {lines}");
        }
    }

    /// doctor said that the CRI plugin was off, and containerd did not start.
    #[test]
    fn a_short_name_among_the_plugins_that_are_off_is_one_that_no_containerd_starts_with_from_version_2_on() {
        let off = |name: &str| format!("disabled_plugins = [\"{name}\"]\n");
        let (cri, long) = (off("cri"), off("io.containerd.grpc.v1.cri"));
        // What follows is whether it starts with the name in its file, and with the name in an import of no version.
        for (release, version, list, starts) in [
            ("1.6.20", "version = 2\n", &cri, [false, false]),
            ("1.6.20", "version = 2\n", &off("grpc.cri"), [false, false]),
            ("1.6.20", "version = 2\n", &long, [true, true]),
            ("1.6.20", "", &cri, [true, true]),
            ("2.1.9", "version = 2\n", &cri, [false, true]),
            ("2.4.2", "version = 3\n", &cri, [false, true]),
            ("2.4.2", "version = 3\n", &off("grpc.cri"), [true, true]),
            ("2.4.2", "version = 1\n", &cri, [true, true]),
            ("2.4.2", "", &cri, [true, true]),
        ] {
            let of_file = Settings::of(&facts(release, &format!("{version}{list}"), ""));
            let of_import = Settings::of(&facts(release, version, list));
            assert_eq!([of_file.is_ok(), of_import.is_ok()], starts, "{release}: {version}{list}");
        }
    }
}
