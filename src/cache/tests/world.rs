//! The registries of the model: what they have, what they had, and how they answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use oci::media_type::ManifestType;
use tokio::time::{Instant, sleep};

use super::model::freshness;
use crate::cache::entry::Freshness;
use crate::cache::{Content, Entry, Fetched, Key, Kind, Origin, Part};
use crate::config::Lifetimes;

/// What is asked for, in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    /// A manifest by one of two tags. The second one's is larger than a small cache.
    Tag(&'static str, u8),
    /// The manifest of the first tag by the digest that it has now.
    Newest(&'static str),
    /// A tag list.
    List(&'static str),
    /// A blob's redirect.
    Blob(&'static str),
}

impl Object {
    pub(super) fn repository(self) -> &'static str {
        match self {
            Self::Tag(repository, _) | Self::Newest(repository) | Self::List(repository) | Self::Blob(repository) => {
                repository
            }
        }
    }

    fn part(self) -> Part {
        match self {
            Self::Tag(..) | Self::Newest(_) => Part::Manifest,
            Self::List(_) => Part::List,
            Self::Blob(_) => Part::Redirect,
        }
    }
}

/// How a registry answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// It cannot be reached.
    Failing,
    Answering503,
    /// 403 to everything.
    Refusing,
    Panicking,
    /// Its answers are nothing to keep.
    Passing,
}

/// What a key stands for. The body of each says which registry, repository, object and version it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Version(u32),
    Absent,
}

/// What the reference has kept: what was answered, and when it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub asked: Instant,
    pub kind: Kind,
    pub at_most: Option<Duration>,
    pub until: Option<Instant>,
}

#[derive(Default)]
pub(super) struct World {
    /// Each change, with its time.
    history: BTreeMap<(u64, Object), Vec<(Instant, Truth)>>,
    weather: BTreeMap<u64, (Weather, u64)>,
    /// The last purge of each repository.
    purged: BTreeMap<(u64, &'static str), Instant>,
    /// What the cache should have, if it evicts nothing.
    pub known: BTreeMap<(u64, String), Known>,
    /// When the flights of a key that are under way were started.
    flying: BTreeMap<(u64, String), Vec<Instant>>,
    /// The requests to each registry, in their order.
    pub reads: Vec<(u64, String, Instant)>,
    /// What a flight has seen that must not be: a panic there would be one that the model expects.
    pub violation: Option<String>,
    /// When a flight last found that the answer for a key is none to keep.
    pub passed: BTreeMap<(u64, String), Instant>,
    /// How often a flight has panicked as it should.
    pub panics: usize,
    /// How often anything was purged.
    pub purges: usize,
}

#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// A flight of the model panics on purpose, though not while it holds this.
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    pub(super) fn change(&mut self, registry: u64, object: Object, is_there: bool) {
        let object = if let Object::Newest(repository) = object { Object::Tag(repository, 0) } else { object };
        let changes = self.history.entry((registry, object)).or_default();
        let version = u32::try_from(changes.len()).unwrap_or(u32::MAX) + 1;
        changes.push((Instant::now(), if is_there { Truth::Version(version) } else { Truth::Absent }));
    }

    pub(super) fn turn(&mut self, registry: u64, weather: Weather, delay: u64) {
        self.weather.insert(registry, (weather, delay));
    }

    pub(super) fn purge(&mut self, registry: u64, repository: &'static str) {
        self.purged.insert((registry, repository), Instant::now());
        self.purges += 1;
        self.known.retain(|(of, path), _| *of != registry || !path.starts_with(&format!("/v2/{repository}/")));
    }

    fn now(&self, registry: u64, object: Object) -> Truth {
        let changes = self.history.get(&(registry, object)).and_then(|changes| changes.last());
        changes.map_or(Truth::Version(0), |(_, truth)| truth.clone())
    }

    /// Whether a version was what an object stood for at this time or later.
    pub(super) fn was_true_since(&self, registry: u64, object: Object, version: &str, since: Instant) -> bool {
        let mut truths = vec![(None, Truth::Version(0))];
        let changes = self.history.get(&(registry, object)).into_iter().flatten();
        truths.extend(changes.map(|(time, truth)| (Some(*time), truth.clone())));
        let ends = truths.iter().skip(1).map(|(time, _)| *time).chain([None]);
        truths.iter().zip(ends).any(|((_, truth), end)| end.is_none_or(|end| end >= since) && said(truth) == version)
    }

