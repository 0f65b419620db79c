//! Lists of tags, which no mirror is asked for.

use crate::containers;
use crate::hub::{Site, TAG, of_repository};
use crate::tree::Tree;
use testkit::PATIENCE;

const NAME: &str = "library/app";

/// What lists tags asks the source for them, whatever its files say; docs/clients.md warns of it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn tags_are_listed_at_the_source_even_where_its_route_is_closed() {
    let site = Site::start().await;
    site.put("hub", NAME);
    let proxy = site.proxy(&[("docker.io", "hub")], "closed").start();
    let home = site.home();
    containers::configure(&home, &containers::replaced("docker.io", &format!("{}/docker.io", proxy.address())));
    let tree = Tree::mount(&home, 14);
    for newer in [false, true] {
        for (words, tags) in [
            (format!("skopeo inspect --no-tags docker://docker.io/{NAME}:{TAG}"), false),
            (format!("skopeo inspect docker://docker.io/{NAME}:{TAG}"), true),
            (format!("skopeo list-tags docker://docker.io/{NAME}"), true),
            (format!("skopeo sync --src docker --dest dir docker.io/{NAME} synced-{newer}"), true),
            (format!("podman search --list-tags docker.io/{NAME}"), true),
        ] {
            site.hub.clear_requests();
            let mut command =
                if newer { tree.program(PATIENCE, &words) } else { containers::client(&home, PATIENCE, &words) };
            for (variable, file) in
                [("CONTAINERS_REGISTRIES_CONF", "registries.conf"), ("CONTAINERS_STORAGE_CONF", "storage.conf")]
            {
                command.env(variable, home.path().join(".config/containers").join(file));
            }
            // Whether it succeeds is the source's affair: what counts is who was asked.
            let output = command.output().expect("a command starts");
            let asked = of_repository(&site.hub.requests(), NAME);
            let lists = asked.iter().any(|request| request.target.ends_with("/tags/list"));
            assert_eq!(lists, tags, "newer: {newer}: {words}: {output:?}: {asked:#?}");
        }
    }
}
