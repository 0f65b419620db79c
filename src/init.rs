//! `init`: prepares a host step by step: tries the way to the registry, writes the configuration, starts the service, and has the
//! container engines of the host come here.
//!
//! Each step is shown before it is agreed to, can be refused, and is whole or not done at all. The engines come last, so that
//! none is sent to a proxy that does not run.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal as _, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use similar::TextDiff;

use crate::activation::Sockets;
use crate::client_config::{Client, masked};
use crate::config::{Config, Flags};
use crate::host::Host;
use crate::identity;
use crate::logger;
use crate::service_variables::Given;

mod ask;
mod engines;
mod left;
mod place;
mod port;
mod running;
mod served;
mod service;
mod settings;
mod step;
mod trial;

use ask::{Conversation, Manner, Stop};
use place::Before;
use served::{Running, Unread};
use service::Manager;
pub(crate) use settings::{Rule, Settings};
pub(crate) use step::Step;

/// Something is left to do.
const FAILED: u8 = 1;
/// Where the unit looks for the configuration, and for variables, below the root.
pub(crate) const CONFIG: &str = "etc/acr-cache-proxy/config.yaml";
const ENVIRONMENT: &str = "etc/acr-cache-proxy/environment";
/// In place of a path, of a configuration that is not written yet.
const NEW: &str = "config.yaml (not written yet)";

/// What is known before anything is asked.
#[derive(Debug)]
pub(crate) struct Options {
    /// The login server; `None` asks for it, or takes the configuration that stands there.
    pub registry: Option<String>,
    /// The cache rules; none asks for them.
    pub rules: Vec<Rule>,
    /// Of a user-assigned managed identity.
    pub client_id: Option<String>,
    /// Where the proxy is to listen, if not where it does by default.
    pub listen: Option<SocketAddr>,
    /// The same of its admin listener.
    pub admin: Option<SocketAddr>,
    /// All is agreed to.
    pub yes: bool,
    /// An edited configuration is replaced, too.
    pub replace: bool,
    /// Left out.
    pub skip: Vec<Step>,
    /// Below which all files are.
    pub root: PathBuf,
}

impl Options {
    /// The flags that say how it is done.
    fn manner(&self) -> String {
        let skips = self.skip.iter().map(|step| format!(" --skip {}", step.name()));
        let is_given = [(self.yes, " --yes"), (self.replace, " --replace")];
        is_given.into_iter().filter(|(is_given, _)| *is_given).map(|(_, flag)| flag.to_owned()).chain(skips).collect()
    }
}

/// Prepares the host. Returns the exit status.
pub(crate) fn run(options: &Options) -> u8 {
    let manner = match (options.yes, io::stdin().is_terminal()) {
        (true, _) => Manner::Yes,
        (false, true) => Manner::Ask,
        (false, false) => Manner::Show,
    };
    let is_root = nix::unistd::geteuid().is_root() || options.root != Path::new("/");
    let talk = Conversation::new(io::stdin().lock(), io::stdout(), manner);
    let host = Found::look(options, is_root);
    match (Init::new(options, talk, host)).go() {
        Ok(left) if left.is_empty() => 0,
        Ok(left) => {
            logger::complain(&left.join("\n"));
            FAILED
        }
        Err(stop) => {
            logger::complain(&stop.to_string());
            FAILED
        }
    }
}

/// What is there before the first step.
struct Found {
    config: PathBuf,
    environment: PathBuf,
    standing: Before,
    clients: Vec<Client>,
    manager: Manager,
    /// Where systemd listens for services.
    sockets: Sockets,
    /// Files may be written and services started.
    is_root: bool,
    /// It is this machine, on which the proxy is to listen, and not a tree of files.
    is_this: bool,
}

impl Found {
    fn look(options: &Options, is_root: bool) -> Self {
        let Options { root, .. } = options;
        let (config, environment) = (root.join(CONFIG), root.join(ENVIRONMENT));
        let standing = Before::look(root);
        let is_this = root == Path::new("/");
        let (clients, manager) = (engines::find(root), Manager::find(root));
        let sockets = Sockets::look_and_wait(&Host::new(root.clone()));
        Self { standing, config, environment, clients, manager, sockets, is_root, is_this }
    }
}

/// The configuration after which the host is prepared.
struct Chosen {
    text: String,
    /// It is not there yet.
    is_new: bool,
}

/// One run.
struct Init<'a, R, W> {
    options: &'a Options,
    talk: Conversation<R, W>,
    host: Found,
    /// What was chosen: by its flags the same can be done without these questions.
    settings: Option<Settings>,
    /// What is left to do, a sentence each.
    left: Vec<String>,
    /// The proxy cannot serve yet: an empty answer to a question agrees to nothing any more.
    is_doubtful: bool,
    /// No hop of the way has failed, as far as it was tried.
    is_open: bool,
    /// Whether a proxy listens already where the configuration says, and what it serves.
    running: Running,
    /// The host's own proxy runs and goes by another configuration.
    unread: Option<Unread>,
}

