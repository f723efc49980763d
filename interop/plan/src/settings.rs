use std::time::Duration;

use crate::{Failure, Scenario};

/// What the environment asks of a program under test.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// `muxer`: the only multiplexer to offer. Default yamux.
    pub muxer: Muxer,
    /// `is_dialer`: whether to dial rather than to listen.
    pub is_dialer: bool,
    /// `ip`: the IPv4 address to listen on. Default 0.0.0.0.
    pub ip: String,
    /// `redis_addr`: host and port of Redis. Default `redis:6379`.
    pub redis: String,
    /// `test_timeout_seconds`: how long the dialer may take. Default 180 s.
    pub time_limit: Duration,
    /// `half_close`: whether streams of echo scenarios are ended before the echo is whole. Default
    /// true; a peer whose driver knows no half-closed streams needs false.
    pub half_close: bool,
    /// `scenario`: what the dialer does. Default ping.
    pub scenario: Scenario,
}

/// A multiplexer by its name in the test plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Muxer {
    /// `yamux`.
    Yamux,
    /// `mplex`.
    Mplex,
}

impl Settings {
    /// Reads the settings through `var`, which gives a variable's value.
    pub(crate) fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let or = |name: &str, default: &str| var(name).unwrap_or_else(|| default.to_owned());
        for (name, only) in [("transport", "tcp"), ("security", "noise")] {
            let value = or(name, only);
            if value != only {
                return Err(format!("{name} is {value}, and can only be {only}").into());
            }
        }
        let muxer = match or("muxer", "yamux").as_str() {
            "yamux" => Muxer::Yamux,
            "mplex" => Muxer::Mplex,
            other => return Err(format!("muxer is {other}, and can be yamux or mplex").into()),
        };
        let seconds = or("test_timeout_seconds", "180");
        let seconds = seconds.parse().map_err(|_| format!("a time limit of {seconds} seconds"))?;
        Ok(Self {
            muxer,
            is_dialer: or("is_dialer", "false").parse()?,
            ip: or("ip", "0.0.0.0"),
            redis: or("redis_addr", "redis:6379"),
            time_limit: Duration::from_secs(seconds),
            half_close: or("half_close", "true").parse()?,
            scenario: or("scenario", "ping").parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Muxer, Settings};
    use crate::Scenario;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, String> {
        let var = |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::from_env(var).map_err(|error| error.to_string())
    }

    #[test]
    fn conn_49_the_defaults_are_those_of_the_test_plans() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.ip, "0.0.0.0");
        assert_eq!(settings.redis, "redis:6379");
        assert_eq!(settings.time_limit.as_secs(), 180);
        assert_eq!((settings.is_dialer, settings.muxer), (false, Muxer::Yamux));
        assert_eq!(settings.scenario, Scenario::Ping);
    }

    #[test]
    fn conn_49_what_is_not_known_is_refused_by_name() {
        for (name, value) in
            [("transport", "ws"), ("security", "tls"), ("muxer", "quic"), ("scenario", "x")]
        {
            let refusal = read(&[(name, value)]).unwrap_err();
            assert!(refusal.contains(value), "{refusal}");
        }
    }
}
