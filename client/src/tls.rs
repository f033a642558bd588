//! TLS 1.3 towards a branch: only the given certificates are trusted, and the name must match.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::{ConnectError, ConnectInfo};

/// A connector that trusts `info.ca_pem` and nothing else, and the name to ask for.
pub(crate) fn connector(info: &ConnectInfo) -> Result<(TlsConnector, ServerName<'static>), ConnectError> {
    let config_error = |what: String| ConnectError::Config(what);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(info.ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| config_error(format!("CA file: {error}")))?;
        roots.add(certificate).map_err(|error| config_error(format!("CA file: {error}")))?;
    }
    if roots.is_empty() {
        return Err(config_error("CA file holds no certificate".to_owned()));
    }
    // The provider is named instead of taken from the process, so that a library user need not install one.
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| config_error(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(info.server_name.clone())
        .map_err(|error| config_error(format!("server name {:?}: {error}", info.server_name)))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
