//! Whatever stands in `WWW-Authenticate`, what is read from it stands in it; and what we would write is read back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::challenge::Challenge;

fuzz_target!(|header: &str| {
    let Ok(challenge) = Challenge::parse(header) else {
        return;
    };
    assert!(header.contains(challenge.realm) && header.contains(challenge.service));
    if !challenge.realm.contains('"') && !challenge.service.contains('"') {
        let written = format!("Bearer scope=\"a,b\",realm=\"{}\",service=\"{}\"", challenge.realm, challenge.service);
        assert_eq!(Challenge::parse(&written), Ok(Challenge { scope: Some("a,b"), error: None, ..challenge }));
    }
});
