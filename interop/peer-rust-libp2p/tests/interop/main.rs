//! This project's node and rust-libp2p's, over TCP, Noise and Yamux on the loopback interface.
//!
//! Our side runs inside the test through the `p2p` crate, or as the `p2p` program; theirs is the
//! program of this package. Tests wait for events and for ends of streams and processes, never for
//! time to pass.
#![expect(clippy::unwrap_used, reason = "tests")]

mod ours;
mod process;
mod theirs;

mod dialing;
mod ends;
mod keys;
mod listening;
mod many;
mod program;
mod records;

use std::{pin::pin, time::Duration};

use tokio::time::timeout;

/// Far above what any test takes on a busy machine of two cores.
const TEST_MAX: Duration = Duration::from_secs(90);

/// Runs a whole test under its time limit. Processes of a test that takes longer are dropped
/// while the thread panics, so that they tell what they know.
async fn limited(test: impl Future<Output = ()>) {
    let mut test = pin!(test);
    if timeout(TEST_MAX, &mut test).await.is_err() {
        panic!("not finished after {TEST_MAX:?}");
    }
}