impl<'a, R: BufRead, W: Write> Init<'a, R, W> {
    fn new(options: &'a Options, talk: Conversation<R, W>, host: Found) -> Self {
        let (left, running, unread) = (Vec::new(), Running::Nothing, None);
        Self { options, talk, host, settings: None, left, is_doubtful: false, is_open: true, running, unread }
    }

    /// All steps. Returns what is left to do.
    fn go(mut self) -> Result<Vec<String>, Stop> {
        self.introduce()?;
        if let Before::Unusable(why) = &self.host.standing {
            self.left.push(format!("{} {why}", self.host.config.display()));
            return Ok(self.left);
        }
        let Some(chosen) = self.choose()? else { return Ok(self.left) };
        // What is not written yet is in no file.
        let place = if chosen.is_new { Path::new(NEW) } else { &self.host.config };
        let config = match Config::load(&Flags::default().with_text(place, &chosen.text)) {
            Ok(config) => config,
            Err(mistakes) => {
                let correct = if chosen.is_new { "give other flags" } else { "correct the configuration" };
                self.left.push(format!("{mistakes}nothing was done: {correct}, and run init again"));
                return Ok(self.left);
            }
        };
        if !self.can_listen(&config, chosen.is_new) {
            return Ok(self.left);
        }
        if self.does(Step::Try) {
            self.try_way(&chosen)?;
        }
        let is_written = !chosen.is_new || self.write(&chosen.text)?;
        if !self.is_open {
            self.left.insert(0, self.not_open(is_written));
        }
        if !is_written && self.talk.manner() != Manner::Show && self.host.is_root {
            match self.host.standing {
                // By --yes it is told at the end.
                Before::Edited(_) if self.talk.manner() == Manner::Yes => {}
                Before::Edited(_) => self.talk.say(
                    "\nNothing else is done. Without --registry, init goes on with the configuration as it is.\n",
                )?,
                _ => self.talk.say(
                    "\nWithout a configuration there is nothing to start, and nothing for engines to come to.\n",
                )?,
            }
            return Ok(self.left);
        }
        self.tell_closed(&config);
        let serves = if self.does(Step::Service) { self.start(&config, chosen.is_new)? } else { self.is_served() };
        self.tell_unread();
        if serves {
            self.look_whether_ready(&config)?;
        }
        if self.does(Step::Engines) {
            self.bring_engines(&config, serves)?;
        }
        self.end(serves)?;
        Ok(self.left)
    }

    fn does(&self, step: Step) -> bool {
        !self.options.skip.contains(&step)
    }

    /// Which steps there are, and which of them need root.
    fn introduce(&mut self) -> Result<(), Stop> {
        let names: Vec<_> = self.host.clients.iter().map(|client| client.name()).collect();
        let engines = if names.is_empty() { "no engine is found here".to_owned() } else { names.join(", ") };
        let start = match self.host.manager.why_not() {
            None => "start the service, now and at each boot".to_owned(),
            Some(why) => format!("start the service: only told how, because {why}"),
        };
        let steps = [
            (self.does(Step::Try), "try the way to the registry, as the service will go it".to_owned(), false),
            (true, format!("write {}", self.host.config.display()), true),
            (self.does(Step::Service), start, true),
            (self.does(Step::Engines), format!("write the files by which engines pull through it: {engines}"), true),
        ];
        let mut text = "This prepares the host to pull through a registry. Each step is shown first:\n".to_owned();
        for (number, (_, step, needs_root)) in steps.iter().filter(|(is_done, ..)| *is_done).enumerate() {
            let root = if *needs_root && !self.host.is_root { " (needs root)" } else { "" };
            let _ = writeln!(text, "  {}. {step}{root}", number + 1);
        }
        if !self.host.is_root {
            text += "You are not root, so what needs it is only shown.\n";
        }
        text.push('\n');
        self.talk.say(&text)
    }

    /// The configuration: by flags, the one that stands there, or by answers. `None` is one that nobody can be asked for.
    fn choose(&mut self) -> Result<Option<Chosen>, Stop> {
        if self.options.registry.is_none()
            && let Before::Edited(text) = &self.host.standing
        {
            let (text, config) = (text.clone(), self.host.config.display().to_string());
            self.talk.say(&format!(
                "There is a configuration already: {config}\n{}",
                place::about(&self.host.config, &text)
            ))?;
            // One that the proxy refuses is of no use as it is.
            let is_good = self.host.standing.config().is_some();
            if self.talk.manner() != Manner::Ask || self.talk.confirm("Keep it as it is?", is_good)? {
                return Ok(Some(Chosen { text, is_new: false }));
            }
        }
        let Some(settings) = self.settings()? else { return Ok(None) };
        let text = settings.to_yaml();
        self.settings = Some(settings);
        let is_new = text != self.host.standing.text();
        Ok(Some(Chosen { text, is_new }))
    }

