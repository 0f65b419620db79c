//! A proxy answers `CONNECT`, well and badly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A tunnel to `example.azurecr.io:443`, with these credentials.
fn tunnel(credentials: Option<&str>) -> Tunnel {
    let authorization = credentials.map(|credentials| {
        let text = format!("Basic {}", STANDARD.encode(credentials));
        let mut value = HeaderValue::from_str(&text).expect("base64");
        value.set_sensitive(true);
        value
    });
    let proxy = ForwardProxy { name: "proxy.corp:3128".to_owned(), setting: "HTTPS_PROXY", authorization, tls: None };
    Tunnel::new(&Arc::new(proxy), "example.azurecr.io", 443)
}

/// What the proxy was sent, how the tunnel was opened, and what came through it before the connection ended.
async fn ask(tunnel: &Tunnel, parts: &[&[u8]]) -> (String, Result<(), NoTunnel>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let proxy = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a head"));
        }
        for part in parts {
            // Whoever has read enough may be gone.
            let _ = stream.write_all(part).await;
            tokio::task::yield_now().await;
        }
        String::from_utf8(request).expect("text")
    };
    let client = async {
        let stream = TcpStream::connect(address).await.expect("connected");
        let mut rest = Vec::new();
        let opened = match tunnel.open(stream, Instant::now() + LIMIT).await {
            Ok(Opened::Plain(mut stream)) => {
                stream.read_to_end(&mut rest).await.expect("to its end");
                Ok(())
            }
            Ok(Opened::Tls(_)) => unreachable!("it speaks none"),
            Err(refused) => Err(refused),
        };
        (opened, rest)
    };
    let (request, (opened, rest)) = tokio::join!(proxy, client);
    (request, opened, rest)
}

#[tokio::test]
async fn the_head_is_read_to_its_last_byte_and_no_further() {
    let head = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n";
    let byte_by_byte: Vec<&[u8]> = head.chunks(1).chain([&b"\x16\x03"[..]]).collect();
    for parts in [&[&head[..], b"\x16\x03"][..], &[&[&head[..], b"\x16\x03"].concat()], &byte_by_byte] {
        let (request, opened, rest) = ask(&tunnel(None), parts).await;
        opened.expect("a tunnel");
        assert_eq!(rest, b"\x16\x03");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "CONNECT example.azurecr.io:443 HTTP/1.1\r\nHost: example.azurecr.io:443\r\nUser-Agent: acr-cache-proxy/{version}\r\n\r\n"
        );
        assert_eq!(request, expected);
    }
    ask(&tunnel(None), &[b"HTTP/1.0 200 Yes\n\n"]).await.1.expect("a tunnel");
    // It is valid, and was taken for the answer of a server that is no forward proxy.
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\x16\x03";
    let (_, opened, rest) = ask(&tunnel(None), &[interim]).await;
    opened.expect("a tunnel");
    assert_eq!(rest, b"\x16\x03");
}

