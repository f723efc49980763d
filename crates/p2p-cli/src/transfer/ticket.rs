//! Tickets: all that a receiver needs, in one text that can be copied.
//!
//! ```text
//!   "p2psend" and base58 of:
//!     1      version, 1
//!     16     secret
//!     1 + n  peer id, after its length
//!     1      how many addresses
//!     2 + n  each address, after its length (big-endian)
//!     4      the first bytes of the SHA-256 of all of this
//! ```

use std::{fmt, str::FromStr};

use p2p::{Multiaddr, PeerId, core::decode_multiaddr};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

const PREFIX: &str = "p2psend";
const VERSION: u8 = 1;
const SECRET_LEN: usize = 16;
const CHECKSUM_LEN: usize = 4;

/// The longest ticket, in characters.
const TICKET_LEN_MAX: usize = 4096;

/// The most addresses that a ticket holds, and the longest, in bytes.
pub(crate) const ADDRS_MAX: usize = 16;
const ADDR_LEN_MAX: usize = 128;

/// What shows that a receiver has the ticket.
#[derive(Clone, Copy)]
pub(crate) struct Secret([u8; SECRET_LEN]);

impl Secret {
    pub(crate) const LEN: usize = SECRET_LEN;

    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_LEN];
        getrandom::fill(&mut secret)?;
        Ok(Self(secret))
    }

    pub(crate) fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// Compares in a time that does not depend on either.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A ticket.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) secret: Secret,
    pub(crate) peer: PeerId,
    /// Without `/p2p`; from 1 to [`ADDRS_MAX`].
    pub(crate) addrs: Vec<Multiaddr>,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer.as_bytes();
        let mut bytes = vec![VERSION];
        bytes.extend(self.secret.0);
        // An id has 66 bytes at most, and what does not fit is left out.
        bytes.push(u8::try_from(peer.len()).unwrap_or_default());
        bytes.extend(peer);
        let addrs: Vec<Vec<u8>> = self.addrs.iter().map(Multiaddr::to_vec).collect();
        let fit = |addr: &&Vec<u8>| addr.len() <= ADDR_LEN_MAX;
        let addrs: Vec<&Vec<u8>> = addrs.iter().filter(fit).take(ADDRS_MAX).collect();
        bytes.push(addrs.len() as u8);
        for addr in addrs {
            bytes.extend((addr.len() as u16).to_be_bytes());
            bytes.extend(addr);
        }
        let sum = checksum(&bytes);
        bytes.extend(sum);
        write!(f, "{PREFIX}{}", bs58::encode(bytes).into_string())
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
    [a, b, c, d]
}

impl FromStr for Ticket {
    type Err = String;

    /// White space is left out: a terminal may have broken the line.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > TICKET_LEN_MAX {
            return Err(format!("a ticket has at most {TICKET_LEN_MAX} characters"));
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let body = text.strip_prefix(PREFIX).ok_or_else(|| {
            format!("a ticket begins with {PREFIX}: copy all of what `p2p send` shows")
        })?;
        let mistyped = || "the ticket is mistyped or cut off: copy all of it again".to_owned();
        let bytes = bs58::decode(body).into_vec().map_err(|_| mistyped())?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(mistyped)?;
        if checksum(body) != *sum {
            return Err(mistyped());
        }
        // From here on somebody has made it so.
        parse(body).ok_or_else(|| {
            "the ticket is of a kind that this program does not know: is it as new as the sender's?"
                .into()
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Ticket> {
    let (&[version], rest) = bytes.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let (secret, rest) = rest.split_first_chunk::<SECRET_LEN>()?;
    let (&[len], rest) = rest.split_first_chunk()?;
    let (peer, rest) = rest.split_at_checked(len.into())?;
    let (&[count], mut rest) = rest.split_first_chunk()?;
    if count == 0 || usize::from(count) > ADDRS_MAX {
        return None;
    }
    let mut addrs = Vec::with_capacity(count.into());
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > ADDR_LEN_MAX {
            return None;
        }
        let (addr, after) = after.split_at_checked(len)?;
        addrs.push(decode_multiaddr(addr).ok()?);
        rest = after;
    }
    let peer = PeerId::from_bytes(peer).ok()?;
    rest.is_empty().then_some(Ticket { secret: Secret(*secret), peer, addrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            secret: Secret([7; SECRET_LEN]),
            peer: "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq".parse().expect("an id"),
            addrs: ["/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::7/tcp/4001", "/dns/a.example/tcp/1"]
                .map(|addr| addr.parse().expect("an address"))
                .to_vec(),
        }
    }

    /// A ticket of these bytes, with a checksum that is right.
    fn of(mut bytes: Vec<u8>) -> String {
        bytes.extend(checksum(&bytes));
        format!("{PREFIX}{}", bs58::encode(bytes).into_string())
    }

    #[test]
    fn a_ticket_survives_being_copied() {
        let text = ticket().to_string();
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric()), "{text}");
        let (one, two) = text.split_at(40);
        for text in [text.clone(), format!(" {one}\r\n  {two}\n")] {
            let read: Ticket = text.parse().expect("a ticket");
            assert!(read.secret.is(&ticket().secret));
            assert_eq!((read.peer, read.addrs), (ticket().peer, ticket().addrs));
        }
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        let text = ticket().to_string();
        for at in 0..text.len() {
            let other = if text.as_bytes()[at] == b'2' { "3" } else { "2" };
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, other);
            assert!(wrong.parse::<Ticket>().is_err(), "{at}: {wrong}");
            assert!(text[..at].parse::<Ticket>().is_err(), "cut off at {at}");
        }
        assert!(text.parse::<Ticket>().is_ok());
        assert!("x".repeat(TICKET_LEN_MAX + 1).parse::<Ticket>().is_err());
    }

    #[test]
    fn a_ticket_of_garbage_with_a_right_checksum_is_refused() {
        let good = ticket().to_string();
        let bytes = bs58::decode(good.strip_prefix(PREFIX).expect("a prefix")).into_vec();
        let mut bytes = bytes.expect("base58");
        bytes.truncate(bytes.len() - CHECKSUM_LEN);
        assert!(of(bytes.clone()).parse::<Ticket>().is_ok());
        for len in 0..bytes.len() {
            assert!(of(bytes[..len].to_vec()).parse::<Ticket>().is_err(), "{len}");
        }
        assert!(of([&bytes[..], &[0]].concat()).parse::<Ticket>().is_err());
        let count_at = 1 + SECRET_LEN + 1 + ticket().peer.as_bytes().len();
        for (at, value) in [(0, 2), (count_at, 0), (count_at, 17), (count_at + 1, 1)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert!(of(other).parse::<Ticket>().is_err(), "{at} {value}");
        }
        let mut state = 1u32;
        for len in 0..600 {
            let mut random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let garbage: Vec<u8> = (0..len).map(|_| random()).collect();
            assert!(of(garbage).parse::<Ticket>().is_err());
        }
    }

    #[test]
    fn secrets_differ_in_any_bit() {
        let one = Secret([7; SECRET_LEN]);
        for at in 0..SECRET_LEN * 8 {
            let mut other = one.0;
            other[at / 8] ^= 1 << (at % 8);
            assert!(!one.is(&Secret(other)));
        }
        assert!(one.is(&one.clone()));
        assert_eq!(format!("{one:?}"), "Secret");
    }
}