    /// The path of an object. That by digest ends in what a manifest of that digest says.
    pub(super) fn path(&self, registry: u64, object: Object) -> String {
        match object {
            Object::Tag(repository, tag) => format!("/v2/{repository}/manifests/t{tag}"),
            Object::List(repository) => format!("/v2/{repository}/tags/list"),
            Object::Blob(repository) => format!("/v2/{repository}/blobs/b"),
            Object::Newest(repository) => {
                let truth = match self.now(registry, Object::Tag(repository, 0)) {
                    Truth::Version(version) => version,
                    _ => 0,
                };
                let digest = said(&Truth::Version(truth));
                format!("/v2/{repository}/manifests/sha:{registry}|{repository}|t0|{digest}")
            }
        }
    }

    fn begin(&mut self, registry: u64, path: &str, repository: &'static str) -> (Weather, u64) {
        let now = Instant::now();
        let purged = self.purged.get(&(registry, repository)).copied();
        let flying = self.flying.entry((registry, path.to_owned())).or_default();
        let since_purge = flying.iter().filter(|begun| purged.is_none_or(|purged| **begun > purged)).count();
        flying.push(now);
        if since_purge > 0 {
            self.violation = Some(format!("two flights for {path}"));
        }
        self.reads.push((registry, path.to_owned(), now));
        self.weather.get(&registry).copied().unwrap_or((Weather::Fair, 0))
    }

    /// The flight is over; what it brought counts, unless its repository was purged meanwhile.
    fn end(&mut self, registry: u64, path: &str, repository: &'static str, asked: Instant) -> bool {
        let flying = self.flying.entry((registry, path.to_owned())).or_default();
        flying.retain(|begun| *begun != asked);
        self.purged.get(&(registry, repository)).is_none_or(|purged| asked > *purged)
    }

    fn keep(&mut self, key: (u64, String), known: Known, missing: Duration) {
        if self.known.get(&key).is_some_and(|kept| kept.asked > known.asked) {
            return;
        }
        if known.kind == Kind::Missing && missing.is_zero() {
            self.known.remove(&key);
        } else {
            self.known.insert(key, known);
        }
    }
}

/// How a body says its version.
pub(super) fn said(truth: &Truth) -> String {
    match truth {
        Truth::Version(version) => format!("v{version}"),
        Truth::Absent => "absent".to_owned(),
    }
}

/// Asks the registry of the model.
pub(super) struct Asking {
    pub world: Shared,
    pub registry: u64,
    pub object: Object,
    pub path: String,
    /// Of the route that asks.
    pub lifetimes: Lifetimes,
}

/// Notes the end of a flight, also when it panics.
struct Flying<'a>(&'a Asking, Instant, bool);

impl Flying<'_> {
    fn end(&mut self, world: &mut World) -> bool {
        self.2 = true;
        world.end(self.0.registry, &self.0.path, self.0.object.repository(), self.1)
    }
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        if !self.2 {
            self.end(&mut self.0.world.clone().lock());
        }
    }
}

impl Origin for Asking {
    type Trouble = &'static str;

