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
/// 34 to 39 bytes, held in place. The text form is base58btc (`12D3KooW…`, `Qm…`); the CIDv1
/// form (`bafz…`, `k51…`) is understood when parsed, in any multibase.
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
    /// The identity multihash does not hold a public key's canonical encoding.
    #[error("the identity multihash does not hold a public key")]
    NotAKey,
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
    /// [`PeerIdError`] unless it is a SHA-256 digest of 32 bytes, or an identity multihash of a
    /// public key's encoding.
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
        if code == IDENTITY && !is_inlined_key(digest) {
            return Err(PeerIdError::NotAKey);
        }
        Ok(Self::from_parts(code, digest))
    }

    /// The multihash: 34 bytes for a hash, 38 for an Ed25519 and 39 for a secp256k1 key.
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

/// Whether an identity digest is the canonical encoding of a key that is short enough for one:
/// Ed25519 or compressed secp256k1 (PID-02). Another encoding of the same key would be a second
/// id of the same peer. Whether the point is on its curve is not looked at: no peer can prove the
/// id if it is not, and not every build knows every curve.
fn is_inlined_key(digest: &[u8]) -> bool {
    match digest {
        [0x08, 0x01, 0x12, 0x20, point @ ..] => point.len() == 32,
        [0x08, 0x02, 0x12, 0x21, 0x02 | 0x03, x @ ..] => x.len() == 32,
        _ => false,
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
    use crate::testing::{Random, hex};

    const SHA: &str = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
    const SHA_CID: &str = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe";
    const ED: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const ED_CID: &str = "bafzaajaiaejcal72gwuz2or47oyxxn6b3rkwdmmkrxgkjxzy3rqt5kczyn7lcm3l";

    fn parse(text: &str) -> PeerId {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    /// Base58btc, base32 and base36 of the four keys of the specification.
    const TEXTS: [[&str; 3]; 4] = [
        [
            "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
            "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6",
            "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe",
        ],
        [
            "16Uiu2HAmLhLvBoYaoZfaMUKuibM6ac163GwKY74c5kiSLg5KvLpY",
            "bafzaajiiaijcca3xo7uzjzcsyilaj6i54cj44qk7kqzpoao5rti2pjx6udtdbp6kte",
            "kzwfwjn5ji4put13uvtwtc7azzwk42cq2o8ctfnxa6q8n90e72o3pjqbrp3lpcp",
        ],
        [
            "QmVMT29id3TUASyfZZ6k9hmNyc2nYabCo4uMSpDw4zrgDk",
            "bafzbeidigywdclqvl5hxfefwp5onbffcfife7pza57mmfb4tiqmtkdjw64",
            "k2k4r8m0iploq6r25jp915xawtnx0qdr0je62jws2kki6votbj5191x3",
        ],
        [
            "QmaeANgBs1DTSxWSrPPtobgQuxW8XTfsS4ydbK4rCHzqxG",
            "bafzbeifwzcumbiyql7bhv7fe7mixg6i7aohegq75k234m63bnw6dbicmzu",
            "k2k4r8nz0pc9sm08wgacijx1ic8vxy9e2770otjszhz1nodfs0brtvpp",
        ],
    ];

    fn cid(peer: &PeerId) -> Vec<u8> {
        [&[0x01, 0x72], peer.as_bytes()].concat()
    }

    #[test]
    fn pid_05_06_every_text_form_is_one_id() {
        for [base58, base32, base36] in TEXTS {
            let peer = parse(base58);
            assert_eq!((parse(base32), parse(base36)), (peer, peer));
            assert_eq!((peer.to_string().as_str(), peer.to_cid().as_str()), (base58, base32));
        }
        assert_eq!((parse(SHA), parse(ED)), (parse(SHA_CID), parse(ED_CID)));
        assert_eq!(parse(ED).to_cid(), ED_CID);
        let sha = hex("12209dff3b17d74cf4d38a50d8b6383e92d181a10395a5e73a726dcccbd21bf6f0b9");
        assert_eq!(parse(SHA).as_bytes(), sha);
        let ed =
            hex("0024080112202ffa35a99d3a3cfbb17bb7c1dc5561b18a8dcca4df38dc613ea859c37eb1336b");
        assert_eq!(parse(ED).as_bytes(), ed);
    }

    #[test]
    fn pid_06_the_cid_may_be_in_any_multibase() {
        use multibase::Base;
        for base in [
            Base::Base2,
            Base::Base8,
            Base::Base10,
            Base::Base16Lower,
            Base::Base16Upper,
            Base::Base32Lower,
            Base::Base32Upper,
            Base::Base32PadLower,
            Base::Base32PadUpper,
            Base::Base32HexLower,
            Base::Base32HexUpper,
            Base::Base32HexPadLower,
            Base::Base32HexPadUpper,
            Base::Base32Z,
            Base::Base36Lower,
            Base::Base36Upper,
            Base::Base58Flickr,
            Base::Base58Btc,
            Base::Base64,
            Base::Base64Pad,
            Base::Base64Url,
            Base::Base64UrlPad,
        ] {
            for [text, ..] in TEXTS {
                let written = multibase::encode(base, cid(&parse(text)));
                assert!(written.len() <= TEXT_LEN_MAX);
                assert_eq!(parse(&written).to_string(), text, "{written}");
            }
        }
    }

    #[test]
    fn pid_07_any_other_text_is_an_error() {
        for text in
            ["", "hello", "1", "Qm", "12D3KooW!!", "zQm", "bafkqaaa", "b", "k", "z", "f0172"]
        {
            assert!(text.parse::<PeerId>().is_err(), "{text}");
        }
        let encode = |bytes: &[u8]| multibase::encode(multibase::Base::Base32Lower, bytes);
        let whole = cid(&parse(SHA));
        // A CIDv1 of another codec (raw, 0x55; dag-pb, 0x70).
        for codec in [0x55, 0x70] {
            let other = encode(&[&[0x01, codec], &whole[2..]].concat());
            assert_eq!(other.parse::<PeerId>(), Err(PeerIdError::Codec(codec.into())));
        }
        // A CIDv0 in a multibase, other versions, a varint that is not minimal.
        for cid in [
            whole[2..].to_vec(),
            [&[0x00], &whole[1..]].concat(),
            [&[0x02], &whole[1..]].concat(),
            [&[0x81, 0x00], &whole[1..]].concat(),
            [&[0x01, 0xf2, 0x00], &whole[2..]].concat(),
        ] {
            let text = encode(&cid);
            assert!(matches!(text.parse::<PeerId>(), Err(PeerIdError::Text(_))), "{cid:02x?}");
        }
        for len in 0..whole.len() {
            assert!(encode(&whole[..len]).parse::<PeerId>().is_err(), "{len} bytes");
        }
        let trailing = encode(&[&whole[..], &[0]].concat());
        assert_eq!(trailing.parse::<PeerId>(), Err(PeerIdError::Multihash));
        let long = format!("b{}", "a".repeat(TEXT_LEN_MAX));
        assert!(
            matches!(long.parse::<PeerId>(), Err(PeerIdError::Text(shown)) if shown.len() == 80)
        );
    }

    #[test]
    fn pid_08_only_the_two_hashes_in_their_lengths() {
        for len in [0, 31, 33, 64] {
            let sha = [&[0x12, len][..], &vec![0; len.into()]].concat();
            let error = PeerIdError::DigestLen { code: 0x12, len: len.into() };
            assert_eq!(PeerId::from_bytes(&sha), Err(error));
        }
        let identity = [&[0x00, 43][..], &[0; 43]].concat();
        assert_eq!(PeerId::from_bytes(&identity), Err(PeerIdError::DigestLen { code: 0, len: 43 }));
        assert_eq!(PeerId::from_bytes(&[0x13, 1, 0]), Err(PeerIdError::HashCode(0x13)));
        // The varints of code and length must be minimal.
        let digest = [7; 32];
        assert!(PeerId::from_bytes(&[&[0x12, 32][..], &digest].concat()).is_ok());
        for start in [&[0x92, 0x00, 32][..], &[0x12, 0xa0, 0x00]] {
            let error = PeerId::from_bytes(&[start, &digest].concat());
            assert_eq!(error, Err(PeerIdError::Multihash));
        }
    }

    /// Trap 3: rust-libp2p's random test ids are 32 bytes that are no key.
    #[test]
    fn pid_01_04_an_identity_multihash_holds_a_key() {
        let identity = |digest: &[u8]| {
            PeerId::from_bytes(
                &[&[0x00, u8::try_from(digest.len()).expect("short")], digest].concat(),
            )
        };
        let ed = [&[0x08, 0x01, 0x12, 0x20][..], &[9; 32]].concat();
        assert!(identity(&ed).is_ok());
        for sign in [0x02, 0x03] {
            assert!(identity(&[&[0x08, 0x02, 0x12, 0x21, sign][..], &[9; 32]].concat()).is_ok());
        }
        for digest in [
            vec![],
            vec![0; 32],
            vec![0; 42],
            ed[..35].to_vec(),
            [&ed[..], &[0]].concat(),
            // The fields the other way round, and a varint that is not minimal.
            [&ed[2..], &ed[..2]].concat(),
            [&[0x08, 0x81, 0x00][..], &ed[2..]].concat(),
            // Other types, and a point that is not compressed.
            [&[0x08, 0x00], &ed[2..]].concat(),
            [&[0x08, 0x03], &ed[2..]].concat(),
            [&[0x08, 0x02, 0x12, 0x21, 0x04][..], &[9; 32]].concat(),
            [&[0x08, 0x02, 0x12, 0x20][..], &[2; 32]].concat(),
        ] {
            assert_eq!(identity(&digest), Err(PeerIdError::NotAKey), "{digest:02x?}");
        }
    }

    #[test]
    fn pid_10_ids_are_ordered_by_their_bytes() {
        let mut peers: Vec<PeerId> = TEXTS.iter().map(|[text, ..]| parse(text)).collect();
        peers.sort();
        let mut bytes: Vec<Vec<u8>> = peers.iter().map(|peer| peer.as_bytes().to_vec()).collect();
        bytes.sort();
        assert_eq!(peers.iter().map(|peer| peer.as_bytes().to_vec()).collect::<Vec<_>>(), bytes);
    }

    /// RUSTSEC-2020-0068: a short or over-long multihash made the parser panic.
    #[test]
    fn rustsec_2020_0068_malformed_multihashes_are_errors() {
        for [text, ..] in TEXTS {
            let whole = parse(text);
            for len in 0..whole.as_bytes().len() {
                assert!(PeerId::from_bytes(&whole.as_bytes()[..len]).is_err(), "{len}");
            }
            let long = [whole.as_bytes(), &[0]].concat();
            assert_eq!(PeerId::from_bytes(&long), Err(PeerIdError::Multihash));
        }
        let mut random = Random(4);
        for _ in 0..20_000 {
            let bytes = random.bytes(50);
            if let Ok(peer) = PeerId::from_bytes(&bytes) {
                assert_eq!(peer.as_bytes(), bytes);
            }
            // Lengths up to the largest varint.
            let lying = [&[0x12][..], &bytes].concat();
            assert!(PeerId::from_bytes(&lying).is_err() || bytes.len() == 33);
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.parse::<PeerId>().is_err(), "{text:?}");
        }
    }
}
