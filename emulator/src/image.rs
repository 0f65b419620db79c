//! Generated images: real tar and gzip, with the same bytes for the same name.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use ring::digest::{Context, SHA256, digest};
use serde_json::{Value, json};

use crate::gzip::Stored;

/// A description of an image, to be built by [`crate::Emulator::push`].
///
/// The layers hold bytes derived from the image's name, so that two runs give the same
/// digests. Layers are stored without compression, which is fast at any size.
#[derive(Clone, Debug)]
pub struct Image {
    /// The repository, such as `hub/library/busybox`.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Architectures, such as `amd64`; each gets a manifest and layers of its own.
    pub arches: Vec<String>,
    /// Layers for each architecture.
    pub layers: usize,
    /// Bytes of the file in each layer.
    pub layer_bytes: usize,
    /// A static program that becomes `bin/sh` in the first layer, so that the image runs.
    pub binary: Option<PathBuf>,
    /// Docker's media types in place of OCI's.
    pub docker_media_types: bool,
    /// If false, the tag names the manifest of the first architecture, and there is no index.
    pub index: bool,
    /// The repository whose bytes the image has, if it is another one: a cache holds the same image as its source.
    pub copy_of: Option<String>,
}

impl Image {
    /// An OCI image for amd64 and arm64, of two layers of 20 kB.
    pub fn small(repository: &str, tag: &str) -> Image {
        Image {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            arches: vec!["amd64".to_owned(), "arm64".to_owned()],
            layers: 2,
            layer_bytes: 20_000,
            binary: None,
            docker_media_types: false,
            index: true,
            copy_of: None,
        }
    }

    /// The same with this program as `bin/sh`.
    #[must_use]
    pub fn with_binary(mut self, binary: impl Into<PathBuf>) -> Image {
        self.binary = Some(binary.into());
        self
    }

    /// The same with this number of layers, each of this many bytes.
    #[must_use]
    pub fn with_layers(mut self, layers: usize, layer_bytes: usize) -> Image {
        self.layers = layers;
        self.layer_bytes = layer_bytes;
        self
    }

    /// The same with Docker's media types.
    #[must_use]
    pub fn with_docker_media_types(mut self) -> Image {
        self.docker_media_types = true;
        self
    }

    /// The same for these architectures.
    #[must_use]
    pub fn with_arches(mut self, arches: &[&str]) -> Image {
        self.arches = arches.iter().map(|arch| (*arch).to_owned()).collect();
        self
    }

    /// The same with the bytes that another repository's image of this tag has.
    #[must_use]
    pub fn copy_of(mut self, repository: &str) -> Image {
        self.copy_of = Some(repository.to_owned());
        self
    }

    /// The same without an index: a tag that names a manifest.
    #[must_use]
    pub fn without_index(mut self) -> Image {
        self.index = false;
        self
    }
}

/// What a push put into the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest that the tag names: that of the index, or of the one manifest.
    pub index_digest: String,
    /// The manifest of each architecture.
    pub manifests: Vec<(String, String)>,
    /// The configs and layers.
    pub blobs: Vec<String>,
}

/// An image as bytes.
pub(crate) struct Built {
    pub(crate) pushed: Pushed,
    /// Media type and bytes of the manifests, the one that the tag names last.
    pub(crate) manifests: Vec<(String, Bytes)>,
    pub(crate) blobs: Vec<Bytes>,
}

