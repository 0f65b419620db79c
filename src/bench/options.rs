//! The settings of a run, valid by construction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flags::Flags;
use super::image::{Image, Mix};
use super::load::{Connections, Level};
use super::origin::Origin;
use super::output::{Output, Outputs};
use super::pull::{Layers, Platform};
use crate::config::{self, Config, Domain};
use oci::name::Prefix;
use oci::route::Blobs;

/// Of a pull that the flags do not say.
const PLATFORM: &str = "linux/amd64";
/// Enough for a p90, and soon over.
const DEFAULT_PULLS: u64 = 50;
/// Pulls at once in an open loop: enough not to be what is measured.
const OPEN_CONCURRENCY: usize = 256;
/// Of one level; with cold connections, each takes some file descriptors.
const MAX_CONCURRENCY: usize = 1_024;
/// Levels of one run: each is a table of its own.
const MAX_LEVELS: usize = 16;
/// What one process can begin on time.
const MAX_RATE: f64 = 10_000.0;
/// A day of any rate.
const MAX_PULLS: u64 = 1_000_000_000;
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// From here to a region next door.
const DEFAULT_RTT: Duration = Duration::from_millis(20);
/// Halfway to the moon; more is a mistake.
const MAX_RTT: Duration = Duration::from_secs(2);
/// A mix has some tens of lines.
const MAX_MIX_FILE: u64 = 1 << 20;

/// What to measure, and where to write what came out.
#[derive(Debug)]
pub struct Options {
    /// Whom to ask.
    pub target: Target,
    /// Of an index.
    pub platform: Platform,
    /// How much of the layers.
    pub layers: Layers,
    /// Pulls on each side of a level.
    pub pulls: Option<u64>,
    /// How long a level begins pulls.
    pub duration: Option<Duration>,
    /// One after the other; never empty.
    pub levels: Vec<Level>,
    /// Where the report goes.
    pub outputs: Outputs,
}

/// Whom to ask.
#[derive(Debug)]
pub enum Target {
    /// What the flags name; at least one side is there.
    Named {
        /// What is pulled.
        mix: Mix,
        /// The proxy.
        via: Option<Origin>,
        /// The registry, and who signs in to it.
        direct: Option<Box<Config>>,
        /// Trusted besides the system's.
        ca_file: Option<PathBuf>,
    },
    /// The stand-in for Azure, so far away.
    Emulated {
        /// How the proxy serves blobs.
        blobs: Blobs,
        /// There and back.
        rtt: Duration,
    },
}

impl Options {
    /// From the flags. All mistakes at once, a sentence each.
    pub fn parse(flags: Flags) -> Result<Self, Vec<String>> {
        let mut judge = Judge { mistakes: Vec::new() };
        let platform = judge.flag("--platform", Some(flags.platform.as_deref().unwrap_or(PLATFORM)), parse_platform);
        let layers = judge.flag("--layers", flags.layers.as_deref(), parse_layers).unwrap_or(Layers::Full);
        let pulls = judge.flag("--pulls", flags.pulls.as_deref(), parse_pulls);
        let duration = judge.flag("--duration", flags.duration.as_deref(), |text| parse_time(text, MAX_DURATION));
        let rate = judge.flag("--rate", flags.rate.as_deref(), parse_rate);
        let usual = || vec![if flags.rate.is_some() { OPEN_CONCURRENCY } else { 1 }];
        let concurrency =
            judge.flag("--concurrency", flags.concurrency.as_deref(), parse_concurrency).unwrap_or_else(usual);
        let target = if flags.emulated { judge.emulated(&flags) } else { judge.named(&flags) };
        let outputs = judge.outputs(&flags);

        let asked = [flags.cold, flags.per_pull, flags.warm];
        let none = asked == [false; 3];
        let levels: Vec<_> = Connections::ALL
            .into_iter()
            .zip(asked)
            .filter(|(connections, asked)| *asked || (none && *connections == Connections::Cold))
            .flat_map(|(connections, _)| {
                concurrency.iter().map(move |&concurrency| Level { connections, concurrency, rate })
            })
            .collect();
        match (target, platform) {
            (Some(target), Some(platform)) if judge.mistakes.is_empty() => Ok(Self {
                target,
                platform,
                layers,
                pulls: pulls.or_else(|| duration.is_none().then_some(DEFAULT_PULLS)),
                duration,
                levels,
                outputs,
            }),
            _ => Err(judge.mistakes),
        }
    }
}

