//! What systemd itself gives to the services that it starts: `DefaultEnvironment` and `ManagerEnvironment` (systemd-system.conf(5)). What
//! `systemctl set-environment` has added is in no file, and is not followed.

use std::collections::BTreeMap;

use super::lines::lines;
use super::specifier::expanded;
use super::{drop_ins, words};
use crate::host::Host;

const MAIN: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];
const NAME: &str = "system.conf";

/// Variables, with the file that sets each.
#[derive(Clone, Debug, Default)]
pub(super) struct Manager {
    /// Every service has them, unless its unit says otherwise.
    pub(super) default: BTreeMap<String, (String, String)>,
    /// Its own, of which a service has those that `PassEnvironment` names.
    pub(super) own: BTreeMap<String, (String, String)>,
}

impl Manager {
    /// The first main file counts, and then the drop-ins. What cannot be read is left out: it is systemd's, which would not start with it.
    pub(super) fn read(host: &Host) -> Self {
        let main = MAIN.iter().map(|directory| format!("{directory}/{NAME}")).find(|path| host.has(path));
        let drop_ins = drop_ins(host, MAIN.map(|directory| format!("{directory}/{NAME}.d")), |_, _| {});
        let mut manager = Self::default();
        for path in main.into_iter().chain(drop_ins) {
            if let Some(Ok(content)) = host.read(&path).map(|text| text.content) {
                manager.take(&path, &content);
            }
        }
        manager
    }

    fn take(&mut self, path: &str, content: &str) {
        for line in lines(content) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let variables = match key.trim() {
                "DefaultEnvironment" => &mut self.default,
                "ManagerEnvironment" => &mut self.own,
                _ => continue,
            };
            if value.trim().is_empty() {
                variables.clear();
            }
            for word in words(&expanded(value.trim(), "")) {
                if let Some((name, value)) = word.split_once('=') {
                    variables.insert(name.to_owned(), (value.to_owned(), path.to_owned()));
                }
            }
        }
    }
}
