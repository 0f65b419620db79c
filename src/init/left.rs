//! What is left to do at the end of a run, and what nobody has agreed to.

use std::io::{BufRead, Write};

use super::ask::{Manner, Stop};
use super::place::Before;
use super::service::Manager;
use super::{CONFIG, Init, Settings, Step};
use crate::shell::root_flag;

impl<R: BufRead, W: Write> Init<'_, R, W> {
    /// That a hop of the way has failed, and what to do; without the configuration there is nothing to check by.
    pub(super) fn not_open(&self, is_written: bool) -> String {
        if is_written {
            format!(
                "the way to the registry is not open yet, and pulls go to the source or fail until it is: see above for what to do; then{}",
                self.check_online()
            )
        } else {
            let flags = self.settings.as_ref().map(Settings::to_flags).unwrap_or_default();
            format!(
                "the way to the registry is not open yet: see above for what to do; then: acr-cache-proxy init{flags}{}{}",
                self.options.manner(),
                self.root()
            )
        }
    }

    /// What `--yes` does of all that was shown.
    fn by_yes(&self) -> String {
        let is_edited = matches!(self.host.standing, Before::Edited(_));
        let replaces = self.settings.as_ref().is_some_and(|settings| settings.to_yaml() != self.host.standing.text());
        let flags = if is_edited && replaces { "--yes --replace" } else { "--yes" };
        let starts = self.does(Step::Service) && matches!(self.host.manager, Manager::Systemd { .. });
        let has_engines = self.does(Step::Engines) && !self.host.clients.is_empty();
        if has_engines && !starts && !self.is_served() {
            format!("{flags} does the above but for the engines' files, because {}", self.lack())
        } else {
            format!("{flags} does all of the above")
        }
    }

    /// Says what is left to do, or where to look next; `serves` says whether there is a proxy for engines.
    pub(super) fn end(&mut self, serves: bool) -> Result<(), Stop> {
        if !self.host.is_root {
            let flags = self.settings.as_ref().map(Settings::to_flags).unwrap_or_default();
            self.left.push(format!(
                "nothing was done, because you are not root: sudo acr-cache-proxy init{flags}{}{}",
                self.options.manner(),
                self.root()
            ));
        } else if self.talk.manner() == Manner::Show {
            let why = "nothing was done, because standard input is no terminal and nobody agrees";
            self.left.push(format!("{why}: {}", self.by_yes()));
        }
        if self.left.is_empty() {
            if !serves {
                self.talk.say(&format!("\nNo pull comes through the proxy yet, because {}.\n", self.lack()))?;
            }
            self.talk.say(&format!("\nWhether pulls get through, hop by hop{}\n", self.check_online()))?;
            let doctor = format!("acr-cache-proxy doctor{}", self.root());
            self.talk.say(&format!("Whether each engine comes here, and what is left to do for it: {doctor}\n"))?;
        }
        Ok(())
    }

    /// The end of a sentence. From another host the way may be open or not, and somebody else signs in.
    fn check_online(&self) -> String {
        let (on_its_host, config) = match self.host.is_this {
            true => ("", self.host.config.display().to_string()),
            false => (", on that host", format!("/{CONFIG}")),
        };
        format!("{on_its_host}: acr-cache-proxy check --online --config {config}")
    }

    /// The flag by which another command looks at the same tree; empty for this machine.
    pub(super) fn root(&self) -> String {
        if self.host.is_this { String::new() } else { root_flag(&self.options.root) }
    }
}
