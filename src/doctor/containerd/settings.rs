//! What `config.toml` and its imports say together of mirrors: which table counts is a matter of the release and of the file's version.

use toml::Table;

use super::Facts;
use crate::client_config::address::Address;
use crate::doctor::hosts_toml;
use crate::doctor::text;

/// The table of the mirrors, by the version of the file: from 3 on, of 2, and before.
pub(super) const NEW: [&str; 3] = ["plugins", "io.containerd.cri.v1.images", "registry"];
pub(super) const OLD: [&str; 3] = ["plugins", "io.containerd.grpc.v1.cri", "registry"];
pub(super) const FIRST: [&str; 3] = ["plugins", "cri", "registry"];

/// What the settings say together.
#[derive(Default)]
pub(super) struct Settings {
    /// That of containerd, where it is known; the file's version tells else.
    pub(super) release: Option<u32>,
    pub(super) version: i64,
    /// Of the table that counts, and of one that does not.
    pub(super) path: Option<String>,
    pub(super) ignored: Option<&'static str>,
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
        let release = facts.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        let mut settings = Self { release, ..Self::default() };
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
            settings.take(&table);
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

    fn take(&mut self, table: &Table) {
        let off = text::texts(table, "disabled_plugins").unwrap_or_default();
        self.cri_is_off |= off
            .iter()
            .any(|name| matches!(name.as_str(), "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.images"));
        let version = table.get("version").and_then(toml::Value::as_integer).unwrap_or(self.version);
        let counts: &[_] = match (self.release, version) {
            // It takes files of versions that came after it, and knows its own tables.
            (Some(1), 2..) => &[OLD],
            (_, 3..) => &[NEW],
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
            let Some(registry) = text::table(table, &way) else { continue };
            let path = text::text(registry, "config_path").filter(|path| !path.is_empty());
            let path = path.map(|path| path.trim_end_matches('/').to_owned());
            if counts.contains(&way) {
                self.path = path.or_else(|| self.path.take());
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
    use crate::host::{Host, Text};
    use crate::unit::Unit;

    /// As containerd 1.6 and 2.1 have shown.
    #[test]
    fn which_table_counts_is_a_matter_of_the_release_and_of_the_files_version() {
        let table =
            |way: &[&str; 3], path: &str| format!("[plugins.\"{}\".{}]\nconfig_path = \"{path}\"\n", way[1], way[2]);
        let [old, new] = [OLD, NEW].map(|way| table(&way, "/certs"));
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
        ] {
            let root = tempfile::tempdir().expect("a directory");
            let hub = root.path().join("certs/docker.io");
            std::fs::create_dir_all(&hub).expect("made");
            std::fs::write(hub.join("hosts.toml"), "").expect("written");
            let certs = vec![("/certs".to_owned(), hosts_toml::read(&Host::new(root.path().to_owned()), "/certs"))];
            let content = Ok(format!("{version}{lines}"));
            let facts = Facts {
                config: Some(Text { path: CONFIG.to_owned(), content }),
                imports: Vec::new(),
                unit: Unit::default(),
                certs,
                runs: true,
                is_older: false,
                version: Some(release.to_owned()),
                is_dockers: false,
                is_nerdctls: false,
            };
            let settings = Settings::of(&facts).expect("TOML");
            assert_eq!(settings.path.as_deref(), path, "{release}: {version}{lines}");
        }
    }
}
