//! TLS: version 1.3 only, no early data (a replayed payment is not a payment), one crypto provider.

pub mod dev;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The application protocol that both sides name in the handshake (RFC 7301), so that a connection to
/// the wrong port ends there.
pub const ALPN: &[u8] = b"tallystick/1";

/// Makes aws-lc-rs the crypto provider of this process. Call it first thing in `main`; later calls do
/// nothing.
pub fn install_crypto_provider() {
    // An error says that one is installed already, by an earlier call.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The server's half of TLS, from a certificate chain and its key (both PEM).
///
/// # Errors
/// Names the file that cannot be read or does not fit.
pub fn server_config(cert_file: &Path, key_file: &Path) -> io::Result<Arc<ServerConfig>> {
    let bad =
        |path: &Path, why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(cert_file, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| bad(key_file, error.to_string()))?;
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| bad(cert_file, error.to_string()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        install_crypto_provider();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certificates = dev::create(&folder.path().join("tls")).expect("made");
        assert!(server_config(&certificates.cert_file, &certificates.key_file).is_ok());
        for (cert, key, named) in [
            (&certificates.cert_file, &certificates.cert_file, "server.pem"),
            (&certificates.key_file, &certificates.key_file, "server.key"),
            (&certificates.ca_file, &certificates.key_file, "ca.pem"),
            (&folder.path().join("none.pem"), &certificates.key_file, "none.pem"),
        ] {
            let error = server_config(cert, key).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
