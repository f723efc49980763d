use std::{cmp, fmt, hash, str::FromStr};

use sha2::{Digest, Sha256};

use crate::varint;

const IDENTITY: u64 = 0x00;
const SHA2_256: u64 = 0x12;
const LIBP2P_KEY: u64 = 0x72;
/// A public key of at most this many encoded bytes is its own identity multihash (PID-01).
const IDENTITY_KEY_LEN_MAX: usize = 42;
/// Multihash code, length byte and the longest identity digest.
const LEN_MAX: usize = 2 + IDENTITY_KEY_LEN_MAX;
/// The longest text that is looked at: base2 of the longest CID is longer than any other form.
const TEXT_LEN_MAX: usize = 512;

/// The identity of a peer: the multihash of its public key (specs, peer-ids/peer-ids.md).
///
/// 34 to 44 bytes, held in place. The text form is base58btc (`12D3KooW…`, `Qm…`); the CIDv1
/// form (`bafz…`) is understood when parsed.
#[derive(Clone, Copy)]
pub struct PeerId {
    len: u8,
    bytes: [u8; LEN_MAX],
}

/// Why bytes or a text are not a peer id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// The text is in none of the two forms, or its base does not decode.
    #[error("the peer id {0:?} is neither base58btc nor a CIDv1")]
    Text(String),
    /// The CID's codec is not `libp2p-key` (0x72).
    #[error("the CID's codec is {0:#x}, not libp2p-key (0x72)")]
    Codec(u64),
    /// The bytes are not one whole multihash.
    #[error("the bytes are not one whole multihash")]
    Multihash,
    /// A hash function that peer ids do not use.
    #[error("multihash code {0:#x} is not used for peer ids")]
    HashCode(u64),
    /// The digest's length does not fit its hash function.
    #[error("a digest of {len} bytes does not fit multihash code {code:#x}")]
    DigestLen {
        /// The multihash code.
        code: u64,
        /// The digest's length in bytes.
        len: usize,
    },
}

impl PeerId {
    /// Derives the id from a public key's canonical protobuf encoding (PID-01).
    pub(crate) fn from_encoded_key(encoded: &[u8]) -> Self {
        if encoded.len() <= IDENTITY_KEY_LEN_MAX {
            Self::from_parts(IDENTITY, encoded)
        } else {
            Self::from_parts(SHA2_256, &Sha256::digest(encoded))
        }
    }

    /// `digest` is at most 42 bytes: the callers have checked, or made it.
    fn from_parts(code: u64, digest: &[u8]) -> Self {
        let mut bytes = [0; LEN_MAX];
        bytes[0] = u8::try_from(code).expect("both multihash codes fit a byte");
        bytes[1] = u8::try_from(digest.len()).expect("a digest is at most 42 bytes");
        bytes[2..2 + digest.len()].copy_from_slice(digest);
        Self { len: bytes[1] + 2, bytes }
    }

    /// Parses a bare multihash, the form on the wire (PID-08, PID-09).
    ///
    /// # Errors
    /// [`PeerIdError`] unless it is a SHA-256 digest of 32 bytes or an identity digest of at
    /// most 42.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PeerIdError> {
        let (code, digest) = split_multihash(bytes).ok_or(PeerIdError::Multihash)?;
        let fits = match code {
            IDENTITY => digest.len() <= IDENTITY_KEY_LEN_MAX,
            SHA2_256 => digest.len() == 32,
            other => return Err(PeerIdError::HashCode(other)),
        };
        if !fits {
            return Err(PeerIdError::DigestLen { code, len: digest.len() });
        }
        Ok(Self::from_parts(code, digest))
    }

    /// The multihash, 2 to 44 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The encoded public key that the id contains, when it is an identity multihash (PID-04).
    pub(crate) fn inlined_key(&self) -> Option<&[u8]> {
        let [code, _, digest @ ..] = self.as_bytes() else { return None };
        (u64::from(*code) == IDENTITY).then_some(digest)
    }

    /// The CIDv1 text form, base32: `bafz…`.
    #[must_use]
    pub fn to_cid(&self) -> String {
        let mut cid = vec![0x01, 0x72];
        cid.extend_from_slice(self.as_bytes());
        multibase::encode(multibase::Base::Base32Lower, cid)
    }
}

