//! Access tokens: short-lived JWTs, signed with the branch's Ed25519 key, that any holder of the public
//! key can verify offline.
//!
//! **Invariant:** only EdDSA is accepted (the token's own `alg` chooses nothing), only from a key whose
//! `kid` we know, only with our issuer, and only between `nbf` and `exp`.

use std::io;
use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use serde::{Deserialize, Serialize};
use tally_protocol::BranchId;

use crate::users::{RoleName, User, replace_private_file};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it: `tally-branch-N`.
    pub iss: String,
    /// The user's name.
    pub sub: String,
    /// What the user may do.
    pub role: RoleName,
    /// Whom a customer acts for; 0 for the bank's own people.
    pub customer: u64,
    /// The user's epoch: a token of an earlier one is void.
    pub epoch: u64,
    /// Issued at, in seconds since 1970.
    pub iat: u64,
    /// Not valid before, in seconds since 1970.
    pub nbf: u64,
    /// Not valid from here on, in seconds since 1970.
    pub exp: u64,
}

/// Signs and verifies the tokens of one branch.
pub struct TokenKey {
    issuer: String,
    kid: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("issuer", &self.issuer).field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// The key in `DIR/keys/token.pem`, made at the first call, with its public half beside it in
    /// `token.pub.pem`.
    ///
    /// # Errors
    /// When the folder cannot be used, or the file holds no Ed25519 key.
    pub fn load_or_create(dir: &Path, branch: BranchId) -> io::Result<Self> {
        let folder = dir.join("keys");
        let path = folder.join("token.pem");
        let pem = match std::fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder)?;
                let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(io::Error::other)?;
                replace_private_file(&path, pair.serialize_pem().as_bytes())?;
                std::fs::write(folder.join("token.pub.pem"), pair.public_key_pem())?;
                pair.serialize_pem()
            }
            Err(error) => return Err(error),
        };
        Self::from_pem(&pem, branch)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display())))
    }

    fn from_pem(pem: &str, branch: BranchId) -> Result<Self, String> {
        let pair = KeyPair::from_pem(pem).map_err(|error| error.to_string())?;
        if pair.algorithm() != &PKCS_ED25519 {
            return Err("not an Ed25519 key".to_owned());
        }
        let issuer = format!("tally-branch-{branch}");
        let kid = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(pair.der_bytes()));
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.leeway = 0;
        Ok(Self {
            issuer,
            kid,
            signing: EncodingKey::from_ed_pem(pem.as_bytes()).map_err(|error| error.to_string())?,
            verifying: DecodingKey::from_ed_pem(pair.public_key_pem().as_bytes()).map_err(|error| error.to_string())?,
            validation,
        })
    }

    /// A token for `user` that is valid from `now_s` for `life_s` seconds, and what it says.
    pub fn issue(&self, user: &User, now_s: u64, life_s: u64) -> (String, Claims) {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: user.name.clone(),
            role: user.role,
            customer: user.customer_id,
            epoch: user.epoch,
            iat: now_s,
            nbf: now_s,
            exp: now_s + life_s,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).expect("plain claims and a checked key");
        (token, claims)
    }

    /// What a token says, if it is one of ours and valid now. About 40 microseconds.
    pub fn verify(&self, token: &[u8]) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.kid.as_deref() != Some(self.kid.as_str()) {
            return None;
        }
        Some(jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation).ok()?.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "alice".into(),
            password: String::new(),
            role: RoleName::Customer,
            customer_id: 7,
            disabled: false,
            epoch: 3,
        }
    }

    fn now_s() -> u64 {
        crate::clock::wall().as_nanos() / 1_000_000_000
    }

    fn key(branch: u16) -> (tempfile::TempDir, TokenKey) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = TokenKey::load_or_create(folder.path(), BranchId::new(branch)).expect("made");
        (folder, key)
    }

    #[test]
    fn a_token_says_what_was_signed_also_after_a_restart() {
        let (folder, key) = key(1);
        let (token, claims) = key.issue(&user(), now_s(), 60);
        assert_eq!(key.verify(token.as_bytes()), Some(claims.clone()));
        let again = TokenKey::load_or_create(folder.path(), BranchId::new(1)).expect("read");
        assert_eq!(again.verify(token.as_bytes()), Some(claims));
        assert!(token.len() < tally_protocol::message::SECRET_LEN_BYTES_MAX);
    }

    #[test]
    fn others_are_not_ours() {
        let (folder, key) = key(1);
        let (token, _) = key.issue(&user(), now_s(), 60);
        let (_other_folder, other) = self::key(1);
        assert_eq!(other.verify(token.as_bytes()), None, "another key");
        let moved = TokenKey::load_or_create(folder.path(), BranchId::new(2)).expect("read");
        assert_eq!(moved.verify(token.as_bytes()), None, "another issuer");
        let (expired, _) = key.issue(&user(), now_s() - 61, 60);
        assert_eq!(key.verify(expired.as_bytes()), None, "expired");
        let (early, _) = key.issue(&user(), now_s() + 60, 60);
        assert_eq!(key.verify(early.as_bytes()), None, "not valid yet");
        for garbage in ["", ".", "a.b.c", &token[1..], &token[..token.len() - 2]] {
            assert_eq!(key.verify(garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn the_tokens_own_algorithm_chooses_nothing() {
        let (_folder, key) = key(1);
        let (_, claims) = key.issue(&user(), now_s(), 60);
        for algorithm in [Algorithm::HS256, Algorithm::HS512] {
            let mut header = Header::new(algorithm);
            header.kid = Some(key.kid.clone());
            let public = std::fs::read(_folder.path().join("keys/token.pub.pem")).expect("published");
            let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&public)).expect("signed");
            assert_eq!(key.verify(forged.as_bytes()), None, "{algorithm:?} with the public key as its secret");
        }
        let (token, _) = key.issue(&user(), now_s(), 60);
        let body = token.split('.').nth(1).expect("three parts");
        // {"alg":"none"}
        let none = format!("eyJhbGciOiJub25lIn0.{body}.");
        assert_eq!(key.verify(none.as_bytes()), None);
    }
}