#[tokio::test]
async fn credentials_are_sent_and_never_told() {
    let tunnel = tunnel(Some("user:geheim"));
    let (request, opened, _) =
        ask(&tunnel, &[b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"]).await;
    let encoded = STANDARD.encode("user:geheim");
    assert!(request.contains(&format!("\r\nProxy-Authorization: Basic {encoded}\r\n\r\n")), "{request}");
    let refused = opened.expect_err("407");
    let said = format!("{refused} {refused:?} {tunnel:?}");
    assert!(said.contains("refuses the user and the password in HTTPS_PROXY"), "{said}");
    assert!(!said.contains("geheim") && !said.contains(&encoded), "{said}");
}

#[tokio::test]
async fn each_refusal_has_words_that_name_the_proxy_and_what_to_do() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(MAX_HEAD));
    let many_407 = many.replacen("200 OK", "407 No", 1);
    let long_407 = long.replacen("200 OK", "407 No", 1);
    let interim = format!("{}HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM + 1));
    for (answer, says, is_refusal) in [
        (
            "HTTP/1.1 407 X\r\n\r\n",
            "407: it wants a user and a password: give them in HTTPS_PROXY, as http://USER",
            true,
        ),
        (
            "HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n",
            "407: it offers Negotiate, NTLM, and this program has Basic only",
            true,
        ),
        ("HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate, Basic realm=\"a\"\r\n\r\n", "407: it wants a user", true),
        (
            "HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n<html>",
            "403 ERR_ACCESS_DENIED: it does not allow CONNECT to example.azurecr.io:443: allow it there",
            true,
        ),
        (
            "HTTP/1.1 503 X\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n",
            "503 ERR_DNS_FAIL: it cannot connect to example.azurecr.io:443",
            false,
        ),
        ("HTTP/1.1 502 X\r\nX-Squid-Error: <b>\r\n\r\n", "502: it cannot connect to example.azurecr.io:443", false),
        // What a proxy repeats of the credentials is in no message.
        (
            "HTTP/1.1 502 X\r\nX-Squid-Error: aHVidXNlcjpodWJwYXNz 0\r\n\r\n",
            "502: it cannot connect to example.azurecr.io:443",
            false,
        ),
        (
            "HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM, aHVidXNlcjpodWJwYXNz, ntlm, x\r\n\r\n",
            "407: it offers NTLM, an unknown scheme, and this program",
            true,
        ),
        // The calls for tokens take nothing but 200 for a tunnel.
        ("HTTP/1.1 204 No Content\r\n\r\n", "204 to CONNECT example.azurecr.io:443: is HTTPS_PROXY a forward", true),
        ("HTTP/1.1 201 Created\r\n\r\n", "201 to CONNECT example.azurecr.io:443: is HTTPS_PROXY a forward", true),
        ("HTTP/1.1 302 X\r\nLocation: /login\r\n\r\n", "302 to CONNECT example.azurecr.io:443: is HTTPS_PROXY a", true),
        ("HTTP/1.1 405 X\r\n\r\n", "405 to CONNECT example.azurecr.io:443", true),
        ("", "it closed the connection without an answer", false),
        ("HTTP/1.1 200 O", "it closed the connection without an answer", false),
        ("\x15\x03\x01\x00\x02\x02\x46", "is not HTTP: is HTTPS_PROXY the port of an http:// proxy?", false),
        ("220 mail ESMTP\r\n", "is not HTTP", false),
        (&many, "200: the head of its answer to CONNECT example.azurecr.io:443 has more than 8192 bytes", false),
        (&long, "200: the head of its answer to CONNECT example.azurecr.io:443 has more than 8192 bytes", false),
        // It was said without its status, which is what is to be known of it.
        (&many_407, "407: the head of its answer to CONNECT example.azurecr.io:443 has more than 8192 bytes", false),
        (&long_407, "407: the head of its answer to CONNECT example.azurecr.io:443 has more than 8192 bytes", false),
        // It was asked whether it is a forward proxy.
        (
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\n\r\n",
            "429: it limits how often CONNECT to example.azurecr.io:443 is asked for",
            true,
        ),
        ("HTTP/1.1 101 X\r\n\r\n", "101 to CONNECT example.azurecr.io:443: is HTTPS_PROXY a forward", true),
        (&interim, "100 to CONNECT example.azurecr.io:443: is HTTPS_PROXY a forward", true),
    ] {
        let refused = ask(&tunnel(None), &[answer.as_bytes()]).await.1.expect_err(says);
        let said = refused.to_string();
        assert!(said.starts_with("egress proxy proxy.corp:3128: ") && said.contains(says), "{says}: {said}");
        assert_eq!(refused.is_refusal(), is_refusal, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_drips_its_answer_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    let (mut proxy, _) = listener.accept().await.expect("a connection");
    let drip = async {
        for byte in b"HTTP/1.1 200 OK\r\n".iter().cycle() {
            proxy.write_all(&[*byte]).await.expect("it listens");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (tunnel, begun) = (tunnel(None), Instant::now());
    let refused = tokio::select! {
        () = drip => panic!("it ends"),
        opened = tunnel.open(stream, begun + TUNNEL_LIMIT) => opened.err().expect("no whole head"),
    };
    assert!(refused.to_string().contains("no answer in time to CONNECT example.azurecr.io:443"), "{refused}");
    assert!(refused.is_proxys() && begun.elapsed() <= TUNNEL_LIMIT + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn targets_are_told_apart() {
    let one = tunnel(None);
    let other = Tunnel::new(&one.proxy, "example.azurecr.io", 8443);
    assert_ne!(one.id(), other.id());
    assert_eq!(one.id(), one.clone().id());
}
