//! The settings of a run: what the flags mean.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use oci::platform::Platform;

use crate::flags::Flags;
use crate::image::{Image, Mix};
use crate::output::{Output, Outputs};
use crate::plan::{Connections, Level};
use crate::pull::Layers;

/// Without `--platform`.
const DEFAULT_PLATFORM: &str = "linux/amd64";
/// Without `--pulls`: enough for a p90, and done soon.
const DEFAULT_PULLS: u64 = 50;
/// Concurrent pulls of an open loop: enough not to limit it.
const OPEN_CONCURRENCY: usize = 256;
/// Concurrent pulls of one level; with cold connections, each takes some file descriptors.
const MAX_CONCURRENCY: usize = 1_024;
/// Levels of one run: each is a table of its own.
const MAX_LEVELS: usize = 16;
/// What one process can start on time.
const MAX_RATE: f64 = 10_000.0;
/// A day at any rate.
const MAX_PULLS: u64 = 1_000_000_000;
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// A mix file has some tens of lines.
const MAX_MIX_FILE: u64 = 1 << 20;

/// What to measure, and where the report goes.
#[derive(Debug)]
pub struct Options {
    /// The images.
    pub mix: Mix,
    /// Which manifest of an index.
    pub platform: Platform,
    /// How much of the layers.
    pub layers: Layers,
    /// Pulls on each side of a level.
    pub pulls: Option<u64>,
    /// How long a level starts pulls.
    pub duration: Option<Duration>,
    /// One after the other; never empty.
    pub levels: Vec<Level>,
    /// Where the report goes.
    pub outputs: Outputs,
}

impl Options {
    /// Parses the flags. Each mistake is added as a sentence; with a mistake among these flags, the result is `None`.
    pub fn parse(flags: &Flags, mistakes: &mut Vec<String>) -> Option<Self> {
        let before = mistakes.len();
        let platform = parse_flag(
            "--platform",
            Some(flags.platform.as_deref().unwrap_or(DEFAULT_PLATFORM)),
            Platform::parse,
            mistakes,
        );
        let layers = parse_flag("--layers", flags.layers.as_deref(), parse_layers, mistakes).unwrap_or(Layers::Full);
        let pulls = parse_flag("--pulls", flags.pulls.as_deref(), parse_pulls, mistakes);
        let duration =
            parse_flag("--duration", flags.duration.as_deref(), |text| parse_time(text, MAX_DURATION), mistakes);
        let rate = parse_flag("--rate", flags.rate.as_deref(), parse_rate, mistakes);
        let default = || vec![if flags.rate.is_some() { OPEN_CONCURRENCY } else { 1 }];
        let concurrency = parse_flag("--concurrency", flags.concurrency.as_deref(), parse_concurrency, mistakes);
        let concurrency = concurrency.unwrap_or_else(default);
        let mix = parse_mix(flags, mistakes);
        let outputs = parse_outputs(flags, mistakes);

        let given = [flags.cold, flags.per_pull, flags.warm];
        let none = given == [false; 3];
        let levels = Connections::ALL
            .into_iter()
            .zip(given)
            .filter(|(connections, given)| *given || (none && *connections == Connections::Cold))
            .flat_map(|(connections, _)| {
                concurrency.iter().map(move |&concurrency| Level { connections, concurrency, rate })
            })
            .collect();
        if mistakes.len() > before {
            return None;
        }
        let pulls = pulls.or_else(|| duration.is_none().then_some(DEFAULT_PULLS));
        Some(Self { mix: mix?, platform: platform?, layers, pulls, duration, levels, outputs })
    }
}

/// Parses one flag, if it is given; a mistake is added with the flag's name in front.
pub fn parse_flag<T>(
    name: &str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, String>,
    mistakes: &mut Vec<String>,
) -> Option<T> {
    parse(text?).map_err(|wrong| mistakes.push(format!("{name}: {wrong}"))).ok()
}

fn parse_outputs(flags: &Flags, mistakes: &mut Vec<String>) -> Outputs {
    let mut output = |flag: &str, path: Option<&Path>| {
        Output::parse(path?).map_err(|wrong| mistakes.push(format!("{flag}: {wrong}"))).ok()
    };
    let outputs = Outputs {
        json: output("--json", flags.json.as_deref()),
        svg: output("--svg", flags.svg.as_deref()),
        html: output("--html", flags.html.as_deref()),
    };
    if let Some((flag, earlier, output)) = outputs.clash() {
        mistakes.push(format!("{flag}: {output} is taken by {earlier}: use another file"));
    }
    outputs
}

fn parse_mix(flags: &Flags, mistakes: &mut Vec<String>) -> Option<Mix> {
    let before = mistakes.len();
    let mut images = Vec::new();
    for text in &flags.images {
        images.extend(parse_flag("--image", Some(text), |text| Image::parse(text).map(|image| (image, 1)), mistakes));
    }
    if let Some(path) = &flags.mix {
        match read_mix(path) {
            Ok(text) => {
                for (number, line) in text.lines().enumerate() {
                    match Mix::parse_line(line) {
                        Ok(image) => images.extend(image),
                        Err(wrong) => mistakes.push(format!("{}:{}: {wrong}", path.display(), number + 1)),
                    }
                }
            }
            Err(cause) => mistakes.push(format!("--mix: {}: {cause}", path.display())),
        }
    }
    if mistakes.len() > before {
        return None;
    }
    Mix::new(images).map_err(|wrong| mistakes.push(wrong)).ok()
}

/// From any kind of file: a shell's `<(command)` is a FIFO, which does not say how much comes.
fn read_mix(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_MIX_FILE + 1).read_to_string(&mut text));
    match read.map_err(|cause| cause.to_string())? as u64 > MAX_MIX_FILE {
        true => Err(format!("it has more than the {MAX_MIX_FILE} bytes that a list of images may have")),
        false => Ok(text),
    }
}

