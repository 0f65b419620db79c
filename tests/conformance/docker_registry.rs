//! Debian's `docker-registry`, dressed as a registry of Azure's.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use acr_emulator::Emulator;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::Client;
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::content::{Content, MANIFEST, REPOSITORY};
use crate::tls::{self, Request, Stream};
use crate::tokens::{self, Tokens};

/// The registry's own word that it can be asked, with its address behind it.
const LISTENS: &str = "listening on ";

/// A real registry with TLS, token authentication and blobs elsewhere: what a registry of Azure's is to a client.
///
/// Three servers are one registry: `docker-registry` itself; the token endpoints, which share its host in Azure, so that
/// both are behind one door; and the storage that it redirects to.
pub(crate) struct DockerRegistry {
    child: Child,
    /// Where it is without the door, for pushes.
    itself: SocketAddr,
    door: SocketAddr,
    tokens: Arc<Tokens>,
    servers: [AbortHandle; 2],
    _directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts all of it, with certificates of the emulator's CA.
    pub(crate) async fn start(azure: &Emulator) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let (storage, storage_server) = serve_files(azure, data.clone()).await;
        let (child, itself) = run(azure, directory.path(), &data, storage);
        let tokens = Arc::new(Tokens::new());
        let (door, door_server) = serve_door(azure, itself, Arc::clone(&tokens)).await;
        Self { child, itself, door, tokens, servers: [storage_server, door_server], _directory: directory }
    }

    /// Where a client finds the registry and its token endpoints.
    pub(crate) fn address(&self) -> SocketAddr {
        self.door
    }

    /// From now on tokens are given that allow nothing.
    pub(crate) fn grant_nothing(&self) {
        self.tokens.grant_nothing();
    }

    /// Pushes what the emulator has.
    pub(crate) async fn push(&self, client: &Client, azure: &Emulator, content: &Content) {
        let token = format!("Bearer {}", self.tokens.access(&format!("repository:{REPOSITORY}"), &["pull", "push"]));
        let base = format!("https://{}/v2/{REPOSITORY}", self.itself);
        let manifests = content.manifests(azure);
        let mut blobs = BTreeSet::new();
        for (digest, _) in manifests.iter().filter(|(_, media_type)| *media_type == MANIFEST) {
            let bytes = azure.manifest(REPOSITORY, digest).expect("pushed");
            let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
            let parts = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
            blobs.extend(parts.map(|part| part["digest"].as_str().expect("a digest").to_owned()));
        }
        for digest in blobs {
            let begun = client.post(format!("{base}/blobs/uploads/")).header(AUTHORIZATION, &token).send().await;
            let begun = begun.expect("an answer");
            let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.unwrap_or_else(|| panic!("no place for a blob: {begun:?}"));
            let place = format!("{location}&digest={digest}");
            put(client, &token, &place, "application/octet-stream", azure.blob(&digest).expect("pushed")).await;
        }
        for (reference, media_type) in manifests {
            let bytes = azure.manifest(REPOSITORY, &reference).expect("pushed");
            put(client, &token, &format!("{base}/manifests/{reference}"), media_type, bytes).await;
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.servers.iter().for_each(AbortHandle::abort);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn put(client: &Client, token: &str, place: &str, media_type: &str, body: bytes::Bytes) {
    let request = client.put(place).header(AUTHORIZATION, token).header(CONTENT_TYPE, media_type).body(body);
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    assert_eq!(status, 201, "{place}: {}", answer.text().await.unwrap_or_default());
}

/// Starts the program and waits until it says where it listens.
fn run(azure: &Emulator, directory: &Path, data: &Path, storage: SocketAddr) -> (Child, SocketAddr) {
    let (certificate, key) = azure.certificate_and_key_pem();
    let file = |name: &str, content: &str| {
        let path = directory.join(name);
        std::fs::write(&path, content).expect("a file is written");
        path.display().to_string()
    };
    let settings = serde_json::json!({
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": data}},
        "middleware": {"storage": [{"name": "redirect", "options": {"baseurl": format!("https://{storage}/")}}]},
        "auth": {"token": {
            "realm": format!("https://{}/oauth2/token", tokens::SERVICE),
            "service": tokens::SERVICE,
            "issuer": tokens::ISSUER,
            "rootcertbundle": file("tokens.pem", tokens::CERTIFICATE),
        }},
        "http": {
            "addr": "127.0.0.1:0",
            "secret": "of no use to anyone",
            "tls": {"certificate": file("server.pem", certificate), "key": file("server.key", key)},
        },
    });
    // All JSON is YAML.
    let settings = file("config.yml", &settings.to_string());
    let mut child = Command::new("docker-registry")
        .args(["serve", &settings])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|cause| panic!("docker-registry: {cause}: run scripts/install test"));
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let address = lines.by_ref().find_map(|line| {
        let address = line.split(LISTENS).nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        said.push_str(&line);
        said.push('\n');
        address
    });
    let address = address.unwrap_or_else(|| panic!("it ended:\n{said}"));
    // A pipe that nobody reads would stop it.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

/// The registry's one host: the token endpoints, and everything else to `docker-registry`, byte for byte.
async fn serve_door(azure: &Emulator, itself: SocketAddr, tokens: Arc<Tokens>) -> (SocketAddr, AbortHandle) {
    let connector = tls::connector(azure);
    tls::serve(azure, move |stream| enter(stream, itself, connector.clone(), Arc::clone(&tokens))).await
}

/// A connection goes where its first request does: nobody sends both kinds on one.
async fn enter(mut stream: Stream, itself: SocketAddr, connector: TlsConnector, tokens: Arc<Tokens>) -> io::Result<()> {
    let request = Request::read(&mut stream).await?;
    let (method, path) = request.line();
    if method == "POST" && path.starts_with("/oauth2/") {
        let path = path.to_owned();
        let form = request.body(&mut stream).await?;
        let (status, body) = tokens.answer(&path, &form);
        return tls::answer(&mut stream, status, "Content-Type: application/json\r\n", body.as_bytes(), false).await;
    }
    let mut behind = tls::connect(&connector, itself).await?;
    behind.write_all(request.head.as_bytes()).await?;
    behind.write_all(&request.rest).await?;
    copy_bidirectional(&mut stream, &mut behind).await.map(|_| ())
}

/// The storage: files by their paths, in whole or in part, and no credential with them.
async fn serve_files(azure: &Emulator, root: PathBuf) -> (SocketAddr, AbortHandle) {
    tls::serve(azure, move |stream| file(stream, root.clone())).await
}

async fn file(mut stream: Stream, root: PathBuf) -> io::Result<()> {
    let request = Request::read(&mut stream).await?;
    let (method, path) = request.line();
    let is_head = method == "HEAD";
    let content = std::fs::read(root.join(path.trim_start_matches('/')));
    let (status, headers, body) = match content {
        _ if request.header("authorization").is_some() => (400, String::new(), Vec::new()),
        Err(_) => (404, String::new(), Vec::new()),
        Ok(content) => match request.header("range").map(|range| part(range, content.len())) {
            None => (200, String::new(), content),
            Some(None) => (416, String::new(), Vec::new()),
            Some(Some((first, last))) => {
                let says = format!("Content-Range: bytes {first}-{last}/{}\r\n", content.len());
                (206, says, content[first..=last].to_vec())
            }
        },
    };
    tls::answer(&mut stream, status, &headers, &body, is_head).await
}

/// `bytes=a-` and `bytes=a-b`.
fn part(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first = first.parse().ok().filter(|first| *first < length)?;
    Some((first, last.parse().unwrap_or(length).min(length - 1)))
}
