//! Names in addresses, for the `p2p` libp2p implementation: [`Dns`] is the [`Resolve`] of a host
//! that dials `/dns`, `/dns4`, `/dns6` and `/dnsaddr`.
//!
//! It asks the system's name servers, or others that it is given, over UDP and, where an answer
//! does not fit, TCP. What the answers mean is the host's business: here names become records.
//!
//! ```text
//!   /dnsaddr/example.com ─ TXT ─► /dns4/a.example.com/tcp/4001/p2p/… ─ A ─► /ip4/192.0.2.7/tcp/4001/p2p/…
//!   └──────────────── the host asks, bounded in number and depth; Dns answers ─────────────────┘
//! ```
//!
//! It deliberately has no DNSSEC and no encrypted DNS: who answers at an address proves its peer
//! id in any case.
//!
//! ```
//! use p2p_core::Resolve as _;
//! use p2p_dns::Dns;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dns = Dns::system(); // or: Dns::with_servers(["192.0.2.53:53".parse()?])
//! assert_eq!(dns.lookup_ip4("127.0.0.1").await?, ["127.0.0.1".parse::<std::net::Ipv4Addr>()?]);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! A lookup takes at most [`LOOKUP_TIMEOUT`]. Up to [`CACHE_ENTRIES_MAX`] answers are kept for as
//! long as the name server allows; each is one DNS message, at most 64 KiB and mostly below 1 KiB.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::OnceLock,
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use p2p_core::{Resolve, ResolveError};

/// How long a lookup may take, with every retry and every name server.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How many answers are kept.
pub const CACHE_ENTRIES_MAX: u64 = 512;

/// How long a name server is waited for before the question is asked again: twice in a lookup.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks names up in the DNS.
///
/// Addresses are taken as they are: `127.0.0.1` is its own answer.
#[derive(Default)]
pub struct Dns {
    /// None asks the system's.
    servers: Option<Vec<SocketAddr>>,
    resolver: OnceLock<TokioResolver>,
}

impl Dns {
    /// Asks as the system is configured to: its name servers, its search list for names with
    /// few dots, and its file of hosts. The configuration is read at the first lookup, and once:
    /// a program that moves between networks makes a new one.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Asks these name servers, over UDP and TCP, and nothing else: no search list and no file of
    /// hosts.
    #[must_use]
    pub fn with_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { servers: Some(servers.into_iter().collect()), resolver: OnceLock::new() }
    }

    fn resolver(&self) -> Result<&TokioResolver, ResolveError> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let made = self.make_resolver()?;
        Ok(self.resolver.get_or_init(|| made))
    }

    fn make_resolver(&self) -> Result<TokioResolver, ResolveError> {
        let unusable = |error: NetError| ResolveError::Config(error.to_string());
        let mut builder = match &self.servers {
            None => TokioResolver::builder_tokio().map_err(unusable)?,
            Some(servers) if servers.is_empty() => {
                return Err(ResolveError::Config("the list of name servers is empty".into()));
            }
            Some(servers) => {
                let servers = servers.iter().map(name_server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                let provider = TokioRuntimeProvider::default();
                let mut builder = TokioResolver::builder_with_config(config, provider);
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                builder
            }
        };
        let options = builder.options_mut();
        options.timeout = options.timeout.min(ATTEMPT_TIMEOUT);
        options.cache_size = CACHE_ENTRIES_MAX;
        builder.build().map_err(unusable)
    }

    /// The records of one kind. `take` picks what a record holds.
    async fn lookup<T>(
        &self,
        name: &str,
        kind: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, ResolveError> {
        let name = Name::from_utf8(name).map_err(|e| ResolveError::Name(e.to_string()))?;
        if name.num_labels() == 0 {
            return Err(ResolveError::Name("it is empty".into()));
        }
        let asked = self.resolver()?.lookup(name, kind);
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| ResolveError::TimedOut(LOOKUP_TIMEOUT))?.map_err(failed)?;
        let records: Vec<T> = answer.answers().iter().filter_map(|r| take(&r.data)).collect();
        if records.is_empty() { Err(ResolveError::NoRecords) } else { Ok(records) }
    }
}

#[async_trait]
impl Resolve for Dns {
    async fn lookup_ip4(&self, name: &str) -> Result<Vec<Ipv4Addr>, ResolveError> {
        match IpAddr::from_str(name) {
            Ok(IpAddr::V4(ip)) => return Ok(vec![ip]),
            Ok(IpAddr::V6(_)) => return Err(ResolveError::NoRecords),
            Err(_) => {}
        }
        let take = |data: &RData| if let RData::A(ip) = data { Some(ip.0) } else { None };
        self.lookup(name, RecordType::A, take).await
    }

    async fn lookup_ip6(&self, name: &str) -> Result<Vec<Ipv6Addr>, ResolveError> {
        match IpAddr::from_str(name) {
            Ok(IpAddr::V6(ip)) => return Ok(vec![ip]),
            Ok(IpAddr::V4(_)) => return Err(ResolveError::NoRecords),
            Err(_) => {}
        }
        let take = |data: &RData| if let RData::AAAA(ip) = data { Some(ip.0) } else { None };
        self.lookup(name, RecordType::AAAA, take).await
    }

    async fn lookup_txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        let take = |data: &RData| {
            if let RData::TXT(txt) = data { Some(txt.txt_data.concat()) } else { None }
        };
        self.lookup(name, RecordType::TXT, take).await
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("servers", &self.servers).finish_non_exhaustive()
    }
}

fn name_server(addr: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(addr.ip());
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = addr.port();
        connection
    };
    server.connections = server.connections.into_iter().map(with_port).collect();
    server
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is, the server failed")]
fn failed(error: NetError) -> ResolveError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => ResolveError::NoName,
            ResponseCode::NoError => ResolveError::NoRecords,
            code => ResolveError::Server(code.to_string()),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => ResolveError::Server(code.to_string()),
        NetError::Timeout => ResolveError::TimedOut(LOOKUP_TIMEOUT),
        NetError::Io(source) => ResolveError::Io(io::Error::new(source.kind(), source).into()),
        other => ResolveError::Server(other.to_string()),
    }
}
