//! The same with an allocator that counts, which costs time.

use std::{alloc::System, process::ExitCode};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let count = || (HEAP.stats().allocations + HEAP.stats().reallocations) as u64;
    compare_peer::main::<peer_litep2p::Peer>(Some(count))
}
