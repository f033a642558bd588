//! From an endpoint to a greeted connection.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tally_protocol::link::{self, LinkFrame, LinkHello};
use tally_protocol::reply;
use tally_protocol::{BranchId, Envelope, FRAME_HEADER_LEN_BYTES, Refusal, Timestamp, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Identity, LinkEnd};

/// Longest first answer: a frame with an endpoint or a refusal's text.
const ANSWER_LEN_BYTES_MAX: usize = 4_096;

/// Our certificate, and whom we trust.
#[derive(Clone)]
pub struct LinkTls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl std::fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkTls({:?})", self.server_name)
    }
}

impl LinkTls {
    /// From PEM files: the authority that signs the bank's services, our chain and its key. Every node of the registry
    /// has a certificate for `server_name`.
    ///
    /// # Errors
    /// Names the file that cannot be read or does not fit.
    pub fn load(ca_file: &Path, cert_file: &Path, key_file: &Path, server_name: &str) -> io::Result<Self> {
        let bad =
            |path: &Path, why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let certificates = |path: &Path| {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| bad(path, error.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca_file)? {
            roots.add(certificate).map_err(|error| bad(ca_file, error.to_string()))?;
        }
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| bad(key_file, error.to_string()))?;
        let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(cert_file)?, key)
            .map_err(|error| bad(cert_file, error.to_string()))?;
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{server_name}: {error}")))?;
        Ok(Self { config: Arc::new(config), server_name })
    }
}

/// What the first frame says.
pub(super) struct Greeting<'a> {
    pub(super) branch: BranchId,
    pub(super) identity: &'a mut Identity,
    pub(super) routes_version: u64,
    pub(super) advertised: SocketAddr,
    /// Our clock.
    pub(super) now: Timestamp,
}

pub(super) async fn connect(endpoint: &str, tls: &LinkTls) -> Result<TlsStream<TcpStream>, LinkEnd> {
    let tcp = TcpStream::connect(endpoint).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(tls.config.clone()).connect(tls.server_name.clone(), tcp).await?)
}

/// Says who we are and hears whether this node leads. Returns its stamp.
pub(super) async fn greet(stream: &mut TlsStream<TcpStream>, greeting: Greeting<'_>) -> Result<u64, LinkEnd> {
    let endpoint = greeting.advertised.to_string();
    let hello = LinkHello {
        branch_id: greeting.branch,
        cluster_id: greeting.identity.cluster_id.unwrap_or(0),
        incarnation: greeting.identity.incarnation,
        stamp: greeting.now,
        routes_version: greeting.routes_version,
        endpoint: &endpoint,
    };
    let mut bytes = Vec::new();
    LinkFrame::Hello(hello).append_to(&mut bytes, Envelope::request(0));
    link::stamp_frames(&mut bytes, greeting.now);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    // Exactly one frame is read here: what follows it belongs to the link.
    let mut answer = vec![0; FRAME_HEADER_LEN_BYTES];
    stream.read_exact(&mut answer).await?;
    let invalid = |error: String| LinkEnd::Protocol(error);
    let len_bytes = u32::from_le_bytes(answer[..4].try_into().expect("four bytes")) as usize;
    if !(FRAME_HEADER_LEN_BYTES..=ANSWER_LEN_BYTES_MAX).contains(&len_bytes) {
        return Err(invalid(format!("a first answer of {len_bytes} bytes")));
    }
    answer.resize(len_bytes, 0);
    stream.read_exact(&mut answer[FRAME_HEADER_LEN_BYTES..]).await?;
    let (header, body) = split_frame(&answer)
        .map_err(|error| invalid(error.to_string()))?
        .ok_or_else(|| invalid("half a frame".to_owned()))?;
    match link::decode(header, body) {
        Ok(LinkFrame::Welcome(welcome)) => {
            greeting.identity.meet(welcome.cluster_id.get())?;
            Ok(welcome.stamp.get())
        }
        Ok(LinkFrame::Redirect { endpoint, .. }) => Err(LinkEnd::NotLeader(endpoint.to_owned())),
        Ok(other) => Err(invalid(format!("{:?} instead of a welcome", other.link_type()))),
        Err(error) => match reply::decode(header, body) {
            Ok(reply::Reply::Refused(refused)) => {
                let name = refused.refusal().map_or("unknown code", Refusal::name);
                Err(LinkEnd::Refused(format!("{name}: {}", refused.text)))
            }
            _ => Err(invalid(error.to_string())),
        },
    }
}
