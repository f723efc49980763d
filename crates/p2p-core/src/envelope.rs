use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::{KeyError, Keypair, PublicKey, envelope_proto as proto, varint};

/// Bytes that a peer has signed for a purpose, with its public key (specs,
/// RFC/0002-signed-envelopes.md).
///
/// One exists only if its signature is valid: [`Envelope::seal`] made it, or
/// [`Envelope::open`] verified it. Whether the signer is the right one is for the caller to say.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    public_key: PublicKey,
    payload_type: Vec<u8>,
    payload: Vec<u8>,
    encoded: Bytes,
}

/// Why bytes are not an envelope, or none could be made. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is longer than [`Envelope::LEN_MAX`]: the peer's fault when opened, the caller's when
    /// sealed.
    #[error("an envelope of {len} bytes is longer than {max}", max = Envelope::LEN_MAX)]
    TooLong {
        /// The envelope's length in bytes.
        len: usize,
    },
    /// The peer's bytes are not an envelope message.
    #[error("the envelope is not a protobuf envelope message: {0}")]
    Encoding(String),
    /// The peer's envelope lacks a field that it must have, or has it empty.
    #[error("the envelope has no {0}")]
    Missing(&'static str),
    /// The peer's public key cannot be used.
    #[error("the envelope's public key: {0}")]
    Key(#[source] KeyError),
    /// The signature is not the key's over this domain, payload type and payload.
    #[error("the envelope's signature is not its key's over this domain, type and payload")]
    Signature,
    /// Our key could not sign.
    #[error("signing the envelope: {0}")]
    Sign(#[source] KeyError),
    /// The caller named no domain.
    #[error("the domain of an envelope must not be empty")]
    EmptyDomain,
    /// The caller named no payload type.
    #[error("the payload type of an envelope must not be empty")]
    EmptyPayloadType,
}

impl Envelope {
    /// The longest envelope that is opened or made, in bytes: go-libp2p and js-libp2p read no
    /// longer identify message, which is what envelopes travel in (IDENT-08).
    pub const LEN_MAX: usize = 8192;

    /// Signs `payload` for a purpose. `domain` is not sent: the reader must know it (ENV-03).
    ///
    /// # Errors
    /// [`EnvelopeError::EmptyDomain`] and [`EnvelopeError::EmptyPayloadType`] (ENV-03), or
    /// [`EnvelopeError::TooLong`].
    pub fn seal(
        key: &Keypair,
        domain: &str,
        payload_type: &[u8],
        payload: &[u8],
    ) -> Result<Self, EnvelopeError> {
        if payload_type.is_empty() {
            return Err(EnvelopeError::EmptyPayloadType);
        }
        let signed = signed_bytes(domain, payload_type, payload)?;
        let public_key = key.public();
        let message = proto::Envelope {
            public_key: Some(public_key.to_protobuf()),
            payload_type: Some(payload_type.to_vec()),
            payload: Some(payload.to_vec()),
            signature: Some(key.sign(&signed).map_err(EnvelopeError::Sign)?),
        };
        let encoded = Bytes::from(message.encode_to_vec());
        if encoded.len() > Self::LEN_MAX {
            return Err(EnvelopeError::TooLong { len: encoded.len() });
        }
        let (payload_type, payload) = (payload_type.to_vec(), payload.to_vec());
        Ok(Self { public_key, payload_type, payload, encoded })
    }

    /// Decodes an envelope and verifies its signature, before anybody sees the payload (ENV-04).
    ///
    /// Of a field that is there twice the last counts, and unknown fields are skipped, as protobuf
    /// has it; no payload is an empty one.
    ///
    /// # Errors
    /// [`EnvelopeError`]; only [`EnvelopeError::EmptyDomain`] is the caller's fault.
    pub fn open(bytes: &[u8], domain: &str) -> Result<Self, EnvelopeError> {
        Sealed::decode(bytes)?.open(domain)
    }

    /// The signer's key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What kind of thing the payload is, as it was signed; not empty.
    #[must_use]
    pub fn payload_type(&self) -> &[u8] {
        &self.payload_type
    }

    /// What was signed; at most [`Envelope::LEN_MAX`] bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The envelope as it was read or made, to be passed on with its signature intact (ENV-10).
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.encoded
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("public_key", &self.public_key)
            .field("payload_type", &self.payload_type)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}

/// An envelope whose signature has not been looked at.
pub(crate) struct Sealed {
    public_key: Vec<u8>,
    payload_type: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    encoded: Bytes,
}

impl Sealed {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > Envelope::LEN_MAX {
            return Err(EnvelopeError::TooLong { len: bytes.len() });
        }
        let message =
            proto::Envelope::decode(bytes).map_err(|e| EnvelopeError::Encoding(e.to_string()))?;
        let present = |field: Option<Vec<u8>>, name| {
            field.filter(|bytes| !bytes.is_empty()).ok_or(EnvelopeError::Missing(name))
        };
        Ok(Self {
            public_key: present(message.public_key, "public key")?,
            payload_type: present(message.payload_type, "payload type")?,
            payload: message.payload.unwrap_or_default(),
            signature: present(message.signature, "signature")?,
            encoded: Bytes::copy_from_slice(bytes),
        })
    }

    pub(crate) fn payload_type(&self) -> &[u8] {
        &self.payload_type
    }

    pub(crate) fn open(self, domain: &str) -> Result<Envelope, EnvelopeError> {
        let signed = signed_bytes(domain, &self.payload_type, &self.payload)?;
        let public_key = PublicKey::from_protobuf(&self.public_key).map_err(EnvelopeError::Key)?;
        public_key.verify(&signed, &self.signature).map_err(|_| EnvelopeError::Signature)?;
        let Self { payload_type, payload, encoded, .. } = self;
        Ok(Envelope { public_key, payload_type, payload, encoded })
    }
}

/// Each part after its length (ENV-02).
fn signed_bytes(
    domain: &str,
    payload_type: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    if domain.is_empty() {
        return Err(EnvelopeError::EmptyDomain);
    }
    let mut signed = Vec::new();
    for part in [domain.as_bytes(), payload_type, payload] {
        let len = u64::try_from(part.len()).expect("a length fits 64 bits");
        varint::encode(len, &mut signed);
        signed.extend_from_slice(part);
    }
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, hex, other_key, vector_key};

    const DOMAIN: &str = "libp2p-peer-record";
    const TYPE: [u8; 2] = [0x03, 0x01];
    const RECORD: &str = "0a260024080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474\
                          fce27e10011a0a0a08047f0000010604d2";
    const SIGNED: &str = "126c69627032702d706565722d7265636f7264020301360a260024080112201ed1e8fae2c4\
                          a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e10011a0a0a08047f000001\
                          0604d2";
    const ENVELOPE: &str = "0a24080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fc\
                            e27e120203011a360a260024080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c\
                            3cacf6010f0e42d474fce27e10011a0a0a08047f0000010604d22a40662bd2f6915763c5\
                            ce0b00c736f7a644c581c79759cc8ca0de1b7fe7686a37176c4e3e3da2a06473ea3639c8\
                            b6202ade7c0c8055c7fa03780966db62d0768407";

    /// A field of a protobuf message: its key and its bytes.
    fn field(key: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![key];
        varint::encode(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    /// The fields 1, 2, 3 and 5 of the vector's envelope.
    fn fields() -> [Vec<u8>; 4] {
        let bytes = hex(ENVELOPE);
        [&bytes[..38], &bytes[38..42], &bytes[42..98], &bytes[98..]].map(<[u8]>::to_vec)
    }

    #[test]
    fn env_01_02_the_vector_is_reproduced_byte_for_byte() {
        assert_eq!(signed_bytes(DOMAIN, &TYPE, &hex(RECORD)), Ok(hex(SIGNED)));
        let made = Envelope::seal(&vector_key(), DOMAIN, &TYPE, &hex(RECORD)).expect("valid");
        assert_eq!(made.as_bytes()[..], hex(ENVELOPE));
        let read = Envelope::open(&hex(ENVELOPE), DOMAIN).expect("valid");
        assert_eq!(read, made);
        assert_eq!(read.public_key(), &vector_key().public());
        assert_eq!((read.payload_type(), read.payload()), (&TYPE[..], &hex(RECORD)[..]));
    }

    #[test]
    fn env_03_domain_and_type_must_not_be_empty() {
        let key = vector_key();
        assert_eq!(Envelope::seal(&key, "", &TYPE, b"x"), Err(EnvelopeError::EmptyDomain));
        assert_eq!(Envelope::seal(&key, DOMAIN, &[], b"x"), Err(EnvelopeError::EmptyPayloadType));
        assert_eq!(Envelope::open(&hex(ENVELOPE), ""), Err(EnvelopeError::EmptyDomain));
    }

    #[test]
    fn env_03_the_domain_is_part_of_what_is_signed() {
        for domain in ["libp2p-routing-state", "libp2p-peer-recor", "libp2p-peer-record\0"] {
            assert_eq!(Envelope::open(&hex(ENVELOPE), domain), Err(EnvelopeError::Signature));
        }
    }

    /// The lengths keep the parts apart: what leaves one part cannot enter the next.
    #[test]
    fn env_02_parts_cannot_be_shifted() {
        let sealed = Envelope::seal(&vector_key(), "domain", b"type", b"payload").expect("valid");
        let [key, _, _, _] = fields();
        let signature = &sealed.as_bytes()[sealed.as_bytes().len() - 66..];
        for (domain, payload_type, payload) in [
            ("domain", "typ", "epayload"),
            ("domain", "typep", "ayload"),
            ("domai", "ntype", "payload"),
        ] {
            let forged = [
                key.clone(),
                field(0x12, payload_type.as_bytes()),
                field(0x1a, payload.as_bytes()),
                signature.to_vec(),
            ]
            .concat();
            assert_eq!(Envelope::open(&forged, domain), Err(EnvelopeError::Signature));
        }
    }

    #[test]
    fn env_04_no_bit_of_an_envelope_can_be_changed() {
        let whole = hex(ENVELOPE);
        let original = Envelope::open(&whole, DOMAIN).expect("valid");
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Envelope::open(&bytes, DOMAIN).is_err(), "bit {bit} of {original:?}");
        }
    }

    #[test]
    fn env_04_no_prefix_of_an_envelope_is_one() {
        let whole = hex(ENVELOPE);
        for len in 0..whole.len() {
            assert!(Envelope::open(&whole[..len], DOMAIN).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn env_01_a_missing_or_empty_field_is_named() {
        let all = fields();
        let empty = [field(0x0a, &[]), field(0x12, &[]), field(0x1a, &[]), field(0x2a, &[])];
        for (index, expected) in [
            EnvelopeError::Missing("public key"),
            EnvelopeError::Missing("payload type"),
            // No payload is an empty payload, and that was not what was signed.
            EnvelopeError::Signature,
            EnvelopeError::Missing("signature"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut without = all.clone();
            without[index].clear();
            assert_eq!(Envelope::open(&without.concat(), DOMAIN), Err(expected.clone()));
            let mut with_empty = all.clone();
            with_empty[index].clone_from(&empty[index]);
            assert_eq!(Envelope::open(&with_empty.concat(), DOMAIN), Err(expected));
        }
        let nothing = Envelope::seal(&vector_key(), DOMAIN, &TYPE, &[]).expect("valid");
        let mut bytes = nothing.as_bytes().to_vec();
        assert_eq!(bytes.drain(42..44).collect::<Vec<_>>(), [0x1a, 0x00]);
        assert_eq!(Envelope::open(&bytes, DOMAIN).expect("valid").payload(), []);
    }

    #[test]
    fn env_01_of_a_repeated_field_the_last_counts() {
        let all = fields();
        let other = [
            field(0x0a, &other_key().public().to_protobuf()),
            field(0x12, &[0x03, 0x02]),
            field(0x1a, b"another payload"),
            field(0x2a, &[0; 64]),
        ];
        for repeated in other {
            let before = [repeated.clone(), all.concat()].concat();
            let opened = Envelope::open(&before, DOMAIN).expect("the last ones are valid");
            assert_eq!(opened.payload(), hex(RECORD));
            let after = [all.concat(), repeated].concat();
            assert_eq!(Envelope::open(&after, DOMAIN), Err(EnvelopeError::Signature));
        }
    }

    #[test]
    fn env_10_unknown_fields_are_skipped_and_the_bytes_kept() {
        let bytes = [fields().concat(), field(0x22, b"field 4"), field(0x7a, b"field 15")].concat();
        let opened = Envelope::open(&bytes, DOMAIN).expect("valid");
        assert_eq!(opened.payload(), hex(RECORD));
        assert_eq!(opened.as_bytes()[..], bytes);
        assert_eq!(Envelope::open(opened.as_bytes(), DOMAIN), Ok(opened));
    }

    #[test]
    fn the_length_is_bounded_both_ways() {
        let key = vector_key();
        let overhead = 38 + 4 + 3 + 66;
        let largest = vec![1; Envelope::LEN_MAX - overhead];
        let sealed = Envelope::seal(&key, DOMAIN, &TYPE, &largest).expect("fits");
        assert_eq!(sealed.as_bytes().len(), Envelope::LEN_MAX);
        assert_eq!(Envelope::open(sealed.as_bytes(), DOMAIN), Ok(sealed.clone()));
        let too_long = EnvelopeError::TooLong { len: Envelope::LEN_MAX + 1 };
        let larger = [&largest[..], &[1]].concat();
        assert_eq!(Envelope::seal(&key, DOMAIN, &TYPE, &larger), Err(too_long.clone()));
        let padded = [sealed.as_bytes(), &[0][..]].concat();
        assert_eq!(Envelope::open(&padded, DOMAIN), Err(too_long));
    }

    /// RUSTSEC-2020-0002: groups in groups exhausted the decoder's stack.
    #[test]
    fn rustsec_2020_0002_nested_groups_are_an_error() {
        let error = Envelope::open(&[0x0b; 5000], DOMAIN).expect_err("no envelope");
        assert!(matches!(error, EnvelopeError::Encoding(_)), "{error}");
        let error = Envelope::open(&[0x7b; 5000], DOMAIN).expect_err("no envelope");
        assert!(matches!(error, EnvelopeError::Encoding(_)), "{error}");
    }

    /// VAR-04: inside protobuf a varint need not be minimal, and may have ten bytes.
    #[test]
    fn var_04_protobuf_varints_need_not_be_minimal() {
        let [key, kind, payload, signature] = fields();
        let lax = [&[0x92, 0x80, 0x00, 0x82, 0x80, 0x80, 0x00][..], &kind[2..]].concat();
        let bytes = [key.clone(), lax, payload.clone(), signature.clone()].concat();
        assert!(Envelope::open(&bytes, DOMAIN).is_ok());
        let ten = [&[0x12, 0x82, 128, 128, 128, 128, 128, 128, 128, 128, 0][..], &kind[2..]];
        let bytes = [key, ten.concat(), payload, signature].concat();
        assert!(Envelope::open(&bytes, DOMAIN).is_ok());
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named() {
        let [_, kind, payload, signature] = fields();
        let unknown = field(0x0a, &[8, 9, 0x12, 0]);
        let bytes = [unknown, kind, payload, signature].concat();
        let error = Envelope::open(&bytes, DOMAIN).expect_err("no such key");
        assert_eq!(error, EnvelopeError::Key(KeyError::UnknownType(9)));
    }

    #[test]
    fn what_is_sealed_is_opened_and_random_bytes_are_not() {
        let mut random = Random(1);
        for _ in 0..64 {
            let mut payload_type = random.bytes(40);
            payload_type.push(1);
            let payload = random.bytes(300);
            let sealed = Envelope::seal(&other_key(), "d", &payload_type, &payload).expect("valid");
            assert_eq!(Envelope::open(sealed.as_bytes(), "d"), Ok(sealed));
        }
        let whole = hex(ENVELOPE);
        for _ in 0..20_000 {
            let mut bytes = random.bytes(200);
            assert!(Envelope::open(&bytes, DOMAIN).is_err());
            // The start of a real one, then anything.
            let kept = random.below(whole.len());
            bytes.splice(0..0, whole[..kept].iter().copied());
            assert!(Envelope::open(&bytes, DOMAIN).is_err());
        }
    }
}
