//! What the streams of all connections hold, and what is done when that is too much.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use p2p_core::ErrorCode;
use tokio::time::sleep;

use crate::{connection::Conn, host::Inner, metrics::Buffered};

/// How often what is held is added up while there are connections.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Inner {
    /// How many bytes each connection's streams hold.
    pub(crate) fn buffered(&self) -> Vec<(Arc<Conn>, usize)> {
        let conns = self.registry().all();
        let weighed = |conn: Arc<Conn>| {
            let bytes = conn.connection.buffered();
            (conn, bytes)
        };
        conns.into_iter().map(weighed).collect()
    }

    /// Starts the task that looks after the buffers.
    pub(crate) fn watch_buffers(self: &Arc<Self>) {
        self.spawn(watch(Arc::clone(self)));
    }

    /// Adds up what is held. When it is too much, nothing new is taken; when it was too much
    /// `before`, too, those who hold most are closed. Says whether it is too much.
    fn look_at_buffers(&self, held: Vec<(Arc<Conn>, usize)>, before: bool) -> bool {
        let max = self.config.limits.buffered_bytes_max;
        let mut held: Vec<_> = held.into_iter().filter(|(conn, _)| !conn.is_closing()).collect();
        let all = sum(&held);
        held.sort_unstable_by_key(|(_, bytes)| Reverse(*bytes));
        let most = held.first().filter(|_| all > max).map(|(conn, most)| {
            format!("{all} bytes of {} connections, {most} by {}", held.len(), conn.peer())
        });
        let overfull = most.is_some();
        self.ledger.set_overfull(most);
        if overfull && before {
            self.free_buffers(held, max);
        }
        overfull
    }

    /// Closes connections, those that hold most and are not protected first, until the others hold
    /// no more than `max` bytes.
    fn free_buffers(&self, mut held: Vec<(Arc<Conn>, usize)>, max: usize) {
        {
            let registry = self.registry();
            held.sort_by_cached_key(|(conn, _)| registry.marks.is_protected(&conn.peer()));
        }
        let mut left = sum(&held);
        for (conn, bytes) in held {
            if left <= max {
                return;
            }
            left = left.saturating_sub(bytes);
            let reason = format!(
                "it holds {bytes} bytes, and all connections more than {max}: raise that with \
                 `Builder::buffered_bytes_max`"
            );
            tracing::debug!(peer = %conn.peer(), bytes, max, "closed for its buffers");
            conn.close(ErrorCode::CONNECTION_RESOURCE_LIMIT, &reason);
        }
    }
}

fn sum(held: &[(Arc<Conn>, usize)]) -> usize {
    held.iter().map(|(_, bytes)| *bytes).fold(0, usize::saturating_add)
}

async fn watch(host: Arc<Inner>) {
    let mut told = Buffered::new();
    loop {
        host.buffers.notified().await;
        let mut overfull = false;
        loop {
            sleep(LOOK_EVERY).await;
            let held = host.buffered();
            let none = held.is_empty();
            told.set(sum(&held));
            overfull = host.look_at_buffers(held, overfull);
            if none {
                break;
            }
        }
    }
}
