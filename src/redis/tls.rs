//! Which servers are believed: those with a certificate of the authority in `ca_file`, or else of the system's.
//!
//! Certificates and names are always verified; there is no way around it. Absent: certificates of our own.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::error::LinkError;

pub(super) fn settings(ca_file: &str) -> Result<Arc<ClientConfig>, LinkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| LinkError(format!("TLS cannot be set up: {error}")))?;
    if !ca_file.is_empty() {
        return Ok(Arc::new(builder.with_root_certificates(authorities(ca_file)?).with_no_client_auth()));
    }
    let verifier = Verifier::new(provider).map_err(|error| {
        LinkError(format!(
            "the system's certificate authorities cannot be used: {error}; install them (ca-certificates) or give \
             a ca_file"
        ))
    })?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn authorities(file: &str) -> Result<RootCertStore, LinkError> {
    let unusable = |reason: String| {
        LinkError(format!("its ca_file {file:?} cannot be used: {reason}; give a PEM file of certificates"))
    };
    let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}
