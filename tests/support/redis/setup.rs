//! How a Redis server is to run, as its settings file says it, and what it needs beside that: certificates, a port.

use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// When the append-only file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// There is no file: what is killed has lost everything.
    NoFile,
    EverySecond,
    Always,
}

/// How a server is to run.
#[derive(Clone, Debug)]
pub struct Setup {
    pub fsync: Fsync,
    pub password: Option<String>,
    /// Nothing but TLS, with a certificate for `localhost` and `127.0.0.1` from an authority of its own.
    pub tls: bool,
    /// Further settings: `maxmemory`, `maxmemory-policy`, `aof-load-truncated`, `replicaof`, …
    pub settings: Vec<(String, String)>,
}

impl Setup {
    pub fn new(fsync: Fsync) -> Setup {
        Setup { fsync, password: None, tls: false, settings: Vec::new() }
    }

    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Setup {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn password(mut self, password: &str) -> Setup {
        self.password = Some(password.to_owned());
        self
    }

    #[must_use]
    pub fn tls(mut self) -> Setup {
        self.tls = true;
        self
    }

    /// A replica of the server on this port, which has the same password.
    #[must_use]
    pub fn replica_of(self, port: u16) -> Setup {
        self.set("replicaof", &format!("127.0.0.1 {port}"))
    }

    /// The settings file.
    pub(super) fn text(&self, port: u16) -> String {
        let mut text = String::from("bind 127.0.0.1\nsave \"\"\nrepl-diskless-sync-delay 0\n");
        let port = if self.tls {
            format!(
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-replication yes\n\
                 tls-cert-file {CERTIFICATE}\ntls-key-file {KEY}\ntls-ca-cert-file {AUTHORITY}\n"
            )
        } else {
            format!("port {port}\n")
        };
        text.push_str(&port);
        if let Some(password) = &self.password {
            writeln!(text, "requirepass {password}\nmasterauth {password}").expect("memory");
        }
        let (append, fsync) = match self.fsync {
            Fsync::NoFile => ("no", "no"),
            Fsync::EverySecond => ("yes", "everysec"),
            Fsync::Always => ("yes", "always"),
        };
        writeln!(text, "appendonly {append}\nappendfsync {fsync}").expect("memory");
        for (name, value) in &self.settings {
            writeln!(text, "{name} {value}").expect("memory");
        }
        text
    }
}

pub(super) const AUTHORITY: &str = "authority.pem";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// Writes an authority's certificate, and the server's with its key.
pub(super) fn write_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Of one name with what it signs, it would seem to have signed itself.
    authority.distinguished_name.push(DnType::CommonName, "hongbao test authority");
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).expect("two names").signed_by(&key, &authority);
    for (name, text) in [
        (AUTHORITY, authority.pem()),
        (CERTIFICATE, certificate.expect("a certificate").pem()),
        (KEY, key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).expect("a file in our folder");
    }
}

/// A port that nobody listens on, below those that Linux gives to outgoing connections: one of them could be taken
/// while a server is down between its kill and its restart, even by a client that knocks and meets itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test programs that run side by side begin at different places.
        let place = std::process::id().wrapping_mul(7_919).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (place % 22_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
