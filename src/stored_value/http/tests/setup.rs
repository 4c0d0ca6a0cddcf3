//! Settings that are refused, by name and without their secrets, and certificates that are trusted or not.

use std::io::Write;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Act, PATIENCE, SECRET, Scripted, batch, json, play, says};
use crate::stored_value::http::{HttpOptions, HttpWallet};
use crate::stored_value::remote::{CallError, RemoteWallet};

fn options(url: &str) -> HttpOptions {
    HttpOptions {
        url: url.to_owned(),
        authorization: SECRET.to_owned(),
        ca_file: String::new(),
        connections_max: 1,
    }
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let ca = |ca_file| HttpOptions { ca_file, ..options("https://wallet.example") };
    let authorized =
        |text: &str| HttpOptions { authorization: text.to_owned(), ..options("http://wallet.example") };
    let table = [
        (options(""), "stored_value.http.url"),
        (options("wallet.example"), "is not a URL"),
        (options("http://"), "is not a URL"),
        (options("http://user:s3cr3t@wallet:99999"), "is not a URL"),
        (options("ftp://wallet.example"), "\"ftp\""),
        (options("http://wallet.example/?token=s3cr3t"), "has a query"),
        (options("http://wallet.example/#s3cr3t"), "has a query or a fragment"),
        (options("https://user:s3cr3t@wallet.example"), "holds a user or a password"),
        (options("https://wallet.example/v1/"), "ends in /v1"),
        (authorized("Bearer s3cr3t\n"), "stored_value.http.authorization"),
        (ca("/no/such/file.pem".to_owned()), "/no/such/file.pem"),
        (ca(file("empty.pem", "")), "holds no certificate"),
        (ca(file("broken.pem", broken)), "broken.pem"),
    ];
    for (options, part) in table {
        let error = HttpWallet::new(&options).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(part) && !text.contains("s3cr3t"), "{part}: {text}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let options = options("http://wallet.example/pay");
    let shown = format!("{options:?} {:?}", HttpWallet::new(&options).unwrap());
    assert!(shown.contains("http://wallet.example/pay") && !shown.contains("s3cr3t"), "{shown}");
}

/// An authority, and a certificate for this name that it signed.
fn signed_for(name: &str, authority: &str) -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, authority);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (authority.pem(), config)
}

/// A wallet behind TLS; the address it listens on.
async fn behind_tls(config: ServerConfig) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us hangs up here.
            if let Ok(stream) = acceptor.accept(stream).await {
                let script = says(json(r#"{"results":[{"id":"shop:1","status":"succeeded"}]}"#));
                play(stream, &script, &Mutex::default()).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn only_the_named_authority_is_trusted() {
    let (pem, config) = signed_for("localhost", "ours");
    let (other_pem, _) = signed_for("localhost", "theirs");
    // Of the same name, and another key.
    let (false_pem, _) = signed_for("localhost", "ours");
    let address = behind_tls(config).await;
    let mut files = Vec::new();
    let mut file = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().display().to_string();
        files.push(file);
        path
    };
    let named = format!("https://localhost:{}", address.port());
    let numbered = format!("https://{address}");
    let table = [
        (&named, file(&pem), true),
        (&named, file(&format!("{other_pem}{pem}")), true),
        (&named, file(&other_pem), false),
        (&named, file(&false_pem), false),
        (&named, String::new(), false),
        // Signed by the right authority, for another name.
        (&numbered, file(&pem), false),
    ];
    for (url, ca_file, trusted) in table {
        let wallet = match HttpWallet::new(&HttpOptions { ca_file: ca_file.clone(), ..options(url) }) {
            Ok(wallet) => wallet,
            // A machine without authorities of its own trusts nobody.
            Err(error) if ca_file.is_empty() && error.to_string().contains("ca-certificates") => continue,
            Err(error) => panic!("{error}"),
        };
        match wallet.transfer(batch(&["shop:1"]), PATIENCE).await {
            Ok(_) => assert!(trusted, "{url} {ca_file}"),
            Err(CallError::Unknown(reason)) => {
                assert!(!trusted && reason.contains("the wallet's certificate is not trusted"), "{reason}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_no_connection() {
    let (pem, _) = signed_for("localhost", "ours");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    let plain = Act::Send(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let table = [(plain, "cannot connect: "), (Act::Hang, "no connection within 1000 ms")];
    for (act, part) in table {
        let server = Scripted::start(vec![act]).await;
        let ca_file = file.path().display().to_string();
        let options = HttpOptions { ca_file, ..options(&format!("https://{}", server.address)) };
        match HttpWallet::new(&options).unwrap().transfer(batch(&["shop:1"]), PATIENCE).await {
            Err(CallError::Unknown(reason)) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
