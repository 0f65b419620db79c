//! Images that are not there for the platform that is asked for.

use serde_json::{Value, json};

use super::{MANIFEST, REPOSITORY, said, start, warm};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The list of what the index has ended in the middle where it has nothing, or nothing with a platform. One that has nothing was warm with
/// all of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_platforms_says_so_and_what_takes_its_manifests() {
    let (azure, pushed, proxy) = start().await;
    let entry = |index: usize| {
        let digest = &pushed.manifests[index].1;
        let size = azure.manifest(REPOSITORY, digest).expect("pushed").len();
        json!({"mediaType": MANIFEST, "digest": digest, "size": size})
    };
    let mut with_nothing = entry(1);
    with_nothing["platform"] = json!({});
    for (tag, manifests, says, all) in [
        ("none", json!([]), "the index has no manifests", Err(": the index has no manifests")),
        (
            "unnamed",
            json!([entry(0), with_nothing]),
            "its manifests name no platform: --platform all takes them all",
            Ok("3 manifests, 4 layers"),
        ),
    ] {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        azure.put_manifest(REPOSITORY, tag, INDEX, index.to_string());
        let run =
            |platform: &str| said(&warm(&azure, &proxy.url(""), &format!("busybox:{tag} --platform {platform}"), ""));
        let (status, text) = run("linux/amd64");
        let ends = format!(": no manifest for linux/amd64: {says}");
        assert!(status == 1 && text.lines().any(|line| line.ends_with(&ends)), "{status}: {text}");
        let (status, text) = run("all");
        let (expected, line) = match all {
            Ok(all) => (0, format!("warmed busybox:{tag}: {all}")),
            Err(all) => (1, all.to_owned()),
        };
        assert!(status == expected && text.lines().any(|said| said.ends_with(&line)), "{status}: {text}");
    }
}

/// An image without an index was warm, whatever platform was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_an_index_is_compared_by_its_configuration() {
    let (azure, pushed, proxy) = start().await;
    let (_, digest) = pushed.manifests.iter().find(|(architecture, _)| architecture == "arm64").expect("pushed");
    let manifest: Value =
        serde_json::from_slice(&azure.manifest(REPOSITORY, digest).expect("pushed")).expect("a manifest");
    azure.put_manifest(REPOSITORY, "arm", MANIFEST, manifest.to_string());
    let wrong = |missing: &str| Some(format!(": not for {missing}: choose with --platform: it is for linux/arm64"));
    for (words, fails, layers) in [
        ("linux/arm64", None, 2),
        ("all", None, 2),
        // A configuration may leave the variant out.
        ("linux/arm64/v8", None, 2),
        ("linux/amd64", wrong("linux/amd64"), 0),
        ("linux/arm64,windows/amd64,linux/amd64", wrong("windows/amd64, linux/amd64"), 2),
        // The configuration is not read.
        ("linux/amd64 --layers head", None, 2),
    ] {
        azure.clear_requests();
        let (status, text) = said(&warm(&azure, &proxy.url(""), &format!("busybox:arm --platform {words}"), ""));
        assert_eq!(status, i32::from(fails.is_some()), "{words}: {text}");
        let said_so = |fails: &String| text.lines().any(|line| line.ends_with(fails));
        assert!(fails.as_ref().is_none_or(said_so), "{words}: {text}");
        let layers_asked = manifest["layers"].as_array().expect("layers").iter().filter(|layer| {
            let digest = layer["digest"].as_str().expect("a digest");
            azure.requests().iter().any(|request| request.target.contains(digest))
        });
        assert_eq!(layers_asked.count(), layers, "{words}: {text}");
    }
}

/// containerd and dockerd pull such an image; here it failed with "an index in an index", and with the advice that leads there.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_an_index_was_not_warmed() {
    let (azure, pushed, proxy) = start().await;
    let put = |tag: &str, manifests: Value| {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
        let size = index.len();
        json!({"mediaType": INDEX, "digest": azure.put_manifest(REPOSITORY, tag, INDEX, index), "size": size})
    };
    let manifests: Vec<_> = pushed
        .manifests
        .iter()
        .map(|(architecture, digest)| {
            let size = azure.manifest(REPOSITORY, digest).expect("pushed").len();
            let platform = json!({"os": "linux", "architecture": architecture});
            json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
        })
        .collect();
    let of = |name: &str| manifests.iter().find(|entry| entry["platform"]["architecture"] == name).expect("pushed");
    let inner = put("inner", json!(manifests));
    put("nested", json!([inner]));
    put("beside", json!([of("amd64"), inner]));
    let mut deep = inner;
    for level in 0..4 {
        deep = put(&format!("deep{level}"), json!([deep]));
    }
    for (words, status, says) in [
        ("nested --platform linux/amd64", 0, "3 manifests, 2 layers"),
        ("nested --platform linux/arm64", 0, "3 manifests, 2 layers"),
        ("nested --platform all", 0, "4 manifests, 4 layers"),
        ("nested --platform windows/amd64", 1, "choose with --platform: it has linux/amd64, linux/arm64"),
        ("beside --platform linux/amd64", 0, "3 manifests, 2 layers"),
        ("beside --platform all", 0, "4 manifests, 4 layers"),
        ("deep2 --platform linux/amd64", 0, "5 manifests, 2 layers"),
        ("deep3 --platform linux/amd64", 1, "it is in more than 4 indexes in one another"),
    ] {
        let (is, text) = said(&warm(&azure, &proxy.url(""), &format!("busybox:{words}"), ""));
        assert!(is == status && text.lines().any(|line| line.ends_with(says)), "{words}: {is}: {text}");
    }
}
