//! Certificates for a bank on a laptop: an authority of its own, and a certificate for each service on this
//! machine. A bank that faces the world brings its own files instead.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use tally_protocol::BranchId;

use crate::users::replace_private_file;

/// The name that clients check the certificate against.
pub const SERVER_NAME: &str = "localhost";
/// The name that every node of the registry has in its certificate, beside its own.
pub const REGISTRY_NAME: &str = "registry.tally";

/// Where the files lie.
#[derive(Clone, Debug)]
pub struct DevCertificates {
    /// The authority's certificate: what clients trust.
    pub ca_file: PathBuf,
    /// The server's certificate chain.
    pub cert_file: PathBuf,
    /// The server's private key.
    pub key_file: PathBuf,
}

/// A service of a development bank, as its certificate names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// What clients of a branch meet.
    Clients,
    /// A branch, to the registry.
    Branch(BranchId),
    /// A node of the registry, to branches, operators and other nodes.
    Registry(u64),
    /// A person with a command line.
    Operator,
}

impl Service {
    /// The names of its certificate.
    fn names(self) -> Vec<String> {
        match self {
            Self::Clients => vec![SERVER_NAME.to_owned()],
            Self::Branch(id) => vec![format!("branch-{}.tally", id.get())],
            Self::Registry(id) => vec![format!("registry-{id}.tally"), REGISTRY_NAME.to_owned()],
            Self::Operator => vec!["operator.tally".to_owned()],
        }
    }

    fn file_stem(self) -> &'static str {
        match self {
            Self::Clients => "server",
            Self::Branch(_) => "link",
            Self::Registry(_) => "registry",
            Self::Operator => "operator",
        }
    }
}

/// The authority of a development bank: its key lies beside its certificate, so that branches can join later.
#[derive(Debug)]
pub struct Authority {
    ca_file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority in `folder`, or opens the one that is there.
    ///
    /// # Errors
    /// When the folder cannot be written, or the files are damaged.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let (ca_file, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
        if !key_file.exists() {
            std::fs::create_dir_all(folder)?;
            let key = KeyPair::generate().map_err(io::Error::other)?;
            let certificate = Self::params().and_then(|params| params.self_signed(&key)).map_err(io::Error::other)?;
            std::fs::write(&ca_file, certificate.pem())?;
            // Last, so its presence means that both are whole.
            replace_private_file(&key_file, key.serialize_pem().as_bytes())?;
        }
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key_file)?).map_err(io::Error::other)?;
        let issuer = Issuer::new(Self::params().map_err(io::Error::other)?, key);
        Ok(Self { ca_file, issuer })
    }

    fn params() -> Result<CertificateParams, rcgen::Error> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name = name("Tallystick development authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(ca)
    }

    /// Makes a certificate for `service` in `folder`, or returns the one that is there. The authority's certificate is
    /// put beside it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn issue(&self, folder: &Path, service: Service) -> io::Result<DevCertificates> {
        let stem = service.file_stem();
        let files = DevCertificates {
            ca_file: folder.join("ca.pem"),
            cert_file: folder.join(format!("{stem}.pem")),
            key_file: folder.join(format!("{stem}.key")),
        };
        // The key is written last, so its presence means that all three are whole.
        if files.key_file.exists() {
            return Ok(files);
        }
        std::fs::create_dir_all(folder)?;
        if files.ca_file != self.ca_file {
            std::fs::copy(&self.ca_file, &files.ca_file)?;
        }
        let (certificate, key) = self.generate(service).map_err(io::Error::other)?;
        std::fs::write(&files.cert_file, certificate)?;
        replace_private_file(&files.key_file, key.as_bytes())?;
        Ok(files)
    }

    /// PEM of a certificate and its key.
    fn generate(&self, service: Service) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(service.names())?;
        params.distinguished_name = name(&format!("Tallystick development {service:?}"));
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Makes authority and server certificate in `folder`, or returns those that are there.
///
/// # Errors
/// When the folder cannot be written.
pub fn create(folder: &Path) -> io::Result<DevCertificates> {
    let files = DevCertificates {
        ca_file: folder.join("ca.pem"),
        cert_file: folder.join("server.pem"),
        key_file: folder.join("server.key"),
    };
    if files.key_file.exists() {
        return Ok(files);
    }
    Authority::open(folder)?.issue(folder, Service::Clients)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_keeps_the_first_ones_certificates() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = create(folder.path()).expect("made");
        let read = |path: &Path| std::fs::read_to_string(path).expect("there");
        let before = (read(&first.ca_file), read(&first.cert_file), read(&first.key_file));
        let second = create(folder.path()).expect("kept");
        assert_eq!(before, (read(&second.ca_file), read(&second.cert_file), read(&second.key_file)));
    }

    #[test]
    fn services_share_one_authority() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = |files: &DevCertificates| std::fs::read_to_string(&files.ca_file).expect("there");
        let first = Authority::open(&folder.path().join("ca")).expect("made");
        let branch = first.issue(&folder.path().join("b"), Service::Branch(BranchId::new(2))).expect("issued");
        let again = Authority::open(&folder.path().join("ca")).expect("opened");
        let registry = again.issue(&folder.path().join("r"), Service::Registry(1)).expect("issued");
        assert_eq!(ca(&branch), ca(&registry));
        assert!(branch.cert_file.ends_with("link.pem") && registry.key_file.ends_with("registry.key"));
    }
}