fn parse_layers(text: &str) -> Result<Layers, String> {
    let known = Layers::ALL.into_iter().find(|layers| layers.key() == text);
    known.ok_or_else(|| format!("unknown value {text:?}: use none, head or full"))
}

fn parse_pulls(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a number of pulls: use one from 1 to {MAX_PULLS}");
    text.parse().ok().filter(|pulls| (1..=MAX_PULLS).contains(pulls)).ok_or_else(wrong)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong =
        || format!("{text:?} is not a rate: use pulls a second, above 0 and up to {MAX_RATE}, such as 20 or 0.5");
    // A rate so low that its first pull never comes is a mistake, too.
    text.parse().ok().filter(|rate| (0.001..=MAX_RATE).contains(rate)).ok_or_else(wrong)
}

fn parse_concurrency(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || {
        format!(
            "{text:?} is not a list of pulls at once: use up to {MAX_LEVELS} numbers from 1 to {MAX_CONCURRENCY}, such as 1,8,64"
        )
    };
    let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    let fits = |numbers: &Vec<usize>| {
        numbers.len() <= MAX_LEVELS && numbers.iter().all(|number| (1..=MAX_CONCURRENCY).contains(number))
    };
    numbers.filter(fits).ok_or_else(wrong)
}

/// A time such as `20ms`, `1.5s`, `5m` or `1h`, above 0 and up to `longest`.
pub fn parse_time(text: &str, longest: Duration) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: use a number and a unit, such as 20ms, 30s or 5m");
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
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;

    use super::*;

    fn flags() -> Flags {
        Flags { images: vec!["library/nginx:1.27".to_owned()], ..Flags::default() }
    }

    fn parse(flags: &Flags) -> Result<Options, Vec<String>> {
        let mut mistakes = Vec::new();
        Options::parse(flags, &mut mistakes).ok_or(mistakes)
    }

    #[test]
    fn the_default_is_a_closed_loop_with_cold_connections() {
        let options = parse(&flags()).expect("valid");
        assert_eq!(options.levels, [Level { connections: Connections::Cold, concurrency: 1, rate: None }]);
        assert_eq!((options.pulls, options.duration, options.layers), (Some(DEFAULT_PULLS), None, Layers::Full));
    }

    /// Its size is 0, and all that came was taken.
    #[test]
    fn a_mix_from_a_pipe_was_read_to_its_end_however_long() {
        let (pipe, mut input) = std::io::pipe().expect("a pipe");
        let path = PathBuf::from(format!("/dev/fd/{}", pipe.as_raw_fd()));
        let lines = std::thread::spawn(move || (0..200_000).all(|_| input.write_all(b"library/nginx\n").is_ok()));
        let mistakes = parse(&Flags { mix: Some(path), ..flags() }).expect_err("too long");
        assert!(mistakes[0].ends_with(": it has more than the 1048576 bytes that a list of images may have"));
        drop(pipe);
        assert!(!lines.join().expect("it ends"), "nobody reads the rest");
    }

    #[test]
    fn each_kind_of_connections_and_each_concurrency_is_a_level() {
        let (concurrency, duration) = (Some("1,8,64".to_owned()), Some("1.5s".to_owned()));
        let all = Flags { cold: true, per_pull: true, warm: true, concurrency, duration, ..flags() };
        let options = parse(&all).expect("valid");
        let levels: Vec<_> = options.levels.iter().map(|level| (level.connections, level.concurrency)).collect();
        let expected = Connections::ALL.map(|connections| [1, 8, 64].map(|concurrency| (connections, concurrency)));
        assert_eq!(levels, expected.concat());
        assert_eq!((options.pulls, options.duration), (None, Some(Duration::from_millis(1500))));
    }

    #[test]
    fn every_mistake_is_a_sentence_and_all_are_reported_at_once() {
        let some = |text: &str| Some(text.to_owned());
        for (flags, says) in [
            (Flags { images: vec![], ..flags() }, "no image is named: set --image"),
            (Flags { images: vec!["x y".to_owned()], ..flags() }, "--image: \"x y\" is not an image"),
            (Flags { concurrency: some("1,0"), ..flags() }, "--concurrency: \"1,0\" is not a list"),
            (Flags { rate: some("0"), ..flags() }, "--rate: \"0\" is not a rate"),
            (Flags { rate: some("NaN"), ..flags() }, "--rate: \"NaN\" is not a rate"),
            (Flags { pulls: some("-1"), ..flags() }, "--pulls: \"-1\" is not a number"),
            (Flags { duration: some("30"), ..flags() }, "--duration: \"30\" is not a time"),
            (Flags { duration: some("0s"), ..flags() }, "--duration: \"0s\" is not above 0"),
            (Flags { layers: some("all"), ..flags() }, "--layers: unknown value \"all\": use none, head or full"),
            (Flags { html: Some("/nonexistent/a.html".into()), ..flags() }, "--html: /nonexistent/a.html: there is no"),
            (Flags { json: Some("-".into()), html: Some("-".into()), ..flags() }, "--html: standard output is taken"),
            (Flags { platform: some("amd64"), ..flags() }, "--platform: \"amd64\" is not a platform"),
            (Flags { mix: Some("/nonexistent".into()), ..flags() }, "--mix: /nonexistent: "),
        ] {
            let mistakes = parse(&flags).expect_err(says);
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(says)), "{says}: {mistakes:?}");
        }
        let two = Flags { pulls: some("x"), rate: some("x"), ..flags() };
        assert_eq!(parse(&two).expect_err("two").len(), 2);
    }
}
