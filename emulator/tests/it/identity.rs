//! Managed identity endpoints.

use std::net::{Ipv4Addr, SocketAddr};

use acr_emulator::{ManagedIdentity, Options};
use reqwest::{RequestBuilder, Response};

use crate::azure::{Azure, REGISTRY, claims, field, header, json};

const RESOURCE: &str = "https%3A%2F%2Fcontainerregistry.azure.net";

async fn azure(options: Options) -> Azure {
    let second = ManagedIdentity {
        client_id: "72f988bf-0000-4000-8000-000000000005".to_owned(),
        object_id: "72f988bf-0000-4000-8000-000000000006".to_owned(),
        resource_id: Some("/subscriptions/1/id".to_owned()),
        ..ManagedIdentity::default()
    };
    let identity_listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let managed_identities = vec![ManagedIdentity::default(), second];
    Azure::with(Options { identity_listen, managed_identities, ..options }).await
}

fn request(azure: &Azure, target: &str) -> RequestBuilder {
    let address = azure.emulator.identity_addr().expect("an address");
    azure.client.get(format!("http://{address}{target}"))
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn a_virtual_machine_gets_numbers_as_text() {
    let azure = azure(Options::default()).await;
    let base = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={RESOURCE}");
    let body = json(send(request(&azure, &base).header("Metadata", "true")).await).await;
    assert_eq!(body["expires_in"], "3599");
    assert_eq!(body["refresh_token"], "");
    assert!(field(&body, "expires_on").parse::<u64>().is_ok());
    let token = field(&body, "access_token");
    let answer =
        azure.exchange(&[("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &token)]).await;
    assert_eq!(answer.status(), 200);

    let second = "72f988bf-0000-4000-8000-000000000005";
    for choice in [
        format!("&client_id={second}"),
        "&object_id=72f988bf-0000-4000-8000-000000000006".to_owned(),
        "&msi_res_id=%2Fsubscriptions%2F1%2Fid".to_owned(),
    ] {
        let target = format!("{base}{choice}");
        let body = json(send(request(&azure, &target).header("Metadata", "true")).await).await;
        assert_eq!(claims(&field(&body, "access_token"))["appid"], second);
    }
}

#[tokio::test]
async fn the_metadata_service_refuses_what_a_forged_request_would_have() {
    let azure = azure(Options::default()).await;
    let base = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={RESOURCE}");
    let plain = request(&azure, &base);
    let forwarded = request(&azure, &base).header("Metadata", "true").header("X-Forwarded-For", "1");
    let twice = request(&azure, &format!("{base}&resource=x")).header("Metadata", "true");
    let versionless = request(&azure, &base.replace("api-version", "version")).header("Metadata", "true");
    let unknown = request(&azure, &format!("{base}&client_id=x")).header("Metadata", "true");
    for request in [plain, forwarded, twice, versionless, unknown] {
        assert_eq!(send(request).await.status(), 400);
    }
}

#[tokio::test]
async fn app_service_asks_for_its_header() {
    let azure = azure(Options::default()).await;
    let target = format!("/msi/token?api-version=2019-08-01&resource={RESOURCE}");
    assert_eq!(send(request(&azure, &target)).await.status(), 401);
    let secret = Options::default().identity_header;
    let body = json(send(request(&azure, &target).header("X-IDENTITY-HEADER", &secret)).await).await;
    assert!(field(&body, "expires_on").parse::<u64>().is_ok());
    assert!(body.get("expires_in").is_none());
    // The metadata service's name for a resource id means nothing here, so it picks no other identity than the first.
    for (choice, appid) in [
        ("mi_res_id=%2Fsubscriptions%2F1%2Fid", "72f988bf-0000-4000-8000-000000000005"),
        ("principal_id=72f988bf-0000-4000-8000-000000000006", "72f988bf-0000-4000-8000-000000000005"),
        ("msi_res_id=%2Fsubscriptions%2F1%2Fid", "72f988bf-0000-4000-8000-000000000003"),
    ] {
        let request = request(&azure, &format!("{target}&{choice}")).header("X-IDENTITY-HEADER", &secret);
        let body = json(send(request).await).await;
        assert_eq!(claims(&field(&body, "access_token"))["appid"], appid, "{choice}");
    }
}

#[tokio::test]
async fn arc_wants_to_see_that_its_key_file_can_be_read() {
    let directory = std::env::temp_dir().join(format!("acr-emulator-arc-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let options = Options { arc_key_directory: Some(directory.clone()), ..Options::default() };
    let azure = azure(options).await;
    let target = format!("/metadata/identity/oauth2/token?api-version=2020-06-01&resource={RESOURCE}");
    let challenged = send(request(&azure, &target).header("Metadata", "true")).await;
    assert_eq!(challenged.status(), 401);
    let challenge = header(&challenged, "www-authenticate");
    let file = challenge.strip_prefix("Basic realm=").expect("a realm");
    let key = std::fs::read_to_string(file).expect("the key");
    let with =
        |key: &str| request(&azure, &target).header("Metadata", "true").header("Authorization", format!("Basic {key}"));
    assert_eq!(send(with("d3Jvbmc=")).await.status(), 401);
    assert_eq!(send(with(&key)).await.status(), 200);
    std::fs::remove_dir_all(directory).expect("the directory goes");
}