/// Collects mistakes while flags are parsed.
struct Judge {
    mistakes: Vec<String>,
}

impl Judge {
    fn flag<T>(&mut self, name: &str, text: Option<&str>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(text?).map_err(|wrong| self.mistakes.push(format!("{name}: {wrong}"))).ok()
    }

    fn outputs(&mut self, flags: &Flags) -> Outputs {
        let mut output = |flag: &str, path: Option<&Path>| {
            Output::parse(path?).map_err(|wrong| self.mistakes.push(format!("{flag}: {wrong}"))).ok()
        };
        let outputs = Outputs {
            json: output("--json", flags.json.as_deref()),
            svg: output("--svg", flags.svg.as_deref()),
            html: output("--html", flags.html.as_deref()),
        };
        if let Some((flag, earlier, output)) = outputs.clash() {
            self.mistakes.push(format!("{flag}: {output} is taken by {earlier}: give another file"));
        }
        outputs
    }

    fn emulated(&mut self, flags: &Flags) -> Option<Target> {
        let given = [
            ("--image", !flags.images.is_empty()),
            ("--mix", flags.mix.is_some()),
            ("--via", flags.via.is_some()),
            ("--direct", flags.direct.is_some()),
            ("--config", flags.config.is_some()),
            ("--ca-file", flags.ca_file.is_some()),
        ];
        for (name, _) in given.iter().filter(|(_, given)| *given) {
            self.mistakes.push(format!("{name}: means nothing with --emulated, which brings its own"));
        }
        let rtt = match &flags.rtt {
            Some(text) => self.flag("--rtt", Some(text), |text| parse_time(text, MAX_RTT))?,
            None => DEFAULT_RTT,
        };
        let blobs = match &flags.blobs {
            Some(text) => self.flag("--blobs", Some(text), config::parse_blobs)?,
            None => Blobs::default(),
        };
        Some(Target::Emulated { blobs, rtt })
    }

    fn named(&mut self, flags: &Flags) -> Option<Target> {
        if flags.rtt.is_some() {
            self.mistakes.push("--rtt: means nothing without --emulated: the network is as far as it is".to_owned());
        }
        if flags.blobs.is_some() {
            self.mistakes.push("--blobs: means nothing without --emulated: it is the proxy's own setting".to_owned());
        }
        let mix = self.mix(flags);
        let via = self.flag("--via", flags.via.as_deref(), parse_via);
        let direct = self.flag("--direct", flags.direct.as_deref(), parse_direct);
        if flags.via.is_none() && flags.direct.is_none() {
            self.mistakes.push(
                "nothing to measure: give --via, such as --via http://127.0.0.1:8080, or --direct, such as --direct example.azurecr.io/hub, or both, or --emulated".to_owned(),
            );
        }
        if flags.direct.is_none() && flags.config.is_some() {
            self.mistakes
                .push("--config: means nothing without --direct: who signs in is the proxy's matter".to_owned());
        }
        let direct = match direct {
            Some((domain, prefix)) => Some(self.config(flags, &domain, &prefix)?),
            None => None,
        };
        let ca_file = direct.as_ref().and_then(|config| config.ca_file().map(Path::to_owned));
        let ca_file = ca_file.or_else(|| flags.ca_file.clone());
        Some(Target::Named { mix: mix?, via, direct: direct.map(Box::new), ca_file })
    }

    /// The identity and the addresses of the proxy's file, for the registry that the flag names.
    fn config(&mut self, flags: &Flags, domain: &Domain, prefix: &Prefix) -> Option<Config> {
        let flags = config::Flags {
            config: flags.config.clone(),
            domain: Some(domain.authority().to_owned()),
            prefix: Some(prefix.as_str().to_owned()),
            ca_file: flags.ca_file.clone(),
            ..config::Flags::default()
        };
        let loaded = Config::load(&flags);
        loaded.map_err(|mistakes| self.mistakes.extend(mistakes.to_string().lines().map(str::to_owned))).ok()
    }

