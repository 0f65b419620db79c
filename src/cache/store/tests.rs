//! Which entry stays, and what is counted as put out.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::*;
use crate::cache::entry::{Content, Kind};
use crate::cache::key::Part;

fn key(path: &str) -> Key {
    Key { registry: 1, part: Part::Manifest, path: path.into() }
}

fn entry(length: usize, confirmed: Instant) -> Known {
    let body = Bytes::from(vec![0; length]);
    let content = Content { status: StatusCode::OK, headers: Vec::new(), body, manifest: None, digest: None };
    Known::Answer(Arc::new(Entry::new(Kind::Tag, content, confirmed)))
}

#[test]
fn an_older_answer_replaces_nothing_newer() {
    let store = Store::new(1 << 20);
    let before = Instant::now();
    let now = before + Duration::from_secs(1);
    let at = |path: &str| Some(store.get(&key(path).as_ref())?.answer()?.confirmed);
    store.insert(key("a"), entry(1, now));
    store.insert(key("a"), entry(1, before));
    assert_eq!(at("a"), Some(now));
}

#[test]
fn an_entry_that_took_the_place_of_the_meant_one_stays() {
    let store = Store::new(1 << 20);
    let now = Instant::now();
    let (first, second) = (entry(1, now), entry(1, now));
    let is = |meant: &Known| {
        let meant = meant.clone();
        move |known: &Known| matches!((known, &meant), (Known::Answer(a), Known::Answer(b)) if Arc::ptr_eq(a, b))
    };
    store.insert(key("a"), first.clone());
    store.insert(key("a"), second.clone());
    store.remove_if(&key("a").as_ref(), is(&first));
    assert!(store.get(&key("a").as_ref()).as_ref().is_some_and(is(&second)));
    store.remove_if(&key("a").as_ref(), is(&second));
    assert!(store.get(&key("a").as_ref()).is_none());
}

#[test]
fn what_is_renewed_keeps_its_place_and_is_no_eviction() {
    const MEMORY: usize = 1 << 20;
    let store = Store::new(MEMORY);
    let now = Instant::now();
    store.insert(key("popular"), entry(1000, now));
    for scanned in 0..20_000 {
        store.get(&key("popular").as_ref());
        // As often as a tag is asked for again, with many names between that are asked for once.
        if scanned % 100 == 0 {
            store.insert(key("popular"), entry(1000, now));
        }
        store.insert(key(&scanned.to_string()), entry(1000, now));
        assert!(store.size().1 <= MEMORY as u64);
    }
    assert!(store.get(&key("popular").as_ref()).is_some());
    let ((left, _), (evicted, bytes)) = (store.size(), store.evicted());
    assert_eq!(left as u64 + evicted, 20_001, "each name went or is there");
    assert!(bytes / evicted > 1000);
}

#[test]
fn what_is_larger_than_the_bound_is_not_kept_and_what_it_replaces_goes() {
    let store = Store::new(1 << 20);
    let now = Instant::now();
    store.insert(key("a"), entry(1, now));
    store.insert(key("b"), entry(1, now));
    assert!(!store.insert(key("a"), entry(2 << 20, now)));
    // What is almost as large as the bound is not kept either.
    assert!(!store.insert(key("a"), entry((1 << 20) - 1024, now)) && store.insert(key("c"), entry(1 << 19, now)));
    assert!(store.get(&key("a").as_ref()).is_none());
    assert!(store.get(&key("b").as_ref()).is_some());
    // It was never in.
    assert_eq!(store.evicted(), (0, 0));
}

/// They stayed for ever, and the images that hosts pull again and again were evicted before they came back.
#[test]
fn names_that_were_asked_for_once_kept_a_working_set_out() {
    const IMAGES: usize = 700;
    let now = Instant::now();
    for invented in [Known::Passes(now), entry(200, now)] {
        let store = Store::new(4 << 20);
        for number in 0..7_000 {
            store.insert(key(&format!("invented/{number}")), invented.clone());
        }
        let mut found = 0;
        // Half of the bound, always in the same order, which is the worst.
        for _round in 0..3 {
            found = 0;
            for number in 0..IMAGES * 2 {
                let key = key(&format!("image/{number}"));
                if store.get(&key.as_ref()).is_some() {
                    found += 1;
                } else {
                    store.insert(key, entry(900, now));
                }
            }
        }
        assert_eq!(found, IMAGES * 2, "{invented:?}");
    }
}
