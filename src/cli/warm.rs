//! `warm`: which images, for which platforms, and by which proxy.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use oci::image::Image;
use oci::platform::Platform;

use super::exit::{Exit, mistake};
use crate::client_config::Mirror;
use crate::client_tls::Presented;
use crate::value;
use crate::warm::{Layers, Options, Platforms};

pub(super) const EXAMPLES: &str = "\
Examples:
  acr-cache-proxy warm nginx:1.27 ghcr.io/org/app:2.0 --platform linux/amd64,linux/arm64
      Both images, for both kinds of hosts, by the proxy of this host.
  acr-cache-proxy warm --file images.txt --via http://mirror.internal:8080
      A list, one image a line; what follows a # is a comment.
  kubectl get pods -A -o jsonpath='{.items[*].spec.containers[*].image}' | tr ' ' '\\n' | acr-cache-proxy warm --file -
      What runs in a cluster.

The proxy is asked as an engine asks it: HEAD of the tag, index, manifest and configuration, then layers as --layers says.
The registry imports what its source has, the proxy keeps what it may keep, and this command keeps nothing. At most
2,000 requests begin in a minute, so that pulls go on meanwhile; what a registry refuses because it is too much, or what
fails on the way, is repeated after a pause.

Exit status: 0 if all images are warm, 1 if one is not or there is no proxy, 2 for a wrong flag, image or list.";

/// Where a proxy listens by default.
const VIA: &str = "http://127.0.0.1:8080";
/// A list has some thousands of lines at most.
const MAX_LIST: u64 = 1 << 20;
/// Images of one run. Each is some twelve requests to a registry that allows 5,000 a minute.
const MAX_IMAGES: usize = 10_000;
/// Mistakes that are told; a file of something else has one a line.
const MAX_MISTAKES: usize = 20;

/// The values of `--layers`.
pub(super) const LAYERS: [(&str, Layers); 3] =
    [("first-byte", Layers::FirstByte), ("head", Layers::Head), ("none", Layers::None)];

#[derive(Args)]
pub(super) struct WarmFlags {
    /// An image as you would pull it: nginx, library/nginx:1.27, ghcr.io/org/app@sha256:...
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// A file of images, one a line, with comments behind #; - is standard input
    #[arg(long, value_name = "LIST")]
    file: Option<PathBuf>,
    #[arg(
        long = "platform",
        value_name = "OS/ARCH[/VARIANT]",
        value_delimiter = ',',
        help = format!("Which manifests of an index: any number of platforms, or all [default: {}, as this host]", host())
    )]
    platforms: Vec<String>,
    /// How layers are touched: first-byte (GET, as engines do, and one byte from storage), head (HEAD, which ends at the
    /// registry) or none [default: first-byte, because it is not known that ACR imports layers at a HEAD]
    #[arg(long, value_name = "HOW")]
    layers: Option<String>,
    /// Ask for the signature of each index and manifest as well, by the tag that podman and CRI-O look for: one more read of each
    #[arg(long)]
    signatures: bool,
    #[arg(long, value_name = "URL", help = format!("The proxy, as http://HOST[:PORT] or https:// [default: {VIA}]"))]
    via: Option<String>,
    /// A PEM file of private CA certificates, trusted besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A PEM file of the certificate that the proxy asks for (client_auth), with its chain
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// A PEM file of its private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// What to warm. The error has all mistakes.
pub(super) fn parse(flags: WarmFlags) -> Result<Options, Exit> {
    let mut mistakes = Vec::new();
    let mut images = Vec::new();
    for text in &flags.images {
        match Image::parse(text) {
            Ok(image) => images.push(image),
            Err(wrong) => mistakes.push(wrong),
        }
    }
    if let Some(path) = &flags.file {
        match read(path) {
            Ok(list) => parse_list(path, &list, &mut images, &mut mistakes),
            Err(cause) => mistakes.push(format!("--file: {}: {cause}", path.display())),
        }
    }
    if images.is_empty() && mistakes.is_empty() {
        let no_list = "no image is named: name some, such as library/nginx:1.27, or a list of them with --file";
        mistakes.push(match &flags.file {
            Some(path) => format!("--file: {}: there is no image in it", path.display()),
            None => no_list.to_owned(),
        });
    }
    let mut seen = HashSet::new();
    images.retain(|image| seen.insert(pulled(image)));
    if images.len() > MAX_IMAGES {
        mistakes.push(format!("{} images are more than the {MAX_IMAGES} that one run takes", images.len()));
    }
    let mut wrong = |flag: &str, sentence: String| mistakes.push(format!("{flag}: {sentence}"));
    let platforms = parse_platforms(&flags.platforms).map_err(|sentence| wrong("--platform", sentence)).ok();
    let layers = parse_layers(flags.layers.as_deref()).map_err(|sentence| wrong("--layers", sentence)).ok();
    let via = Mirror::parse(flags.via.as_deref().unwrap_or(VIA)).map_err(|sentence| wrong("--via", sentence)).ok();
    let presented = Presented::of_flags(flags.certificate, flags.key);
    let presented = presented.map_err(|sentence| mistakes.push(sentence.to_owned())).ok().flatten();
    if let (Some(_), Some(via)) = (&presented, &via)
        && !via.url().starts_with("https://")
    {
        mistakes.push("--certificate: a proxy asks for one over TLS only: give --via as https://".to_owned());
    }
    match (platforms, layers, via) {
        (Some(platforms), Some(layers), Some(via)) if mistakes.is_empty() => {
            let (signatures, ca_file) = (flags.signatures, flags.ca_file);
            Ok(Options { images, platforms, layers, signatures, via: via.url(), ca_file, presented })
        }
        _ => {
            let more = mistakes.len().saturating_sub(MAX_MISTAKES);
            mistakes.truncate(MAX_MISTAKES);
            if more > 0 {
                mistakes.push(format!("and {more} more"));
            }
            Err(mistake(&mistakes.join("\n")))
        }
    }
}

