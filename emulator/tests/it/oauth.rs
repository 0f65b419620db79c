//! The registry's token endpoints, and how strictly they look.

use std::time::Duration;

use acr_emulator::{Client, Options};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::azure::{Azure, REGISTRY, claims, code, field, header, json, secret_fields};

const NULL_GUID: &str = "00000000-0000-0000-0000-000000000000";

#[tokio::test]
async fn tokens_carry_azures_claims_and_lifetimes() {
    let azure = Azure::start().await;
    let refresh = claims(&azure.refresh_token().await);
    assert_eq!(refresh["exp"].as_i64().zip(refresh["iat"].as_i64()).map(|(e, i)| e - i), Some(10_800));
    assert_eq!(refresh["grant_type"], "refresh_token");
    assert!(refresh.get("aad_identity").is_none());

    let access = claims(&azure.access_token("repository:hub/a:pull,push").await);
    assert_eq!(access["exp"].as_i64().zip(access["iat"].as_i64()).map(|(e, i)| e - i), Some(4_500));
    assert_eq!(access["aud"], REGISTRY);
    assert_eq!(access["access"], serde_json::json!([{"Type": "repository", "Name": "hub/a", "Actions": ["pull"]}]));
}

#[tokio::test]
async fn an_exchange_is_refused_for_every_wrong_field() {
    let azure = Azure::start().await;
    let entra = azure.entra_token().await;
    let refresh = azure.refresh_token().await;
    let forged = format!("{}x", &entra[..entra.len() - 1]);
    for (fields, status) in [
        ([("grant_type", "access_token"), ("service", "other.azurecr.io"), ("access_token", &*entra)], 401),
        ([("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &refresh)], 401),
        ([("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &forged)], 401),
        ([("grant_type", "access_token"), ("service", REGISTRY), ("access_token", "")], 400),
        ([("grant_type", "password"), ("service", REGISTRY), ("access_token", &entra)], 400),
        ([("grant_type", "access_token"), ("servic", REGISTRY), ("access_token", &entra)], 400),
    ] {
        let answer = azure.exchange(&fields).await;
        assert_eq!(answer.status(), status, "{fields:?}");
        if status == 401 {
            assert!(answer.headers().contains_key("x-ms-correlation-request-id"));
            let body = json(answer).await;
            assert_eq!(body["errors"][0]["code"], "UNAUTHORIZED");
            assert!(body["errors"][0].get("detail").is_none(), "{body}");
        }
    }
    let got = azure.client.get(azure.registry("/oauth2/exchange")).send().await.expect("an answer");
    assert_eq!(got.status(), 404);
    let as_json = azure.client.post(azure.registry("/oauth2/exchange")).json(&"{}").send().await;
    assert_eq!(as_json.expect("an answer").status(), 400);
}

#[tokio::test]
async fn an_exchange_is_refused_without_a_role() {
    let clients = vec![Client { may_pull: false, ..Client::default() }];
    let azure = Azure::with(Options { clients, ..Options::default() }).await;
    let entra = azure.entra_token().await;
    let fields = [("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &*entra)];
    let answer = azure.exchange(&fields).await;
    assert_eq!(answer.status(), 401);
    let message = field(&json(answer).await["errors"][0], "message");
    assert!(message.contains("aka.ms/acr/authorization") && message.contains("CorrelationId: "));
}

#[tokio::test]
async fn the_arm_audience_is_taken_unless_it_is_disabled() {
    for (accept_arm_audience, status) in [(true, 200), (false, 401)] {
        let azure = Azure::with(Options { accept_arm_audience, ..Options::default() }).await;
        let mut fields = secret_fields();
        fields[3].1 = "https://management.azure.com/.default";
        let entra = field(&json(azure.entra(&fields).await).await, "access_token");
        let answer =
            azure.exchange(&[("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &entra)]).await;
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn an_entra_token_ends() {
    let options = Options { entra_lifetime: Duration::ZERO, ..Options::default() };
    let azure = Azure::with(options).await;
    let entra = azure.entra_token().await;
    let fields = [("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &*entra)];
    assert_eq!(azure.exchange(&fields).await.status(), 401);
}

#[tokio::test]
async fn a_token_is_refused_for_every_wrong_field() {
    let azure = Azure::start().await;
    let refresh = azure.refresh_token().await;
    let entra = azure.entra_token().await;
    for (grant, service, token, status) in [
        ("refresh_token", "other.azurecr.io", &refresh, 401),
        ("refresh_token", REGISTRY, &entra, 401),
        ("refresh_token", "", &refresh, 400),
        ("access_token", REGISTRY, &refresh, 400),
        ("password", REGISTRY, &refresh, 401),
    ] {
        let answer = azure
            .token(&[
                ("grant_type", grant),
                ("service", service),
                ("scope", "repository:a:pull"),
                ("refresh_token", token),
            ])
            .await;
        assert_eq!(answer.status(), status, "{grant} {service}");
    }
    let with_password =
        azure.token(&[("grant_type", "password"), ("service", REGISTRY), ("username", "u"), ("password", "p")]).await;
    assert_eq!(with_password.status(), 400);
    assert_eq!(with_password.bytes().await.expect("a body").len(), 0);
}

#[tokio::test]
async fn a_bad_refresh_token_and_a_wrong_tenant_are_refused_without_a_word() {
    let azure = Azure::start().await;
    let entra = azure.entra_token().await;
    let elsewhere = "11111111-2222-4333-8444-000000000000";
    let exchanged = azure
        .exchange(&[
            ("grant_type", "access_token"),
            ("service", REGISTRY),
            ("tenant", elsewhere),
            ("access_token", &entra),
        ])
        .await;
    let granted = azure
        .token(&[("grant_type", "refresh_token"), ("service", REGISTRY), ("scope", "a"), ("refresh_token", "wrong")])
        .await;
    for answer in [exchanged, granted] {
        assert_eq!(answer.status(), 401);
        assert_eq!(header(&answer, "content-length"), "0");
        for name in ["www-authenticate", "content-type"] {
            assert!(answer.headers().get(name).is_none(), "{name}");
        }
    }
}

#[tokio::test]
async fn scopes_repeat_or_are_joined_by_spaces() {
    let azure = Azure::start().await;
    let refresh = azure.refresh_token().await;
    let common = [("grant_type", "refresh_token"), ("service", REGISTRY), ("refresh_token", &*refresh)];
    let repeated = [&common[..], &[("scope", "repository:a:pull"), ("scope", "registry:catalog:*")]].concat();
    let joined = [&common[..], &[("scope", "repository:a:pull registry:catalog:*")]].concat();
    for fields in [repeated, joined] {
        let token = field(&json(azure.token(&fields).await).await, "access_token");
        assert_eq!(claims(&token)["access"].as_array().map(Vec::len), Some(2));
    }
}

#[tokio::test]
async fn an_abac_registry_ignores_the_wildcard_and_says_so_in_the_refresh_token() {
    let azure = Azure::with(Options { abac: true, ..Options::default() }).await;
    azure.push();
    assert!(claims(&azure.refresh_token().await)["aad_identity"].is_string());
    let token = azure.access_token("repository:*:pull").await;
    assert_eq!(claims(&token)["access"], serde_json::json!([]));
    let answer = azure.get("/v2/hub/library/busybox/tags/list", &token, "*/*").await;
    assert_eq!(answer.status(), 401);
    assert!(header(&answer, "www-authenticate").ends_with(",error=\"insufficient_scope\""));
    let token = azure.access_token("repository:hub/library/busybox:pull").await;
    assert_eq!(azure.get("/v2/hub/library/busybox/tags/list", &token, "*/*").await.status(), 200);
}

#[tokio::test]
async fn docker_gets_its_token_by_basic() {
    let azure = Azure::start().await;
    azure.push();
    let refresh = azure.refresh_token().await;
    let url = azure.registry("/oauth2/token?service=example.azurecr.io&scope=repository%3A%2A%3Apull");
    let answer = azure.client.get(&url).basic_auth(NULL_GUID, Some(&refresh)).send().await;
    let token = field(&json(answer.expect("an answer")).await, "access_token");
    assert_eq!(azure.get("/v2/", &token, "*/*").await.status(), 200);

    let entra = azure.entra_token().await;
    let answer = azure.client.get(&url).basic_auth(NULL_GUID, Some(&entra)).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 401);
    let message = field(&json(answer).await["errors"][0], "message");
    assert!(message.starts_with("Invalid clientid or client secret"), "{message}");

    let nobody = azure.client.get(&url).send().await.expect("an answer");
    assert_eq!((nobody.status().as_u16(), code(nobody).await), (401, "UNAUTHORIZED".to_owned()));
    let straight = BASE64_STANDARD.encode(format!("{NULL_GUID}:{refresh}"));
    let answer = azure.client.get(azure.registry("/v2/")).header("Authorization", format!("Basic {straight}"));
    assert_eq!(answer.send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn an_anonymous_token_is_for_registries_that_allow_it() {
    let fields = [("grant_type", "password"), ("service", REGISTRY), ("scope", "repository:*:pull")];
    let closed = Azure::start().await;
    assert_eq!(closed.token(&fields).await.status(), 401);

    let open = Azure::with(Options { anonymous_pull: true, ..Options::default() }).await;
    open.push();
    let token = field(&json(open.token(&fields).await).await, "access_token");
    let claims = claims(&token);
    assert_eq!(claims["sub"], "acr_anon_pull");
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(e, i)| e - i), Some(1_200));
    assert_eq!(open.get("/v2/hub/library/busybox/tags/list", &token, "*/*").await.status(), 200);
}
