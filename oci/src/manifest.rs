//! What a pull reads of an index or a manifest: which documents and blobs come next.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::media_type::ManifestType;
use crate::name::Digest;
use crate::platform::Platform;

/// Manifests, indexes and configurations. The distribution specification asks registries to accept at least this much.
pub const MAX_DOCUMENT: usize = 4 << 20;
/// Indexes in one another, from the one that an image's name is for. Images that are built of others have two, and engines know no bound.
pub const MAX_INDEXES: usize = 4;
/// Docker itself accepts 127.
const MAX_LAYERS: usize = 512;

/// A document under `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// The manifests of an image, one or more a platform. Docker calls it a manifest list.
    Index(Vec<Entry>),
    /// The blobs of an image.
    Manifest(Manifest),
}

/// A manifest in an index, or another index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its digest; a valid one.
    pub digest: String,
    /// What it is for; `None` for what is no image.
    pub platform: Option<Platform>,
    /// What it is, if the index says so.
    #[serde(default, rename = "mediaType")]
    pub media_type: String,
}

impl Entry {
    /// It is an index for any platform, into which engines look.
    pub fn is_index(&self) -> bool {
        let names_none = self.platform.as_ref().is_none_or(|platform| *platform == Platform::default());
        names_none && ManifestType::parse(&self.media_type).is_some_and(ManifestType::is_index)
    }
}

/// The blobs of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Environment, command, and the digests of the unpacked layers.
    pub config: Descriptor,
    /// The lowest one first.
    pub layers: Vec<Descriptor>,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// Its digest; a valid one.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Where else it is. Layers of Windows that may not be distributed have such addresses, and registries do not hold them.
    #[serde(default)]
    pub urls: Vec<String>,
}

/// Why a body is no document to pull by. Displays as what the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// It is not JSON, or the members are of other types.
    Malformed,
    /// It is an image's, of before 2016.
    Schema1,
    /// It has neither a list of manifests nor a configuration with layers.
    Neither,
    /// It has so many layers.
    Layers(usize),
    /// What should be a digest is none.
    Digest,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not the JSON of a manifest"),
            Self::Schema1 => f.write_str("an image of the old schema 1, which docker and containerd no longer pull"),
            Self::Neither => f.write_str("neither an index nor a manifest with a config and layers"),
            Self::Layers(count) => write!(f, "a manifest of {count} layers, more than {MAX_LAYERS}"),
            Self::Digest => f.write_str("a manifest with a digest that is none"),
        }
    }
}

impl std::error::Error for DocumentError {}

impl Document {
    /// An index has `manifests`, a manifest has `config` and `layers` (OCI image specification; Docker's image manifest
    /// version 2, schema 2, has the same members). The bytes are not compared with any digest.
    pub fn parse(body: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Members {
            manifests: Option<Vec<Entry>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
            #[serde(rename = "fsLayers")]
            fs_layers: Option<IgnoredAny>,
        }
        let members: Members = serde_json::from_slice(body).map_err(|_| DocumentError::Malformed)?;
        let is_digest = |text: &str| Digest::parse(text).is_some();
        match members {
            Members { manifests: Some(entries), .. } => {
                let valid = entries.iter().all(|entry| is_digest(&entry.digest));
                if valid { Ok(Self::Index(entries)) } else { Err(DocumentError::Digest) }
            }
            Members { config: Some(config), layers: Some(layers), .. } => {
                if layers.len() > MAX_LAYERS {
                    return Err(DocumentError::Layers(layers.len()));
                }
                let valid = is_digest(&config.digest) && layers.iter().all(|layer| is_digest(&layer.digest));
                if valid { Ok(Self::Manifest(Manifest { config, layers })) } else { Err(DocumentError::Digest) }
            }
            Members { fs_layers: Some(_), .. } => Err(DocumentError::Schema1),
            _ => Err(DocumentError::Neither),
        }
    }
}

/// What engines look into for a platform, in their order: the manifests that are for it, then the indexes that may have some.
pub fn for_platform_and_indexes<'a>(entries: &'a [Entry], platform: &Platform) -> impl Iterator<Item = &'a Entry> {
    for_platform(entries, platform).chain(entries.iter().filter(|entry| entry.is_index()))
}

/// The manifests for a platform, in the order of the index.
pub fn for_platform<'a>(entries: &'a [Entry], platform: &Platform) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(|entry| entry.platform.as_ref().is_some_and(|other| platform.accepts(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn a_platform_picks_its_manifests() {
        let index = format!(
            r#"{{"manifests":[
            {{"digest":"{}","platform":{{"os":"linux","architecture":"amd64","os.version":"1"}}}},
            {{"digest":"{}","platform":{{"os":"linux","architecture":"arm","variant":"v6"}}}},
            {{"digest":"{}","platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},
            {{"digest":"{}","platform":{{}}}},
            {{"digest":"{}"}}]}}"#,
            digest('a'),
            digest('b'),
            digest('c'),
            digest('d'),
            digest('e')
        );
        let Ok(Document::Index(entries)) = Document::parse(index.as_bytes()) else { panic!("an index") };
        for (text, expected) in [
            ("linux/amd64", "a"),
            ("linux/arm", "c"),
            ("linux/arm/v6", "b"),
            ("linux/arm/v7", "c"),
            ("windows/amd64", ""),
        ] {
            let platform = Platform::parse(text).expect(text);
            let found: Vec<_> = for_platform(&entries, &platform).map(|entry| entry.digest.clone()).collect();
            assert_eq!(found, expected.chars().map(digest).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn a_document_is_an_index_or_a_manifest_or_refused() {
        let blob = |digest: &str| format!(r#"{{"digest":"{digest}","size":2}}"#);
        let manifest = |config: &str, layers: &[String]| {
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob(config), layers.join(","))
        };
        let good = manifest(&digest('a'), &[blob(&digest('b'))]);
        let Ok(Document::Manifest(found)) = Document::parse(good.as_bytes()) else { panic!("{good}") };
        assert_eq!((found.config.digest, found.layers.len(), found.layers[0].size), (digest('a'), 1, 2));
        let many = vec![blob(&digest('b')); MAX_LAYERS + 1];
        for (body, wrong) in [
            ("<html>".to_owned(), DocumentError::Malformed),
            (r#"{"manifests":{}}"#.to_owned(), DocumentError::Malformed),
            ("{}".to_owned(), DocumentError::Neither),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), DocumentError::Schema1),
            (r#"{"manifests":[{"digest":"../../x"}]}"#.to_owned(), DocumentError::Digest),
            (manifest("latest", &[]), DocumentError::Digest),
            (manifest(&digest('a'), &[blob("sha256:12")]), DocumentError::Digest),
            (manifest(&digest('a'), &many), DocumentError::Layers(MAX_LAYERS + 1)),
        ] {
            assert_eq!(Document::parse(body.as_bytes()), Err(wrong), "{:.80}", body);
        }
    }
}