/// The content of a list, from any kind of file: a shell's `<(command)` is a FIFO.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = |source: &mut dyn io::Read| {
        let mut content = Vec::new();
        source.take(MAX_LIST + 1).read_to_end(&mut content).map(|_| content)
    };
    let content = match path.to_str() {
        Some("-") => read(&mut io::stdin().lock()),
        _ => File::open(path).and_then(|mut file| read(&mut file)),
    };
    let content = content.map_err(|cause| cause.to_string())?;
    match content.len() as u64 > MAX_LIST {
        true => Err(format!("it has more than the {MAX_LIST} bytes that a list of images may have")),
        false => Ok(content),
    }
}

fn parse_list(path: &Path, list: &[u8], images: &mut Vec<Image>, mistakes: &mut Vec<String>) {
    let text = match value::text(list) {
        Ok(text) => text,
        Err(cause) => return mistakes.push(format!("--file: {}: {cause}", path.display())),
    };
    for (line, number) in text.lines().zip(1..) {
        let image = line.split('#').next().unwrap_or_default().trim();
        if image.is_empty() {
            continue;
        }
        match Image::parse(image) {
            Ok(image) => images.push(image),
            Err(wrong) => mistakes.push(format!("--file: {}:{number}: {wrong}", path.display())),
        }
    }
}

fn parse_platforms(texts: &[String]) -> Result<Platforms, String> {
    match texts {
        [all] if all == "all" => Ok(Platforms::All),
        [] => Platform::parse(&host()).map(|host| Platforms::Some(vec![host])),
        texts if texts.iter().any(|text| text == "all") => {
            Err("all has every other platform in it: use it alone".to_owned())
        }
        texts => texts.iter().map(|text| Platform::parse(text)).collect::<Result<_, _>>().map(Platforms::Some),
    }
}

fn parse_layers(text: Option<&str>) -> Result<Layers, String> {
    let Some(text) = text else { return Ok(Layers::FirstByte) };
    let known = LAYERS.into_iter().find(|(name, _)| *name == text);
    known.map(|(_, layers)| layers).ok_or_else(|| format!("unknown value {text:?}: use first-byte, head or none"))
}

/// What an image is by whatever name: on Docker Hub, `nginx` is `docker.io/library/nginx:latest`.
fn pulled(image: &Image) -> (String, String, String) {
    let (registry, repository) = image.in_full();
    (registry.to_owned(), repository, image.reference().to_owned())
}

/// The platform that an engine of this host pulls for, in the words of an index.
fn host() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    };
    format!("linux/{architecture}")
}