struct MediaTypes {
    index: &'static str,
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const OCI: MediaTypes = MediaTypes {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};
const DOCKER: MediaTypes = MediaTypes {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

/// The digest of some bytes, as registries write it.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest_of(bytes), "size": bytes.len()})
}

pub(crate) fn build(image: &Image) -> io::Result<Built> {
    let types = if image.docker_media_types { DOCKER } else { OCI };
    let program = image.binary.as_ref().map(std::fs::read).transpose()?;
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    let mut entries = Vec::new();
    let mut named = Vec::new();
    for arch in &image.arches {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for number in 0..image.layers {
            let repository = image.copy_of.as_ref().unwrap_or(&image.repository);
            let seed = format!("{repository}:{} {arch} {number}", image.tag);
            let mut layer = Layer::new();
            layer.directory("data/");
            layer.noise(&format!("data/{number}.bin"), image.layer_bytes, &seed);
            if let (0, Some(program)) = (number, &program) {
                layer.directory("bin/");
                layer.file("bin/sh", program, 0o755);
            }
            let (bytes, diff_id) = layer.finish();
            layers.push(descriptor(types.layer, &bytes));
            diff_ids.push(diff_id);
            blobs.push(bytes);
        }
        let created = "1970-01-01T00:00:00Z";
        let step = json!({"created": created, "created_by": "acr-emulator"});
        let config = json!({
            "architecture": arch,
            "os": "linux",
            "created": created,
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": vec![step; image.layers],
        });
        let config = Bytes::from(config.to_string());
        let manifest = Bytes::from(
            json!({
                "schemaVersion": 2,
                "mediaType": types.manifest,
                "config": descriptor(types.config, &config),
                "layers": layers,
            })
            .to_string(),
        );
        blobs.push(config);
        let mut entry = descriptor(types.manifest, &manifest);
        entry["platform"] = json!({"architecture": arch, "os": "linux"});
        entries.push(entry);
        named.push((arch.clone(), digest_of(&manifest)));
        manifests.push((types.manifest.to_owned(), manifest));
    }
    if image.index {
        let index = json!({"schemaVersion": 2, "mediaType": types.index, "manifests": entries}).to_string();
        manifests.push((types.index.to_owned(), Bytes::from(index)));
    } else {
        manifests.truncate(1);
        named.truncate(1);
    }
    let Some((_, top)) = manifests.last() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an image needs an architecture"));
    };
    let pushed = Pushed {
        index_digest: digest_of(top),
        manifests: named,
        blobs: blobs.iter().map(|blob| digest_of(blob)).collect(),
    };
    Ok(Built { pushed, manifests, blobs })
}

/// A layer being written: a tar stream, hashed on its way into gzip.
struct Layer {
    content: Context,
    gzip: Stored,
}

impl Layer {
    fn new() -> Layer {
        Layer { content: Context::new(&SHA256), gzip: Stored::new() }
    }

    fn directory(&mut self, name: &str) {
        self.write(&header(name, 0, 0o755, b'5'));
    }

    fn file(&mut self, name: &str, bytes: &[u8], mode: u32) {
        self.write(&header(name, bytes.len(), mode, b'0'));
        self.write(bytes);
        self.pad(bytes.len());
    }

    /// A file of noise: one block of 64 KiB that repeats, beyond the reach of gzip's window of 32 KiB.
    fn noise(&mut self, name: &str, length: usize, seed: &str) {
        let mut block = vec![0; length.min(64 * 1024)];
        fill(&mut block, seed);
        self.write(&header(name, length, 0o644, b'0'));
        let mut left = length;
        while left > 0 {
            let part = left.min(block.len());
            self.write(&block[..part]);
            left -= part;
        }
        self.pad(length);
    }

    fn pad(&mut self, length: usize) {
        self.write(&[0; 512][..length.next_multiple_of(512) - length]);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        self.gzip.write(bytes);
    }

    fn finish(mut self) -> (Bytes, String) {
        self.write(&[0; 1024]);
        let diff_id = format!("sha256:{}", hex::encode(self.content.finish()));
        (Bytes::from(self.gzip.finish()), diff_id)
    }
}

/// A header of the ustar format (POSIX.1-1988), whose fields are octal text at fixed places.
fn header(name: &str, size: usize, mode: u32, kind: u8) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum is taken as if its own field were blank.
    put(148, "        ");
    put(257, "ustar");
    put(263, "00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Marsaglia's xorshift, seeded by a digest of the name.
fn fill(block: &mut [u8], seed: &str) {
    let digest = digest(&SHA256, seed.as_bytes());
    let mut state = digest.as_ref()[..8].iter().fold(1, |state, byte| state << 8 | u64::from(*byte)) | 1;
    for chunk in block.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}
