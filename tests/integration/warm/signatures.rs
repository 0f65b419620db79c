//! Signatures, which podman and CRI-O ask for beside each manifest.

use super::{REPOSITORY, asked, said, start, warm};

/// The first pull of podman after `warm` failed while the registry refused the tag of the signature, of which nothing was kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_podman_asks_for_beside_a_manifest_was_not_warmed() {
    const SIGNATURE: &str = "application/vnd.oci.image.manifest.v1+json";
    let (azure, pushed, proxy) = start().await;
    let tags: Vec<_> = pushed.manifests.iter().map(|(_, digest)| format!("{}.sig", digest.replace(':', "-"))).collect();
    // As of a signature, which is a manifest of its own.
    let manifest = azure.manifest(REPOSITORY, &pushed.manifests[1].1).expect("pushed");
    azure.put_manifest(REPOSITORY, &tags[0], SIGNATURE, manifest);
    for (words, is_asked, says) in [
        ("", false, "warmed busybox: 3 manifests, 4 layers"),
        (" --signatures", true, "warmed busybox: 4 manifests, 6 layers"),
    ] {
        azure.clear_requests();
        let words = format!("busybox --platform all{words}");
        let (status, text) = said(&warm(&azure, &proxy.url(""), &words, ""));
        assert!(status == 0 && text.lines().any(|line| line.ends_with(says)), "{words}: {status}: {text}");
        let asked = asked(&azure);
        for tag in &tags {
            let path = format!("{REPOSITORY}/manifests/{tag}");
            assert_eq!(asked.contains(&path), is_asked, "{words}: {asked:#?}");
        }
    }
}
