//! What a run says: a bar on a terminal or else a line an image, a line a failure, and a sum.

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use oci::image::Image;
use oci::printable;
use progress::{Line, STEP, bar};

use super::client::{STALLED, TRIES};
use super::failure::Failure;
use super::image::Warmed;
use super::{Layers, Run};

/// What came of the images so far.
pub(super) struct Report {
    begun: Instant,
    images: usize,
    line: Option<Line>,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    warm: usize,
    /// What was not said of them, because a bar was drawn.
    unsaid: Vec<String>,
    failed: usize,
    importing: usize,
    manifests: usize,
    configs: usize,
    layers: usize,
}

impl Report {
    pub(super) fn new(images: usize) -> Self {
        Self { begun: Instant::now(), images, line: Line::on_terminal(), tally: Mutex::default() }
    }

    /// An image is warm, or failed for this reason.
    pub(super) fn ended(&self, image: &Image, warmed: &Warmed, failure: Option<Failure>) {
        let mut tally = self.lock();
        tally.manifests += warmed.manifests;
        tally.configs += warmed.configs;
        tally.layers += warmed.layers;
        tally.importing += usize::from(warmed.is_importing);
        match failure {
            Some(failure) => {
                tally.failed += 1;
                self.say(&format!("failed {image}: {failure}"));
            }
            None => {
                tally.warm += 1;
                let importing = if warmed.is_importing { ", from its source: the registry imports it now" } else { "" };
                let (manifests, layers) = (warmed.manifests, warmed.layers);
                let text =
                    format!("warmed {image}: {}, {}{importing}", count(manifests, "manifest"), count(layers, "layer"));
                match self.line {
                    None => self.say(&text),
                    Some(_) => tally.unsaid.push(text),
                }
            }
        }
    }

    /// What came of a run that a signal has ended. Each image that is warm has had its line by then, as each failure has.
    pub(super) fn stopped(&self) -> String {
        let mut tally = self.lock();
        for text in std::mem::take(&mut tally.unsaid) {
            self.say(&text);
        }
        if let Some(line) = &self.line {
            line.erase();
        }
        let Tally { warm, failed, .. } = *tally;
        let left = self.images - warm - failed;
        format!("warm: stopped: {warm} of {} warm, {failed} failed, {left} left", count(self.images, "image"))
    }

    /// A line on standard error, above the bar. If nobody reads it, the sum and the exit status still tell.
    fn say(&self, text: &str) {
        if let Some(line) = &self.line {
            line.erase();
        }
        let _ = writeln!(std::io::stderr(), "{}", printable::line(text));
    }

    /// The sum, on standard output; as an error if an image failed.
    pub(super) fn sum_up(&self, run: &Run) -> Result<(), String> {
        if let Some(line) = &self.line {
            line.erase();
        }
        let tally = self.lock();
        let left = self.images - tally.warm - tally.failed;
        if tally.failed + left > 0 {
            let stalled = match left {
                0 => String::new(),
                left => format!(", {left} not tried because nothing was answered for {} s", STALLED.as_secs()),
            };
            let Tally { warm, failed, .. } = *tally;
            let images = count(self.images, "image");
            return Err(format!("warm: {failed} of {images} failed, with a line each above{stalled}; {warm} warm"));
        }
        let touched = match run.layers {
            Layers::None => String::new(),
            Layers::Head => format!(", {} by HEAD", count(tally.layers, "layer")),
            Layers::FirstByte => format!(", {} by a first byte", count(tally.layers, "layer")),
        };
        let importing = match tally.importing {
            0 => String::new(),
            importing => format!(
                "{importing} of them came from the source, and the registry imports them now: run this again after a minute, until it says so of none\n"
            ),
        };
        let sum = format!(
            "{}: {}, {}{touched}, in {} s\n{importing}",
            match self.images {
                1 => "the image is warm".to_owned(),
                images => format!("all {images} images are warm"),
            },
            count(tally.manifests, "manifest"),
            count(tally.configs, "configuration"),
            self.begun.elapsed().as_secs(),
        );
        std::io::stdout().write_all(sum.as_bytes()).map_err(|cause| format!("warm: output: {cause}"))
    }

    fn bar(&self, run: &Run) -> String {
        let tally = self.lock();
        let done = tally.warm + tally.failed;
        let bar = bar(done as f64 / self.images as f64);
        let failed = if tally.failed > 0 { format!(", {} failed", tally.failed) } else { String::new() };
        let pauses = match run.client.pauses() {
            0 => String::new(),
            pauses => format!(", {} to be sent again", count(pauses, "request")),
        };
        format!("{bar} {done}/{} images{failed}{pauses}, {} s", self.images, self.begun.elapsed().as_secs())
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws the bar until the task is aborted, and says once why requests are sent again: that may take minutes.
pub(super) async fn show(run: Arc<Run>) {
    let mut is_said = false;
    loop {
        if let Some(why) = run.client.repeated().filter(|_| !is_said) {
            is_said = true;
            let longest = STALLED.as_secs();
            run.report.say(&format!(
                "waiting, for {longest} s at most until something is answered again, and each request is sent {TRIES} times at most: {why}"
            ));
        }
        if let Some(line) = &run.report.line {
            line.draw(&run.report.bar(&run));
        }
        tokio::time::sleep(STEP).await;
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
