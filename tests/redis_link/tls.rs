//! One server by TLS: believed by its authority's certificate, and by no other.

use std::fs;

use hongbao::redis::{Command, Failure, Link, Target, reply};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::servers::{Server, free_port};
use crate::{await_until, get, one, set, told};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn only_the_authority_in_the_file_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    let (cert, key) = (file("cert.pem", certificate.pem()), file("key.pem", key.serialize_pem()));
    let (ours, other) = (file("ours.pem", ours.pem()), file("other.pem", other.pem()));
    let port = free_port();
    let port_text = port.to_string();
    let server = Server::start(&[
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ours,
        "--tls-auth-clients",
        "no",
    ]);
    let target = |host: &str, ca_file: &str| Target {
        ca_file: ca_file.to_owned(),
        ..Target::new(format!("rediss://{host}:{port}"))
    };
    let mut link = Link::new(&target("127.0.0.1", &ours)).unwrap();
    let large = "z".repeat(2 << 20);
    for _ in 0..3 {
        // The second round meets what TLS sends of its own after the first.
        assert_eq!(
            told(&link.round(&[set("a", "1"), Command::new("INCR", "a"), set("l", &large)])),
            ["ok", "2", "ok"]
        );
        assert_eq!(
            reply::text("GET", link.call(get("l")).unwrap()).unwrap().as_deref(),
            Some(large.as_str())
        );
    }
    let kill = Command::routed("CLIENT", "").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let mut plain = server.link();
    assert_eq!(one(&mut plain, kill), "1", "one connection had been enough");
    await_until("the link's return without a loss", || (one(&mut link, get("a")) == "2").then_some(()));

    for (target, expect) in [
        (target("127.0.0.1", &other), "TLS"),
        (target("127.0.0.1", ""), "TLS"),
        (target("localhost", &ours), "TLS"),
        (
            Target { ca_file: ours.clone(), ..Target::new(server.url().replace("redis", "rediss")) },
            "127.0.0.1",
        ),
    ] {
        let failure = Link::new(&target).unwrap().call(get("a")).unwrap_err();
        assert!(matches!(failure, Failure::NotSent(_)) && failure.to_string().contains(expect), "{failure}");
    }
}