    fn mix(&mut self, flags: &Flags) -> Option<Mix> {
        let before = self.mistakes.len();
        let mut images = Vec::new();
        for text in &flags.images {
            images.extend(self.flag("--image", Some(text), |text| Image::parse(text).map(|image| (image, 1))));
        }
        if let Some(path) = &flags.mix {
            match read_mix(path) {
                Ok(text) => {
                    for (number, line) in text.lines().enumerate() {
                        match Mix::parse_line(line) {
                            Ok(image) => images.extend(image),
                            Err(wrong) => self.mistakes.push(format!("{}:{}: {wrong}", path.display(), number + 1)),
                        }
                    }
                }
                Err(cause) => self.mistakes.push(format!("--mix: {}: {cause}", path.display())),
            }
        }
        if self.mistakes.len() > before {
            return None;
        }
        Mix::new(images).map_err(|wrong| self.mistakes.push(wrong)).ok()
    }
}

fn read_mix(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|cause| cause.to_string())?.len();
    if size > MAX_MIX_FILE {
        return Err(format!("{size} bytes are too many for a list of images"));
    }
    std::fs::read_to_string(path).map_err(|cause| cause.to_string())
}

fn parse_platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text)
        .ok_or_else(|| format!("{text:?} is no platform: give system and architecture, such as linux/amd64"))
}

fn parse_layers(text: &str) -> Result<Layers, String> {
    match text {
        "none" => Ok(Layers::None),
        "head" => Ok(Layers::Head),
        "full" => Ok(Layers::Full),
        _ => Err(format!("{text:?} is no way to ask for layers: there are none, head and full")),
    }
}

fn parse_pulls(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of pulls: give one from 1 to {MAX_PULLS}");
    text.parse().ok().filter(|pulls| (1..=MAX_PULLS).contains(pulls)).ok_or_else(wrong)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no rate: give pulls a second, above 0 and up to {MAX_RATE}, such as 20 or 0.5");
    // A rate so low that its first pull never comes is a mistake, too.
    text.parse().ok().filter(|rate| (0.001..=MAX_RATE).contains(rate)).ok_or_else(wrong)
}

fn parse_concurrency(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || {
        format!(
            "{text:?} is no list of pulls at once: give up to {MAX_LEVELS} numbers from 1 to {MAX_CONCURRENCY}, such as 1,8,64"
        )
    };
    let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    let fits = |numbers: &Vec<usize>| {
        numbers.len() <= MAX_LEVELS && numbers.iter().all(|number| (1..=MAX_CONCURRENCY).contains(number))
    };
    numbers.filter(fits).ok_or_else(wrong)
}

/// Said without the text, which holds a password.
const NO_CREDENTIALS: &str = "an address has no user name or password here";

fn parse_via(text: &str) -> Result<Origin, String> {
    if text.contains('@') {
        return Err(format!("{NO_CREDENTIALS}: the proxy asks for none"));
    }
    match Origin::parse_url(text) {
        Some((origin, path)) if path == "/" => Ok(origin),
        _ => {
            Err(format!("{text:?} is no address of a proxy: give scheme, host and port, such as http://127.0.0.1:8080"))
        }
    }
}

fn parse_direct(text: &str) -> Result<(Domain, Prefix), String> {
    if text.contains('@') {
        return Err(format!("{NO_CREDENTIALS}: --config says who signs in"));
    }
    if text.contains("://") {
        return Err(format!(
            "{text:?} has a scheme: give login server and prefix alone, such as example.azurecr.io/hub"
        ));
    }
    let (domain, prefix) = text.split_once('/').unwrap_or((text, ""));
    let prefix = Prefix::parse(prefix).ok_or_else(|| {
        format!("{prefix:?} is no repository path: give the cache rule's target without its /*, such as example.azurecr.io/hub")
    })?;
    Ok((Domain::parse(domain)?, prefix))
}