fn split_multihash(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (code, used) = varint::decode(bytes).ok()??;
    let rest = bytes.get(used..)?;
    let (len, used) = varint::decode(rest).ok()??;
    let digest = rest.get(used..)?;
    (u64::try_from(digest.len()).ok()? == len).then_some((code, digest))
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    /// Parses either text form (PID-07).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let not_text = || PeerIdError::Text(text.chars().take(80).collect());
        if text.len() > TEXT_LEN_MAX {
            return Err(not_text());
        }
        if text.starts_with('1') || text.starts_with("Qm") {
            let bytes = bs58::decode(text).into_vec().map_err(|_| not_text())?;
            return Self::from_bytes(&bytes);
        }
        let (_, cid) = multibase::decode(text).map_err(|_| not_text())?;
        let (version, used) = varint::decode(&cid).ok().flatten().ok_or_else(not_text)?;
        let rest = cid.get(used..).filter(|_| version == 1).ok_or_else(not_text)?;
        let (codec, used) = varint::decode(rest).ok().flatten().ok_or_else(not_text)?;
        if codec != LIBP2P_KEY {
            return Err(PeerIdError::Codec(codec));
        }
        Self::from_bytes(rest.get(used..).unwrap_or_default())
    }
}

impl PartialEq for PeerId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PeerId {}

impl hash::Hash for PeerId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerId {
    /// Orders by the raw bytes (PID-10).
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.as_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
    const SHA_CID: &str = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe";
    const ED: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const ED_CID: &str = "bafzaajaiaejcal72gwuz2or47oyxxn6b3rkwdmmkrxgkjxzy3rqt5kczyn7lcm3l";

    fn parse(text: &str) -> PeerId {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn pid_05_06_both_text_forms_are_one_id() {
        assert_eq!(parse(SHA), parse(SHA_CID));
        assert_eq!(parse(ED), parse(ED_CID));
        assert_eq!(parse(ED).to_string(), ED);
        assert_eq!(parse(ED).to_cid(), ED_CID);
        let base36 = "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe";
        assert_eq!(
            parse(base36).to_string(),
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
        );
    }

    #[test]
    fn pid_07_any_other_text_is_an_error() {
        for text in ["", "hello", "1", "Qm", "12D3KooW!!", "zQm", "bafkqaaa"] {
            assert!(text.parse::<PeerId>().is_err(), "{text}");
        }
        // A CIDv1 of another codec (raw, 0x55).
        let mut cid = vec![0x01, 0x55];
        cid.extend_from_slice(parse(SHA).as_bytes());
        let text = multibase::encode(multibase::Base::Base32Lower, cid);
        assert_eq!(text.parse::<PeerId>(), Err(PeerIdError::Codec(0x55)));
    }

    #[test]
    fn pid_08_only_the_two_hashes_in_their_lengths() {
        let mut sha = vec![0x12, 31];
        sha.extend([0; 31]);
        assert_eq!(PeerId::from_bytes(&sha), Err(PeerIdError::DigestLen { code: 0x12, len: 31 }));
        let mut identity = vec![0x00, 43];
        identity.extend([0; 43]);
        assert_eq!(PeerId::from_bytes(&identity), Err(PeerIdError::DigestLen { code: 0, len: 43 }));
        assert_eq!(PeerId::from_bytes(&[0x13, 1, 0]), Err(PeerIdError::HashCode(0x13)));
    }

    /// RUSTSEC-2020-0068: a short or over-long multihash made the parser panic.
    #[test]
    fn rustsec_2020_0068_malformed_multihashes_are_errors() {
        let whole = parse(SHA);
        for len in 0..whole.as_bytes().len() {
            assert!(PeerId::from_bytes(&whole.as_bytes()[..len]).is_err(), "{len}");
        }
        let mut long = whole.as_bytes().to_vec();
        long.push(0);
        assert_eq!(PeerId::from_bytes(&long), Err(PeerIdError::Multihash));
    }
}
