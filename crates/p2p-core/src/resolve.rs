use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use async_trait::async_trait;

use crate::IoCause;

/// Looks names up in the DNS, as a value that a host is configured with.
///
/// Names are texts such as `example.com`, with or without the dot at the end. The caller limits
/// the time of a lookup, and how many there are.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The IPv4 addresses of a name: its A records.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::NoRecords`] where there would be no address.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lookup up.
    async fn lookup_ip4(&self, name: &str) -> Result<Vec<Ipv4Addr>, ResolveError>;

    /// The IPv6 addresses of a name: its AAAA records.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::NoRecords`] where there would be no address.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lookup up.
    async fn lookup_ip6(&self, name: &str) -> Result<Vec<Ipv6Addr>, ResolveError>;

    /// The TXT records of a name. Each is its character-strings of at most 255 bytes, joined in
    /// their order with nothing between (RFC 1035 3.3.14, DNS-07); any bytes are possible.
    ///
    /// # Errors
    /// [`ResolveError`]; [`ResolveError::NoRecords`] where there would be no record.
    ///
    /// # Cancel safety
    /// Dropping the future gives the lookup up.
    async fn lookup_txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError>;
}

/// Why a name could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The text is not a domain name.
    #[error("it is not a domain name: {0}")]
    Name(String),
    /// The DNS knows no such name (NXDOMAIN).
    #[error("there is no such name")]
    NoName,
    /// The name is known, and has no record of the kind that can be used.
    #[error("it has no usable record")]
    NoRecords,
    /// No name server answered in time.
    #[error("no name server answered within {0:?}")]
    TimedOut(Duration),
    /// A name server failed, refused, or gave an answer that is none; the text says how.
    #[error("the name server failed: {0}")]
    Server(String),
    /// The name servers could not be reached.
    #[error("the name servers cannot be reached: {0}")]
    Io(IoCause),
    /// The resolver has no configuration that it can work with; the text says why.
    #[error("the resolver is not configured: {0}")]
    Config(String),
}
