//! A proxy that listens already where `init` is to put one: whether it is the host's own, and whether it has read the configuration.

use std::io::{BufRead, Write};
use std::net::SocketAddr;

use super::ask::Manner;
use super::port::{self, Port};
use super::served::{self, Running, Unread};
use super::service::{self, Manager};
use super::{Init, Step};
use crate::activation::Socket;
use crate::admin::ways::Ways;
use crate::config::Config;

impl<R: BufRead, W: Write> Init<'_, R, W> {
    /// Whether the proxy can listen where the configuration says, or one does already; else it is told.
    pub(super) fn can_listen(&mut self, config: &Config, is_new: bool) -> bool {
        let refusal = self.host.sockets.own().and_then(|socket| socket.refusal(config));
        if let Some(sentence) = refusal.filter(|_| self.host.is_this) {
            self.left.push(sentence);
            return false;
        }
        // The service gets it at its start. Who connects there before starts it with the configuration of before.
        let is_kept = |address: &SocketAddr| self.host.sockets.alone_at_address(*address).is_some_and(Socket::is_own);
        let Some(found) = self.host.is_this.then(|| port::look(config, is_kept)).flatten() else { return true };
        let before = self.host.standing.config();
        let admin = before.as_ref().and_then(Config::admin).filter(|admin| !is_kept(admin));
        let answers = admin.is_some_and(served::answers);
        let may_be_the_hosts = |is_ours: bool| match self.host.manager {
            Manager::Systemd { is_active } => is_active,
            // Who starts it is not known here.
            Manager::Absent(_) | Manager::Elsewhere => is_ours,
        };
        if found.port == Port::Free {
            // The host's own may run at other addresses.
            if let Some(before) = before.filter(|_| is_new && answers && may_be_the_hosts(true)) {
                self.running = Running::Former;
                self.unread = Some(Unread::of(&before, config));
            }
            return true;
        }
        let running = served::look(config, before.as_ref(), found.address);
        let of_file = before.as_ref().filter(|before| served::listens(before, found.address));
        // Its admin listener tells what one with TLS cannot be asked in plain HTTP.
        let is_ours = found.port == Port::Ours || of_file.is_some() && answers;
        // One that runs by the host's configuration can be told to read it again; of another one, all that helps is to serve the same.
        let serves_it = found.port == Port::Ours && running == Running::Same;
        let is_the_hosts = may_be_the_hosts(is_ours) && (serves_it || of_file.is_some());
        self.running = running;
        if !is_the_hosts {
            self.refuse(&found, config, is_new);
            return false;
        }
        if let Some(before) = of_file {
            let listens = port::silent(config).is_none();
            let serves_it = config.admin().is_none_or(|admin| served::signs_in_as(config, admin));
            let is_read = !is_new && listens && serves_it;
            self.unread = (!is_read).then(|| Unread::of(before, config));
            if !listens {
                self.running = Running::Former;
            }
        }
        true
    }

    /// That somebody else listens there.
    fn refuse(&mut self, found: &port::Found, config: &Config, is_new: bool) {
        let path = self.host.config.display().to_string();
        let settings = self.settings.as_ref().filter(|_| is_new);
        let by = settings.map(|settings| (settings, self.options)).ok_or(&path);
        let who = match found.port {
            Port::Ours => self.running.who(&Ways::of(config.routes())),
            Port::Free | Port::Taken => "another program".to_owned(),
        };
        // Where a service manager starts the proxy, no other one may listen there, whatever it serves.
        let is_by_hand = found.port == Port::Ours && !matches!(self.host.manager, Manager::Systemd { .. });
        let helps = config.admin().filter(|_| is_by_hand && self.running == Running::Unknown).map(|admin| {
            format!(
                "start it again with --admin-address {admin}, where it tells init what it serves, and run init again"
            )
        });
        self.left.push(found.refusal(&who, helps, by));
    }

    /// What has the proxy that runs go by the configuration, a clause.
    pub(super) fn remedy(&self) -> String {
        // By a reload, one of other settings would read its own again.
        let by_unit = matches!(self.host.manager, Manager::Systemd { .. });
        let other = by_unit.then(|| service::other_settings(&self.options.root, &self.host.config)).flatten();
        other.unwrap_or_else(|| self.unread.as_ref().unwrap_or(&Unread::Reload).to_string())
    }

    /// Why no engine is to be sent to the proxy yet, a clause with what to do.
    pub(super) fn lack(&self) -> String {
        self.running.lack(&self.remedy())
    }

    /// Says that the host's own proxy goes by another configuration, unless another step says so.
    pub(super) fn tell_unread(&mut self) {
        if self.unread.is_none() || !self.host.is_root || self.talk.manner() == Manner::Show {
            return;
        }
        let by_service = self.does(Step::Service) && !matches!(self.host.manager, Manager::Systemd { .. });
        let by_engines = self.does(Step::Engines) && self.talk.manner() == Manner::Yes && !self.host.clients.is_empty();
        if self.running == Running::Same || !by_service && !by_engines {
            let config = self.host.config.display();
            let remedy = self.remedy();
            self.left.push(format!("the proxy that runs does not go by {config} as it is now: {remedy}"));
        }
    }
}
