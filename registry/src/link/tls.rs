//! TLS of the links: 1.3 only, a certificate of the bank's authority on both sides.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::identity::Identity;

/// From the first byte to a finished handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Both halves of TLS, from one certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// From a certificate chain, its key, and the authority that everybody's certificates are from (all PEM).
    ///
    /// # Errors
    /// Names the file that cannot be read or does not fit.
    pub fn load(cert_file: &Path, key_file: &Path, ca_file: &Path) -> io::Result<Self> {
        // Another call has installed it, where this says so.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let bad = |path: &Path, why: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
        };
        let certificates = |path: &Path| {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| bad(path, &error))
        };
        let chain = certificates(cert_file)?;
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| bad(key_file, &error))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca_file)? {
            roots.add(certificate).map_err(|error| bad(ca_file, &error))?;
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder(roots.clone()).build().map_err(|error| bad(ca_file, &error))?;
        let versions = &[&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_protocol_versions(versions)
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| bad(cert_file, &error))?;
        // A replayed decision is harmless, a replayed operator is not.
        server.max_early_data_size = 0;
        let client = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| bad(cert_file, &error))?;
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// Serves the handshake of `stream`; who dialled, where the certificate says so.
    ///
    /// # Errors
    /// When the handshake fails or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(server::TlsStream<TcpStream>, Option<Identity>)> {
        stream.set_nodelay(true)?;
        let stream = within(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(<[_]>::first).and_then(Identity::of_certificate);
        Ok((stream, identity))
    }

    /// Dials `endpoint` (`host:port`), whose certificate must be for `name`. Returns who answered.
    ///
    /// # Errors
    /// When it cannot be reached in time, or is not who it should be.
    pub async fn connect(
        &self,
        endpoint: &str,
        name: &str,
    ) -> io::Result<(client::TlsStream<TcpStream>, Option<Identity>)> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}`: {error}")))?;
        let stream = within(HANDSHAKE_TIMEOUT, TcpStream::connect(endpoint)).await?;
        stream.set_nodelay(true)?;
        let stream = within(HANDSHAKE_TIMEOUT, self.connector.connect(name, stream)).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(<[_]>::first).and_then(Identity::of_certificate);
        Ok((stream, identity))
    }
}

/// Runs `work` for no longer than `limit`.
///
/// # Errors
/// Those of `work`, and when it takes too long.
pub async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))),
    }
}
