//! A network namespace of its own, whose routes set the congestion control: over loopback, BBR
//! paces by a bandwidth that is not there.

use std::process::{Command, ExitStatus};

use compare_peer::Failure;

use crate::options::Options;

const INSIDE: &str = "COMPARE_NAMESPACE";
const SCRIPT: &str = "\
ip link set lo up &&
for to in 127.0.0.0/8 127.0.0.1; do
    ip route change local $to dev lo table local proto kernel scope host src 127.0.0.1 \
       congctl cubic || exit 1
done";

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What is known of the congestion control of this run.
pub fn describe() -> String {
    match std::env::var(INSIDE).as_deref() {
        Ok("cubic") => "CUBIC, in a network namespace of its own".into(),
        _ => {
            let path = "/proc/sys/net/ipv4/tcp_congestion_control";
            let name = std::fs::read_to_string(path).unwrap_or_else(|_| "unknown".into());
            format!("the system's: {}", name.trim())
        }
    }
}

/// Runs this program again in a namespace; `None` where that cannot be.
pub fn enter(options: &Options) -> Result<Option<ExitStatus>, Failure> {
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.arg("--net");
        if !is_root() {
            // Root of a user namespace, where perf counts nothing.
            command.arg("--map-root-user");
        }
        command.args(["--", "sh", "-c", script, "sh"]);
        command
    };
    match unshared(SCRIPT).status() {
        Ok(status) if status.success() => {}
        other => {
            eprintln!(
                "\n!!! NO NETWORK NAMESPACE ({other:?}): the congestion control is {}, and the \
                 figures mean little if that is bbr !!!\n",
                describe()
            );
            return Ok(None);
        }
    }
    let mut command = unshared(&format!("{SCRIPT} && exec \"$@\""));
    command.arg(std::env::current_exe()?).args(options.words());
    command.env(INSIDE, "cubic");
    Ok(Some(command.status()?))
}
