//! Entra's token endpoint: the errors by which one finds out what is wrong.

use acr_emulator::{CLIENT_ID, TENANT};
use reqwest::Response;

use crate::azure::{Azure, claims, field, json, secret_fields};

async fn refused(answer: Response, status: u16, error: &str, code: u32) {
    assert_eq!(answer.status(), status);
    let body = json(answer).await;
    assert_eq!(body["error"], error, "{body}");
    assert_eq!(body["error_codes"], serde_json::json!([code]));
    assert!(field(&body, "error_description").starts_with(&format!("AADSTS{code}: ")));
    for name in ["timestamp", "trace_id", "correlation_id"] {
        assert!(!field(&body, name).is_empty());
    }
}

#[tokio::test]
async fn a_secret_gives_a_token_for_an_hour() {
    let azure = Azure::start().await;
    let body = json(azure.entra(&secret_fields()).await).await;
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 3_599);
    assert_eq!(body["ext_expires_in"], 3_599);
    let claims = claims(&field(&body, "access_token"));
    assert_eq!(claims["aud"], "https://containerregistry.azure.net");
    assert_eq!(claims["appid"], CLIENT_ID);
    assert_eq!(claims["tid"], TENANT);
}

#[tokio::test]
async fn each_mistake_has_its_number() {
    let azure = Azure::start().await;
    let with = |name: &'static str, value: &'static str| {
        secret_fields().map(|(key, old)| (key, if key == name { value } else { old }))
    };
    for (fields, status, error, code) in [
        (with("client_secret", "wrong"), 401, "invalid_client", 7_000_215),
        (with("client_secret", ""), 401, "invalid_client", 7_000_216),
        (with("client_id", "nobody"), 400, "unauthorized_client", 700_016),
        (with("client_id", ""), 400, "invalid_request", 900_144),
        (with("grant_type", "password"), 400, "unsupported_grant_type", 70_003),
        (with("scope", ""), 400, "invalid_request", 900_144),
        (with("scope", "https://containerregistry.azure.net"), 400, "invalid_scope", 70_011),
        (with("scope", "https://example.azurecr.io/.default"), 400, "invalid_resource", 500_011),
    ] {
        refused(azure.entra(&fields).await, status, error, code).await;
    }
    let url = format!("{}no-such-tenant/oauth2/v2.0/token", azure.emulator.authority());
    let answer = azure.client.post(url).form(&secret_fields()).send().await.expect("an answer");
    refused(answer, 400, "invalid_request", 90_002).await;
}

#[tokio::test]
async fn discovery_leads_back_to_the_same_host() {
    let azure = Azure::start().await;
    let base = azure.emulator.authority();
    let url = format!("{base}{TENANT}/v2.0/.well-known/openid-configuration");
    let body = json(azure.client.get(url).send().await.expect("an answer")).await;
    assert_eq!(field(&body, "token_endpoint"), format!("{base}{TENANT}/oauth2/v2.0/token"));
    let url = format!("{base}common/discovery/instance?api-version=1.1");
    let body = json(azure.client.get(url).send().await.expect("an answer")).await;
    assert!(field(&body, "tenant_discovery_endpoint").starts_with(&base));
}