    /// By flags, else by answers.
    fn settings(&mut self) -> Result<Option<Settings>, Stop> {
        let Options { registry, rules, client_id, .. } = self.options;
        let is_known = registry.is_some() && !rules.is_empty();
        if !is_known && self.talk.manner() != Manner::Ask {
            let lacks = [("--registry", registry.is_none()), ("--prefix", rules.is_empty())];
            let lacks: Vec<_> = lacks.into_iter().filter(|(_, lacks)| *lacks).map(|(flag, _)| flag).collect();
            self.left.push(format!("nobody can be asked: give {}", lacks.join(" and ")));
            return Ok(None);
        }
        let registry = match registry {
            Some(registry) => registry.clone(),
            None => {
                self.talk.ask("The registry's login server, such as example.azurecr.io: ", Settings::parse_registry)?
            }
        };
        let rules = if rules.is_empty() { Rule::ask_all(&mut self.talk)? } else { rules.clone() };
        let (listen, admin) =
            (self.options.listen.unwrap_or(Settings::LISTEN), self.options.admin.unwrap_or(Settings::ADMIN));
        Ok(Some(Settings { registry, rules, client_id: client_id.clone(), listen, admin }))
    }

    /// What fails here prevents nothing: a role may take minutes to count, a firewall may be opened later.
    fn try_way(&mut self, chosen: &Chosen) -> Result<(), Stop> {
        let environment = self.host.environment.display().to_string();
        let given = Given::read(Some(&self.host.config), &self.host.environment);
        let by = match &given {
            Ok(given) if given.files.is_empty() => String::new(),
            Ok(given) => format!(", with the variables of {}", given.files.join(" and ")),
            Err(_) => format!(", with the variables of {environment}"),
        };
        let question = format!("\nTry the way to the registry{by}?");
        match self.talk.manner() {
            Manner::Show => return Ok(()),
            Manner::Ask => {
                if !self.talk.confirm(&question, true)? {
                    return Ok(());
                }
            }
            Manner::Yes => {}
        }
        self.talk.say("Trying the way to the registry, for a minute at most.\n")?;
        let place = if chosen.is_new { NEW.to_owned() } else { self.host.config.display().to_string() };
        let trial = given
            .map(|given| given.variables)
            .and_then(|variables| Ok((trial::go(&chosen.text, &place, &variables)?, variables)));
        match trial {
            Ok((trial, variables)) => {
                for sentence in variables.ignored() {
                    self.talk.say(&format!("{environment}: {sentence}\n"))?;
                }
                self.talk.say(&trial.report)?;
                self.is_open = trial.is_open;
                if trial.is_open {
                    return Ok(());
                }
                if trial.lacks_basis() && self.talk.manner() == Manner::Ask {
                    self.is_doubtful = true;
                    self.talk.say(
                        "Until this works the proxy serves no pull, so an empty answer means no from here on.\n",
                    )?;
                }
                let lacks = trial::lacks(&variables, identity::is_set);
                if !lacks.is_empty() {
                    self.talk.say(&format!(
                        "Set here, but not for the service: {}. What it needs of them goes into {environment}, a line NAME=value each.\n",
                        lacks.join(", ")
                    ))?;
                }
            }
            Err(cause) => self.left.push(format!("the way to the registry could not be tried: {cause}")),
        }
        Ok(())
    }

    /// Returns whether the configuration is there.
    fn write(&mut self, text: &str) -> Result<bool, Stop> {
        let path = self.host.config.clone();
        let shown = path.display();
        let is_edited = matches!(self.host.standing, Before::Edited(_));
        let keeps = is_edited && self.talk.manner() == Manner::Yes && !self.options.replace;
        let question = if is_edited {
            let differs = TextDiff::from_lines(self.host.standing.text(), text);
            // The file may have a password, of the proxy to the internet.
            let differs = indented(&masked(&differs.unified_diff().to_string()));
            let so = match keeps {
                true => "is there already, with other content. The flags would change it so",
                false => "would be changed so, and a copy of it kept",
            };
            self.talk.say(&format!("\n{shown} {so}:\n{differs}"))?;
            "Replace it?"
        } else {
            let sample = if self.host.standing == Before::Sample { ", in place of the package's example" } else { "" };
            self.talk.say(&format!("\nThis goes into {shown}{sample}:\n\n{}\n", indented(text)))?;
            "Write it?"
        };
        if keeps {
            self.left.push(format!(
                "nothing was done, because {shown} is there already, with other content: --replace replaces it and keeps a copy; without --registry, init goes on with it as it is"
            ));
            return Ok(false);
        }
        // Somebody's work is not replaced by an empty line.
        if !self.agrees(question, !is_edited || self.options.replace)? {
            return Ok(false);
        }
        match place::put(&self.options.root, text, &self.host.standing) {
            Ok(copy) => {
                let copy = copy.map(|copy| format!("; the one before is {}", copy.display())).unwrap_or_default();
                self.talk.say(&format!("Wrote {shown}{copy}.\n"))?;
                Ok(true)
            }
            Err(cause) => {
                self.left.push(cause);
                Ok(false)
            }
        }
    }

    /// Whether a step that needs root is to be done.
    fn agrees(&mut self, question: &str, default: bool) -> Result<bool, Stop> {
        if !self.host.is_root {
            return Ok(false);
        }
        self.talk.confirm(question, default && !self.is_doubtful)
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

#[cfg(test)]
mod tests;
