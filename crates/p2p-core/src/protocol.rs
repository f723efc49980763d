use std::{borrow::Borrow, convert::Infallible, fmt, hash, sync::Arc};

/// The name of a protocol, as multistream-select negotiates it: `/ipfs/ping/1.0.0`.
///
/// It begins with `/`, holds no newline, and is at most [`ProtocolId::LEN_MAX`] bytes long, since
/// go-libp2p and js-libp2p refuse negotiation messages above 1024 bytes (MSS-04, MSS-08).
#[derive(Clone)]
pub struct ProtocolId(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

/// Why a text is not a protocol name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolIdError {
    /// It does not begin with a slash.
    #[error("the protocol name {0:?} does not begin with '/'")]
    NoSlash(String),
    /// It holds a newline, which would end the negotiation message early.
    #[error("the protocol name {0:?} holds a newline")]
    Newline(String),
    /// It is longer than the negotiation messages that other implementations accept.
    #[error("a protocol name of {0} bytes is longer than {max}", max = ProtocolId::LEN_MAX)]
    TooLong(usize),
}

impl From<Infallible> for ProtocolIdError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl ProtocolId {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 1023;

    /// Makes a name from a constant.
    ///
    /// # Panics
    /// When the name is not valid; in a constant that is a compile error.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes[0] == b'/', "a protocol name begins with '/'");
        assert!(bytes.len() <= Self::LEN_MAX, "a protocol name is at most 1023 bytes");
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at] != b'\n', "a protocol name holds no newline");
            at += 1;
        }
        Self(Repr::Static(name))
    }

    /// Makes a name from a text known at run time.
    ///
    /// # Errors
    /// [`ProtocolIdError`] says which rule the text breaks.
    pub fn new(name: &str) -> Result<Self, ProtocolIdError> {
        if !name.starts_with('/') {
            return Err(ProtocolIdError::NoSlash(name.chars().take(80).collect()));
        }
        if name.contains('\n') {
            return Err(ProtocolIdError::Newline(name.chars().take(80).collect()));
        }
        if name.len() > Self::LEN_MAX {
            return Err(ProtocolIdError::TooLong(name.len()));
        }
        Ok(Self(Repr::Shared(name.into())))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(name) => name,
            Repr::Shared(name) => name,
        }
    }
}

impl PartialEq for ProtocolId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ProtocolId {}

impl PartialOrd for ProtocolId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProtocolId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl hash::Hash for ProtocolId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for ProtocolId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ProtocolId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ProtocolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ProtocolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<&str> for ProtocolId {
    type Error = ProtocolIdError;
    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl TryFrom<&String> for ProtocolId {
    type Error = ProtocolIdError;
    fn try_from(name: &String) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl TryFrom<String> for ProtocolId {
    type Error = ProtocolIdError;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<&ProtocolId> for ProtocolId {
    fn from(name: &ProtocolId) -> Self {
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mss_08_names_follow_the_rules() {
        assert!(ProtocolId::new("/noise").is_ok());
        assert_eq!(ProtocolId::new("noise"), Err(ProtocolIdError::NoSlash("noise".into())));
        assert_eq!(ProtocolId::new(""), Err(ProtocolIdError::NoSlash(String::new())));
        assert_eq!(ProtocolId::new("/a\nb"), Err(ProtocolIdError::Newline("/a\nb".into())));
    }

    #[test]
    fn mss_05_the_longest_name_is_1023_bytes() {
        let name = |len: usize| format!("/{}", "x".repeat(len - 1));
        assert!(ProtocolId::new(&name(1023)).is_ok());
        assert_eq!(ProtocolId::new(&name(1024)), Err(ProtocolIdError::TooLong(1024)));
    }

    #[test]
    fn static_and_shared_names_are_equal() {
        assert_eq!(ProtocolId::from_static("/x"), ProtocolId::new("/x").expect("valid"));
    }
}