/// `20ms`, `1.5s`, `5m`, `1h`.
fn parse_time(text: &str, longest: Duration) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: give a number and a unit, such as 20ms, 30s or 5m");
    let unit = text.find(|character: char| character.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain).ok_or_else(wrong)? * factor;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && time <= longest => Ok(time),
        _ => Err(format!("{text:?} is not above 0 and up to {} s", longest.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            images: vec!["library/nginx:1.27".to_owned()],
            via: Some("http://127.0.0.1:8080".to_owned()),
            ..Flags::default()
        }
    }

    #[test]
    fn defaults_are_a_cold_closed_loop() {
        let options = Options::parse(flags()).expect("valid");
        assert_eq!(options.levels, [Level { connections: Connections::Cold, concurrency: 1, rate: None }]);
        assert_eq!((options.pulls, options.duration, options.layers), (Some(DEFAULT_PULLS), None, Layers::Full));
    }

    #[test]
    fn cold_and_warm_and_a_list_are_levels() {
        let (concurrency, duration) = (Some("1,8,64".to_owned()), Some("1.5s".to_owned()));
        let all = Flags { cold: true, per_pull: true, warm: true, concurrency, duration, ..flags() };
        let options = Options::parse(all).expect("valid");
        let levels: Vec<_> = options.levels.iter().map(|level| (level.connections, level.concurrency)).collect();
        let expected = Connections::ALL.map(|connections| [1, 8, 64].map(|concurrency| (connections, concurrency)));
        assert_eq!(levels, expected.concat());
        assert_eq!((options.pulls, options.duration), (None, Some(Duration::from_millis(1500))));
    }

    #[test]
    fn mistakes_are_a_sentence_each_and_come_at_once() {
        let some = |text: &str| Some(text.to_owned());
        for (flags, says) in [
            (Flags { images: vec![], ..flags() }, "no image is named: give --image"),
            (Flags { images: vec!["x y".to_owned()], ..flags() }, "--image: \"x y\" is no image"),
            (Flags { via: None, ..flags() }, "nothing to measure: give --via"),
            (Flags { via: some("127.0.0.1:8080"), ..flags() }, "--via: \"127.0.0.1:8080\" is no address of a proxy"),
            (Flags { via: some("http://a/hub"), ..flags() }, "--via: \"http://a/hub\" is no address of a proxy"),
            (Flags { direct: some("https://a/hub"), ..flags() }, "--direct: \"https://a/hub\" has a scheme"),
            (Flags { direct: some("a.azurecr.io/Hub"), ..flags() }, "--direct: \"Hub\" is no repository path"),
            (Flags { direct: some("a_b/hub"), ..flags() }, "--direct: \"a_b\" is no host name"),
            (Flags { concurrency: some("1,0"), ..flags() }, "--concurrency: \"1,0\" is no list"),
            (Flags { rate: some("0"), ..flags() }, "--rate: \"0\" is no rate"),
            (Flags { rate: some("NaN"), ..flags() }, "--rate: \"NaN\" is no rate"),
            (Flags { pulls: some("-1"), ..flags() }, "--pulls: \"-1\" is no number"),
            (Flags { duration: some("30"), ..flags() }, "--duration: \"30\" is no time"),
            (Flags { duration: some("0s"), ..flags() }, "--duration: \"0s\" is not above 0"),
            (Flags { layers: some("all"), ..flags() }, "--layers: \"all\" is no way"),
            (Flags { via: some("http://user:pass@a/"), ..flags() }, "--via: an address has no user name or password"),
            (Flags { direct: some("user:pass@a.azurecr.io"), ..flags() }, "--direct: an address has no user name"),
            (Flags { html: Some("/nonexistent/a.html".into()), ..flags() }, "--html: /nonexistent/a.html: there is no"),
            (Flags { json: Some("-".into()), html: Some("-".into()), ..flags() }, "--html: standard output is taken"),
            (Flags { platform: some("amd64"), ..flags() }, "--platform: \"amd64\" is no platform"),
            (Flags { rtt: some("20ms"), ..flags() }, "--rtt: means nothing without --emulated"),
            (Flags { blobs: some("proxy"), ..flags() }, "--blobs: means nothing without --emulated"),
            (Flags { emulated: true, blobs: some("x"), ..Flags::default() }, "--blobs: \"x\" is no way to serve"),
            (Flags { emulated: true, ..flags() }, "--image: means nothing with --emulated"),
            (Flags { config: Some("x.yaml".into()), ..flags() }, "--config: means nothing without --direct"),
            (Flags { mix: Some("/nonexistent".into()), ..flags() }, "--mix: /nonexistent: "),
        ] {
            let mistakes = Options::parse(flags).expect_err(says);
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(says)), "{says}: {mistakes:?}");
            assert!(!mistakes.concat().contains("user:pass"), "{mistakes:?}");
        }
        let two = Flags { pulls: some("x"), rate: some("x"), ..flags() };
        assert_eq!(Options::parse(two).expect_err("two").len(), 2);
    }
}
