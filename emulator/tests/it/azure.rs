//! A running emulator with a client that trusts its CA.

use acr_emulator::{CLIENT_ID, CLIENT_SECRET, Emulator, Image, Options, TENANT};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::{Certificate, Client, Response, redirect};
use serde_json::Value;

pub(crate) const REGISTRY: &str = "example.azurecr.io";
pub(crate) const REPOSITORY: &str = "hub/library/busybox";
pub(crate) const SCOPE: &str = "https://containerregistry.azure.net/.default";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) struct Azure {
    pub emulator: Emulator,
    pub client: Client,
}

impl Azure {
    pub(crate) async fn start() -> Azure {
        Azure::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Azure {
        // The second test to come here finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let emulator = Emulator::start(options).await.expect("the emulator starts");
        let client = client(&emulator);
        Azure { emulator, client }
    }

    /// A client with no connections yet.
    pub(crate) fn fresh_client(&self) -> Client {
        client(&self.emulator)
    }

    pub(crate) fn push(&self) -> acr_emulator::Pushed {
        self.emulator.push(Image::small(REPOSITORY, "latest"))
    }

    pub(crate) fn registry(&self, path: &str) -> String {
        format!("https://{REGISTRY}:{}{path}", self.emulator.registry_addr().port())
    }

    pub(crate) async fn entra(&self, fields: &[(&str, &str)]) -> Response {
        let url = format!("{}{TENANT}/oauth2/v2.0/token", self.emulator.authority());
        self.client.post(url).form(fields).send().await.expect("Entra answers")
    }

    pub(crate) async fn entra_token(&self) -> String {
        let answer = self.entra(&secret_fields()).await;
        assert_eq!(answer.status(), 200);
        field(&json(answer).await, "access_token")
    }

    pub(crate) async fn exchange(&self, fields: &[(&str, &str)]) -> Response {
        let url = self.registry("/oauth2/exchange");
        self.client.post(url).form(fields).send().await.expect("the exchange answers")
    }

    pub(crate) async fn refresh_token(&self) -> String {
        let entra = self.entra_token().await;
        let answer =
            self.exchange(&[("grant_type", "access_token"), ("service", REGISTRY), ("access_token", &entra)]).await;
        assert_eq!(answer.status(), 200);
        field(&json(answer).await, "refresh_token")
    }

    pub(crate) async fn token(&self, fields: &[(&str, &str)]) -> Response {
        let url = self.registry("/oauth2/token");
        self.client.post(url).form(fields).send().await.expect("the token endpoint answers")
    }

    pub(crate) async fn access_token(&self, scope: &str) -> String {
        let refresh = self.refresh_token().await;
        let answer = self
            .token(&[
                ("grant_type", "refresh_token"),
                ("service", REGISTRY),
                ("scope", scope),
                ("refresh_token", &refresh),
            ])
            .await;
        assert_eq!(answer.status(), 200);
        let body = json(answer).await;
        assert_eq!(body.as_object().map(|object| object.len()), Some(1), "one field: {body}");
        field(&body, "access_token")
    }

    pub(crate) async fn get(&self, path: &str, token: &str, accept: &str) -> Response {
        self.client
            .get(self.registry(path))
            .bearer_auth(token)
            .header("Accept", accept)
            .send()
            .await
            .expect("the registry answers")
    }
}

fn client(emulator: &Emulator) -> Client {
    let ca = Certificate::from_pem(emulator.ca_pem().as_bytes()).expect("the CA is PEM");
    Client::builder()
        .tls_certs_only([ca])
        .resolve(REGISTRY, emulator.registry_addr())
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client")
}

pub(crate) fn secret_fields() -> [(&'static str, &'static str); 4] {
    [("grant_type", "client_credentials"), ("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("scope", SCOPE)]
}

pub(crate) async fn json(answer: Response) -> Value {
    let body = answer.bytes().await.expect("a whole body");
    serde_json::from_slice(&body).expect("a JSON body")
}

pub(crate) fn field(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}

pub(crate) fn header(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name).unwrap_or_else(|| panic!("{name} in {answer:?}"));
    value.to_str().expect("text").to_owned()
}

/// The claims of a token, as a client reads them that cannot check the signature.
pub(crate) fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("three parts");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The code of the registry's error body.
pub(crate) async fn code(answer: Response) -> String {
    field(&json(answer).await["errors"][0], "code")
}
