//! Who is at the other end: the DNS names in the certificate say it.

use tally_protocol::BranchId;

/// A service or person of the bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `branch-<id>.tally`
    Branch(BranchId),
    /// `registry-<id>.tally`
    Registry(u64),
    /// `operator.tally`
    Operator,
}

impl Identity {
    /// What one DNS name says; `None` for names that say nothing about the bank.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".tally")?;
        if name == "operator" {
            return Some(Self::Operator);
        }
        // Written one way only: `branch-07` is nobody.
        let number = |text: &str| text.parse::<u64>().ok().filter(|id| *id != 0 && id.to_string() == text);
        if let Some(id) = name.strip_prefix("branch-") {
            return Some(Self::Branch(BranchId::new(u16::try_from(number(id)?).ok()?)));
        }
        Some(Self::Registry(number(name.strip_prefix("registry-")?)?))
    }

    /// What a certificate (DER) that was verified says: the only identity among its names. One with two of them is
    /// nobody's.
    pub fn of_certificate(certificate: &rustls::pki_types::CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut found = certificate.valid_dns_names().filter_map(Self::of_name);
        found.next().filter(|_| found.next().is_none())
    }
}

/// The name that the certificate of every registry node has, beside its own: for who dials one and knows no number.
pub const REGISTRY_NAME: &str = "registry.tally";

/// The name that only this registry node's certificate has.
pub fn registry_name(node_id: u64) -> String {
    format!("registry-{node_id}.tally")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_somebody_is_in_one_way_only() {
        for (name, identity) in [
            ("branch-7.tally", Some(Identity::Branch(BranchId::new(7)))),
            ("branch-65535.tally", Some(Identity::Branch(BranchId::new(65_535)))),
            ("registry-3.tally", Some(Identity::Registry(3))),
            ("operator.tally", Some(Identity::Operator)),
            ("branch-65536.tally", None),
            ("branch-0.tally", None),
            ("branch-07.tally", None),
            ("branch-+7.tally", None),
            ("branch-.tally", None),
            ("registry-0.tally", None),
            ("registry-3.tally.example", None),
            ("operators.tally", None),
            (REGISTRY_NAME, None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(Identity::of_name(name), identity, "{name}");
        }
        assert_eq!(Identity::of_name(&registry_name(12)), Some(Identity::Registry(12)));
    }
}
