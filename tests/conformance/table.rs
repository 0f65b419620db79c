//! The table, and the tests that are made of it.

use std::collections::BTreeSet;

use crate::checks;
use crate::upstream::Upstream;

/// The table itself.
const TABLE: &str = include_str!("table.md");

/// Settings of `cache`: the program's defaults, and without it.
const CACHES: [&str; 2] = ["{}", "off"];

/// A check: it panics where the requirement is not met.
pub(crate) type Check = fn(&Upstream);

/// Makes two tests of each requirement, and knows all checks by name.
macro_rules! conformance {
    (requirements: $($requirement:ident)+; instead: $($substitute:ident)+;) => {
        const REQUIREMENTS: &[&str] = &[$(stringify!($requirement)),+];
        const SUBSTITUTES: &[&str] = &[$(stringify!($substitute)),+];
        const CHECKS: &[(&str, Check)] = &[
            $((stringify!($requirement), checks::$requirement),)+
            $((stringify!($substitute), checks::$substitute),)+
        ];

        mod emulator {
            use crate::upstream::Upstream;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $requirement() {
                    for cache in super::CACHES {
                        super::hold(super::OVER_EMULATOR, stringify!($requirement), &Upstream::emulator(cache).await);
                    }
                }
            )+
        }

        mod docker_registry {
            use crate::upstream::Upstream;
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "needs Debian's docker-registry: run by scripts/test"]
                async fn $requirement() {
                    for cache in super::CACHES {
                        let upstream = Upstream::docker_registry(cache).await;
                        super::hold(super::OVER_DOCKER_REGISTRY, stringify!($requirement), &upstream);
                    }
                }
            )+
        }
    };
}

conformance! {
    requirements:
        the_api_is_there
        the_api_version_is_said
        a_manifest_is_pulled_by_tag
        a_manifest_is_pulled_by_digest
        a_manifest_comes_as_the_type_that_was_asked_for
        a_manifest_says_its_digest
        a_manifest_that_is_not_there_is_404
        a_name_has_its_grammar
        a_reference_has_its_grammar
        a_blob_is_pulled_by_digest
        a_blob_says_its_digest
        a_blob_that_is_not_there_is_404
        a_part_of_a_blob_is_pulled_by_range
        a_range_behind_the_end_is_416
        the_head_of_a_manifest_is_that_of_get
        the_head_of_a_blob_says_its_length
        the_head_of_what_is_not_there_is_404
        tags_are_listed_in_order
        tags_come_n_at_a_time
        links_lead_through_all_tags
        tags_begin_behind_last
        the_last_page_has_no_link
        no_tags_are_an_empty_list
        the_tags_of_an_unknown_repository_are_404
        referrers_are_an_index
        referrers_are_described
        referrers_are_filtered_and_it_is_said
        no_referrers_are_an_empty_index
        referrers_of_a_broken_digest_are_400
        the_referrers_tag_is_pulled
        errors_are_json
        errors_speak_of_the_clients_repository
        an_unknown_blob_is_named_so
        a_broken_digest_is_named_so
        an_unknown_manifest_is_named_so
        a_broken_name_is_named_so
        an_unknown_name_is_named_so
        a_refused_token_is_denied_without_a_challenge
        pushing_is_unsupported
        too_many_requests_are_named_so;
    instead:
        a_redirect_says_where_the_blob_is
        no_tags_are_refused
        tags_come_all_at_once
        there_is_no_referrers_api
        requests_are_not_limited;
}

const OVER_EMULATOR: usize = 3;
const OVER_DOCKER_REGISTRY: usize = 4;

/// Section, requirement, check, and a cell for each upstream.
fn rows() -> impl Iterator<Item = [&'static str; 5]> {
    let lines = TABLE.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("five cells: {line}"))
    })
}

/// Runs what the requirement's cell for an upstream asks for.
fn hold(column: usize, requirement: &str, upstream: &Upstream) {
    let row = rows().find(|row| row[2] == requirement).unwrap_or_else(|| panic!("no row for {requirement}"));
    let wanted = if row[column] == "holds" { requirement } else { row[column] };
    let (_, check) = CHECKS.iter().find(|(name, _)| *name == wanted).unwrap_or_else(|| panic!("no check {wanted}"));
    check(upstream);
}

#[test]
fn every_row_has_a_check_and_every_check_a_row() {
    let named: Vec<_> = rows().map(|row| row[2]).collect();
    assert_eq!(named, REQUIREMENTS, "the table, and the tests in its order");
    let instead: BTreeSet<_> = rows().flat_map(|row| [row[3], row[4]]).filter(|cell| *cell != "holds").collect();
    assert_eq!(instead, SUBSTITUTES.iter().copied().collect());
    assert_eq!(CHECKS.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), CHECKS.len(), "each name once");
    assert!(rows().all(|row| row.iter().all(|cell| !cell.is_empty())));
}
