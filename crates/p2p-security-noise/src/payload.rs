//! The libp2p payload of messages 2 and 3: who this side is, proven for this channel.

use p2p_core::{ProtocolId, PublicKey, Role, SecurityError};
use prost::Message;

use crate::{
    fields::Fields,
    limits::MUXERS_MAX,
    noise::Identity,
    proto::{NoiseExtensions, NoiseHandshakePayload},
    verified::Verified,
    xx::POINT_LEN,
};

/// Stands before the static key in what the identity signs (NOISE-08).
const SIGNATURE_PREFIX: &[u8] = b"noise-libp2p-static-key:";

/// Field numbers of `NoiseHandshakePayload`.
const IDENTITY_KEY: u64 = 1;
const IDENTITY_SIG: u64 = 2;
const EXTENSIONS: u64 = 4;
/// Field number of `NoiseExtensions`; 1 are WebTransport's certificate hashes.
const STREAM_MUXERS: u64 = 2;

/// What an identity signs to bind itself to a static key.
pub(crate) fn to_be_signed(static_key: &[u8; POINT_LEN]) -> Vec<u8> {
    [SIGNATURE_PREFIX, static_key].concat()
}

/// Encodes this side's payload; without multiplexers there are no extensions.
pub(crate) fn encode(identity: &Identity, muxers: &[ProtocolId]) -> Vec<u8> {
    let stream_muxers: Vec<String> = muxers.iter().map(ToString::to_string).collect();
    let extensions = (!stream_muxers.is_empty())
        .then_some(NoiseExtensions { webtransport_certhashes: Vec::new(), stream_muxers });
    NoiseHandshakePayload {
        identity_key: Some(identity.public_key.to_protobuf()),
        identity_sig: Some(identity.signature.clone()),
        extensions,
    }
    .encode_to_vec()
}

/// The identity of a payload, once its signature over `static_key`, the key that the handshake
/// has delivered, was good (NOISE-09). Nothing else of it is looked at before that (NOISE-13).
pub(crate) fn verify(
    payload: &[u8],
    static_key: &[u8; POINT_LEN],
    verified: &Verified,
) -> Result<PublicKey, SecurityError> {
    let (mut identity_key, mut identity_sig) = (&[][..], &[][..]);
    for field in Fields::of(payload) {
        match field? {
            (IDENTITY_KEY, value) => identity_key = value,
            (IDENTITY_SIG, value) => identity_sig = value,
            _ => {}
        }
    }
    if identity_key.is_empty() {
        return Err(SecurityError::Missing("identity_key"));
    }
    if identity_sig.is_empty() {
        return Err(SecurityError::Missing("identity_sig"));
    }
    let peer = PublicKey::from_protobuf(identity_key)
        .map_err(|e| SecurityError::IdentityKey(e.to_string()))?;
    verified.once(identity_key, static_key, identity_sig, || {
        peer.verify(&to_be_signed(static_key), identity_sig).map_err(|_| SecurityError::Signature)
    })?;
    Ok(peer)
}

/// What a verified payload offers, best first. Empty stands for no list.
pub(crate) fn muxers(payload: &[u8]) -> Result<Vec<&str>, SecurityError> {
    let mut muxers = Vec::new();
    for field in Fields::of(payload) {
        let (EXTENSIONS, extensions) = field? else {
            continue;
        };
        for field in Fields::of(extensions) {
            let (STREAM_MUXERS, name) = field? else {
                continue;
            };
            if muxers.len() == MUXERS_MAX {
                return Ok(Vec::new());
            }
            muxers.push(str::from_utf8(name).map_err(|_| {
                SecurityError::Malformed("the name of a multiplexer is not UTF-8".into())
            })?);
        }
    }
    Ok(muxers)
}

/// The first multiplexer of the initiator's list that the responder lists too (NOISE-28); `None`
/// when a side has sent no list (NOISE-29).
pub(crate) fn agree_muxer(
    role: Role,
    ours: &[ProtocolId],
    theirs: &[&str],
) -> Result<Option<ProtocolId>, SecurityError> {
    if ours.is_empty() || theirs.is_empty() {
        return Ok(None);
    }
    let common = match role {
        Role::Initiator => ours.iter().find(|our| theirs.contains(&our.as_str())),
        Role::Responder => {
            theirs.iter().find_map(|their| ours.iter().find(|our| our.as_str() == *their))
        }
    };
    match common {
        Some(muxer) => Ok(Some(muxer.clone())),
        None => Err(SecurityError::NoCommonMuxer(theirs.iter().copied().map(Into::into).collect())),
    }
}