    async fn fetch(self, known: Option<Arc<Entry>>) -> Fetched<&'static str> {
        let asked = Instant::now();
        let repository = self.object.repository();
        let (weather, delay) = self.world.lock().begin(self.registry, &self.path, repository);
        let mut flying = Flying(&self, asked, false);
        let of_tag = match self.object {
            Object::Newest(repository) => Object::Tag(repository, 0),
            object => object,
        };
        // The registry decides what it answers at once; the answer takes its time.
        let truth = self.world.lock().now(self.registry, of_tag);
        sleep(Duration::from_millis(delay)).await;
        let key = (self.registry, self.path.clone());
        let world = self.world.clone();
        let mut world = world.lock();
        if weather == Weather::Panicking {
            world.panics += 1;
            drop(world);
            panic!("as the model wants it");
        }
        let counts = flying.end(&mut world);
        if let Some(known) = &known
            && !String::from_utf8_lossy(&known.content.body).trim().starts_with(&self.says(""))
        {
            world.violation = Some(format!("{} is asked for with what is known of another", self.path));
        }
        let trouble = match weather {
            Weather::Failing => Some(Fetched::Failed { trouble: "no route", is_trouble: true, has_asked: true }),
            Weather::Answering503 => {
                Some(Fetched::Answer { content: self.content(503, "busy", None, 0), is_trouble: true })
            }
            Weather::Passing => {
                world.passed.insert(key.clone(), Instant::now());
                // What another route could still use, and this one not, is older than that.
                let is_older = |known: &Known| {
                    known.asked < asked || freshness(known, &self.lifetimes, Instant::now()) == Freshness::Ended
                };
                if counts && world.known.get(&key).is_some_and(is_older) {
                    world.known.remove(&key);
                }
                Some(Fetched::NotKept { asked })
            }
            _ => None,
        };
        if let Some(trouble) = trouble {
            return trouble;
        }
        if weather == Weather::Refusing {
            if counts {
                world.known.remove(&key);
            }
            return Fetched::Answer { content: self.content(403, "refused", None, 0), is_trouble: false };
        }
        let version = said(&truth);
        let is_gone = truth == Truth::Absent
            || matches!(self.object, Object::Newest(_)) && !self.path.ends_with(&format!("|t0|{version}"));
        let (kind, until) = match self.object {
            _ if is_gone => (Kind::Missing, None),
            Object::Tag(..) => (Kind::Tag, None),
            Object::Newest(_) => (Kind::Manifest, None),
            Object::List(_) => (Kind::List, None),
            Object::Blob(_) => (Kind::Redirect, Some(asked + Duration::from_secs(100 + 7 * (delay % 3)))),
        };
        // What is not imported yet, with odd versions.
        let is_new = matches!(truth, Truth::Version(version) if version % 2 == 1) && kind == Kind::Tag;
        let at_most = is_new.then_some(Duration::from_secs(20));
        let content = match &known {
            // A 304: the content is the one that is known.
            Some(known) if kind == Kind::Tag && known.content.body.ends_with(format!("|{version}").as_bytes()) => {
                Arc::clone(&known.content)
            }
            _ if is_gone => self.content(404, "absent", None, 0),
            _ => self.content(200, &version, Some(ManifestType::OciIndex), self.padding()),
        };
        let entry = Entry { kind, content, confirmed: asked, at_most, until, until_wall: None, stands_in: false };
        let reference = Known { asked, kind, at_most, until };
        let also = (kind == Kind::Tag).then(|| {
            let path = format!("/v2/{repository}/manifests/sha:{}", self.says(&version));
            let by_digest = Entry { kind: Kind::Manifest, ..entry.clone() };
            if counts {
                let reference = Known { kind: Kind::Manifest, ..reference.clone() };
                world.keep((self.registry, path.clone()), reference, self.lifetimes.missing);
            }
            (Key { registry: self.registry, part: Part::Manifest, path: path.into() }, Arc::new(by_digest))
        });
        if counts {
            world.keep(key, reference, self.lifetimes.missing);
        }
        Fetched::Kept { entry: Arc::new(entry), also }
    }
}

impl Asking {
    pub(super) fn key(&self) -> Key {
        Key { registry: self.registry, part: self.object.part(), path: self.path.as_str().into() }
    }

    /// What a body says of this object.
    pub(super) fn says(&self, version: &str) -> String {
        let (registry, repository) = (self.registry, self.object.repository());
        match self.object {
            Object::Tag(_, tag) => format!("{registry}|{repository}|t{tag}|{version}"),
            Object::Newest(_) => format!("{registry}|{repository}|t0|{version}"),
            Object::List(_) => format!("{registry}|{repository}|list|{version}"),
            Object::Blob(_) => format!("{registry}|{repository}|blob|{version}"),
        }
    }

    fn padding(&self) -> usize {
        if matches!(self.object, Object::Tag(_, 1)) { 9 << 10 } else { 700 }
    }

    fn content(&self, status: u16, version: &str, manifest: Option<ManifestType>, padding: usize) -> Arc<Content> {
        let body = format!("{}{}", " ".repeat(padding), self.says(version));
        let status = StatusCode::from_u16(status).expect("a status");
        Arc::new(Content { status, headers: Vec::new(), body: Bytes::from(body), manifest, digest: None })
    }
}
