//! Certificates for a bank on a laptop: an authority of its own and one server certificate for this
//! machine. A bank that faces the world brings its own files instead.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::users::replace_private_file;

/// The name that clients check the certificate against.
pub const SERVER_NAME: &str = "localhost";

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

/// Makes authority and server certificate in `folder`, or returns those that are there. The authority's
/// key is thrown away: nobody can issue another certificate that these clients would trust.
///
/// # Errors
/// When the folder cannot be written.
pub fn create(folder: &Path) -> io::Result<DevCertificates> {
    let files = DevCertificates {
        ca_file: folder.join("ca.pem"),
        cert_file: folder.join("server.pem"),
        key_file: folder.join("server.key"),
    };
    // The key is written last, so its presence means that all three are whole.
    if files.key_file.exists() {
        return Ok(files);
    }
    std::fs::create_dir_all(folder)?;
    let (ca, server, key) = generate().map_err(io::Error::other)?;
    std::fs::write(&files.ca_file, ca)?;
    std::fs::write(&files.cert_file, server)?;
    replace_private_file(&files.key_file, key.as_bytes())?;
    Ok(files)
}

/// PEM of the authority's certificate, the server's certificate and the server's key.
fn generate() -> Result<(String, String, String), rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name = name("Tallystick development authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    server.distinguished_name = name("Tallystick development branch");
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        server.subject_alt_names.push(SanType::IpAddress(address));
    }
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_certificate = server.signed_by(&server_key, &Issuer::new(ca, ca_key))?;
    Ok((ca_certificate.pem(), server_certificate.pem(), server_key.serialize_pem()))
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
}