#[cfg(test)]
mod tests {
    use p2p_core::Keypair;

    use super::*;
    use crate::xx::DhKey;

    const STATIC: [u8; 32] = [5; 32];

    fn identity() -> Identity {
        Identity::new(&Keypair::from_ed25519_seed(&[1; 32]), DhKey::from_secret(STATIC))
            .expect("signs")
    }

    fn verify_own(payload: &NoiseHandshakePayload) -> Result<PublicKey, SecurityError> {
        verify(&payload.encode_to_vec(), identity().static_key.public(), &Verified::new())
    }

    fn good() -> NoiseHandshakePayload {
        let bytes = encode(&identity(), &[]);
        NoiseHandshakePayload::decode(&bytes[..]).expect("our own")
    }

    fn names(names: &[&'static str]) -> Vec<ProtocolId> {
        names.iter().map(|name| ProtocolId::from_static(name)).collect()
    }

    #[test]
    fn noise_09_our_own_payload_verifies() {
        assert_eq!(verify_own(&good()), Ok(identity().public_key));
        assert_eq!(muxers(&encode(&identity(), &[])), Ok(Vec::new()));
    }

    #[test]
    fn noise_09_a_missing_or_empty_key_is_refused() {
        for identity_key in [None, Some(Vec::new())] {
            let error = verify_own(&NoiseHandshakePayload { identity_key, ..good() });
            assert_eq!(error, Err(SecurityError::Missing("identity_key")));
        }
    }

    #[test]
    fn noise_09_a_key_of_33_bytes_or_another_type_is_refused() {
        let mut long = vec![8, 1, 0x12, 33];
        long.extend([4; 33]);
        for key in [long, vec![8, 0, 0x12, 1, 1], vec![8, 9, 0x12, 0], vec![0xff; 36]] {
            let error = verify_own(&NoiseHandshakePayload { identity_key: Some(key), ..good() });
            assert!(matches!(error, Err(SecurityError::IdentityKey(_))));
        }
    }

    #[test]
    fn noise_09_a_missing_or_empty_signature_is_refused() {
        for identity_sig in [None, Some(Vec::new())] {
            let error = verify_own(&NoiseHandshakePayload { identity_sig, ..good() });
            assert_eq!(error, Err(SecurityError::Missing("identity_sig")));
        }
    }

    /// RUSTSEC-2019-0004: any bytes of the right length were taken for a signature.
    #[test]
    fn cve_2019_15545_noise_09_a_wrong_signature_is_refused_whatever_its_length() {
        let right = good().identity_sig.expect("there");
        let mut flipped = right.clone();
        flipped[40] ^= 1;
        let longer = [&right[..], &[0]].concat();
        for wrong in [vec![0; 64], vec![1; 65], vec![0], flipped, right[..63].to_vec(), longer] {
            let error = verify_own(&NoiseHandshakePayload { identity_sig: Some(wrong), ..good() });
            assert_eq!(error, Err(SecurityError::Signature));
        }
    }

    /// As protobuf has it: of a field that comes twice the last one counts.
    #[test]
    fn noise_09_a_second_key_or_signature_takes_the_place_of_the_first() {
        let other = Keypair::from_ed25519_seed(&[2; 32]).public().to_protobuf();
        let twice = [vec![0x0a, 36], other, encode(&identity(), &[])].concat();
        let static_key = *identity().static_key.public();
        assert_eq!(verify(&twice, &static_key, &Verified::new()), Ok(identity().public_key));
        let unsigned = [encode(&identity(), &[]), vec![0x12, 0]].concat();
        let missing = SecurityError::Missing("identity_sig");
        assert_eq!(verify(&unsigned, &static_key, &Verified::new()), Err(missing));
    }

    #[test]
    fn noise_08_a_signature_over_another_key_is_refused() {
        let bytes = encode(&identity(), &[]);
        let other = DhKey::from_secret([6; 32]);
        assert_eq!(
            verify(&bytes, other.public(), &Verified::new()).err(),
            Some(SecurityError::Signature)
        );
        let keypair = Keypair::from_ed25519_seed(&[1; 32]);
        let of_identity = keypair
            .sign(&[SIGNATURE_PREFIX, &keypair.public().to_protobuf()].concat())
            .expect("signs");
        let unprefixed = keypair.sign(identity().static_key.public()).expect("signs");
        for signature in [of_identity, unprefixed] {
            let payload = NoiseHandshakePayload { identity_sig: Some(signature), ..good() };
            assert_eq!(verify_own(&payload).err(), Some(SecurityError::Signature));
        }
    }

    #[test]
    fn noise_08_a_signature_of_another_identity_is_refused() {
        let other = Keypair::from_ed25519_seed(&[2; 32]).public().to_protobuf();
        let payload = NoiseHandshakePayload { identity_key: Some(other), ..good() };
        assert_eq!(verify_own(&payload).err(), Some(SecurityError::Signature));
    }

    #[test]
    fn noise_07_27_unknown_fields_and_the_abandoned_data_are_skipped() {
        let mut bytes = encode(&identity(), &names(&["/yamux/1.0.0"]));
        bytes.extend([0x1a, 3, 1, 2, 3]); // 3: data
        bytes.extend([0x82, 0x40, 1, 9]); // 1032: an experiment
        bytes.extend([0x22, 3, 0x1a, 1, 0]); // 4: extensions with py's field 3
        assert_eq!(
            verify(&bytes, identity().static_key.public(), &Verified::new()),
            Ok(identity().public_key)
        );
        assert_eq!(muxers(&bytes), Ok(vec!["/yamux/1.0.0"]));
    }

    #[test]
    fn noise_27_33_certificate_hashes_are_skipped() {
        let payload = NoiseHandshakePayload {
            extensions: Some(NoiseExtensions {
                webtransport_certhashes: vec![vec![0x12; 34]; 3],
                stream_muxers: vec!["/yamux/1.0.0".into(), String::new()],
            }),
            ..good()
        };
        assert_eq!(muxers(&payload.encode_to_vec()), Ok(vec!["/yamux/1.0.0", ""]));
    }

    #[test]
    fn noise_27_a_muxer_whose_name_is_no_text_is_malformed() {
        let error = muxers(&[0x22, 4, 0x12, 2, 0xff, 0xfe]);
        assert!(matches!(error, Err(SecurityError::Malformed(_))));
    }

    #[test]
    fn noise_07_bytes_that_are_no_payload_are_malformed() {
        let whole = encode(&identity(), &[]);
        for bytes in [&whole[..whole.len() - 1], &[0xff; 9], &[0x0b; 5_000]] {
            let error = verify(bytes, identity().static_key.public(), &Verified::new());
            assert!(matches!(error, Err(SecurityError::Malformed(_))));
        }
    }

    #[test]
    fn noise_31_a_list_of_more_than_100_names_is_ignored() {
        for (count, kept) in [(100, 100), (101, 0)] {
            let payload = NoiseHandshakePayload {
                extensions: Some(NoiseExtensions {
                    webtransport_certhashes: Vec::new(),
                    stream_muxers: vec!["/yamux/1.0.0".into(); count],
                }),
                ..good()
            };
            assert_eq!(muxers(&payload.encode_to_vec()).map(|muxers| muxers.len()), Ok(kept));
        }
    }

    #[test]
    fn noise_28_the_initiators_order_decides() {
        let ours = names(&["/a", "/b", "/c"]);
        let agreed = |role| agree_muxer(role, &ours, &["/x", "/c", "/b"]).expect("in common");
        assert_eq!(agreed(Role::Initiator), Some(ProtocolId::from_static("/b")));
        assert_eq!(agreed(Role::Responder), Some(ProtocolId::from_static("/c")));
    }

    #[test]
    fn noise_29_no_list_on_either_side_agrees_on_nothing() {
        for role in [Role::Initiator, Role::Responder] {
            assert_eq!(agree_muxer(role, &[], &["/a"]), Ok(None));
            assert_eq!(agree_muxer(role, &names(&["/a"]), &[]), Ok(None));
        }
    }

    #[test]
    fn noise_30_nothing_in_common_is_an_error() {
        for role in [Role::Initiator, Role::Responder] {
            let error = agree_muxer(role, &names(&["/a"]), &["/b"]);
            assert_eq!(error, Err(SecurityError::NoCommonMuxer(vec!["/b".into()])));
        }
    }
}
