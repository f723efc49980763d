//! The task that writes what is known of peers to a store, off the threads that serve the network.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2p_core::{Store, StoreError};
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{Event, host::Inner, peerstore::Peerstore};

/// How long a store may take to give what it has kept.
const LOAD_MAX: Duration = Duration::from_secs(30);
/// How long changes are gathered before they are written.
const GATHERING: Duration = Duration::from_secs(1);
/// How long a write may take before it counts as failed; the next one waits for it.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// The longest time between two tries of a store that fails.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long the last write of a host may take, and then the end of its store.
const END_MAX: Duration = Duration::from_secs(5);

/// A store, and the one call of it that may be under way.
pub(crate) struct Keeper {
    name: String,
    store: Arc<Mutex<Box<dyn Store>>>,
    peerstore: Peerstore,
    under_way: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Keeper {
    /// Hands what `store` has kept to `peerstore`.
    pub(crate) async fn load(
        store: Box<dyn Store>,
        peerstore: &Peerstore,
    ) -> Result<Self, StoreError> {
        let mut keeper = Self {
            name: store.name(),
            store: Arc::new(Mutex::new(store)),
            peerstore: peerstore.clone(),
            under_way: None,
        };
        let peerstore = peerstore.clone();
        keeper.start(move |store| {
            peerstore.load(store.load()?);
            Ok(())
        });
        match timeout(LOAD_MAX, keeper.wait()).await {
            Ok(loaded) => loaded.map(|()| keeper),
            Err(_) => Err(StoreError::TimedOut { store: keeper.name, limit: LOAD_MAX }),
        }
    }

    /// Starts the task. It ends when the host has, and what is known is written.
    pub(crate) fn begin(self, host: &Arc<Inner>) {
        let (host, running) = (Arc::clone(host), host.tasks.begin());
        host.runtime.clone().spawn(async move {
            let _running = running;
            keep(host, self).await;
        });
    }

    fn start(
        &mut self,
        call: impl FnOnce(&mut dyn Store) -> Result<(), StoreError> + Send + 'static,
    ) {
        let store = Arc::clone(&self.store);
        self.under_way = Some(spawn_blocking(move || {
            // After a panic the store is asked again: it may know how to go on.
            call(store.lock().unwrap_or_else(PoisonError::into_inner).as_mut())
        }));
    }

    /// Waits for the call that is under way.
    ///
    /// # Cancel safety
    /// Cancel safe: called again, it waits for the same.
    async fn wait(&mut self) -> Result<(), StoreError> {
        let Some(call) = &mut self.under_way else { return Ok(()) };
        let ended = call.await;
        self.under_way = None;
        let failed = |error: JoinError| StoreError::Failed {
            store: self.name.clone(),
            reason: error.to_string(),
        };
        ended.map_err(failed)?
    }

    /// Writes all that has changed.
    ///
    /// # Cancel safety
    /// Cancel safe: called again, it goes on.
    async fn write_all(&mut self) -> Result<(), StoreError> {
        loop {
            if self.under_way.is_some() {
                let written = self.wait().await;
                self.peerstore.saved(written.is_ok());
                written?;
            }
            let batch = self.peerstore.unsaved();
            if batch.is_empty() {
                return Ok(());
            }
            self.start(move |store| store.write(&batch));
        }
    }

    /// Writes what is left, and closes the store where nobody waits for it.
    async fn end(mut self) {
        match timeout(END_MAX, self.write_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what is known of peers is not all kept"),
            Err(_) => tracing::warn!(store = self.name, "the last write takes too long"),
        }
        let Self { name, store, .. } = self;
        if timeout(END_MAX, spawn_blocking(move || drop(store))).await.is_err() {
            tracing::warn!(store = name, "the store takes too long to close");
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("name", &self.name).finish_non_exhaustive()
    }
}

async fn keep(host: Arc<Inner>, mut keeper: Keeper) {
    tokio::select! {
        biased;
        () = host.end.cancelled() => {}
        () = keep_up(&host, &mut keeper) => {}
    }
    drop(host);
    keeper.end().await;
}

/// Writes what changes, for as long as the host lives.
async fn keep_up(host: &Inner, keeper: &mut Keeper) {
    let mut pause = GATHERING;
    loop {
        keeper.peerstore.wait_unsaved().await;
        sleep(pause).await;
        let written = timeout(WRITE_MAX, keeper.write_all()).await.unwrap_or_else(|_| {
            Err(StoreError::TimedOut { store: keeper.name.clone(), limit: WRITE_MAX })
        });
        let failing = pause > GATHERING;
        match written {
            Ok(()) => {
                pause = GATHERING;
                if failing {
                    tracing::info!(store = keeper.name, "the peer store works again");
                    host.emit(Event::StoreRecovered);
                }
            }
            Err(error) => {
                pause = (pause * 2).min(RETRY_MAX);
                if !failing {
                    tracing::warn!(%error, "the host goes on without its peer store");
                    host.emit(Event::StoreFailed { error });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use bytes::Bytes;
    use p2p_core::{Keypair, Multiaddr, PeerId};
    use tokio::time::Instant;

    use super::*;
    use crate::{BuildError, Host};

    /// A store in memory, and what it is to do wrong.
    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<Kept>>);

    #[derive(Default)]
    struct Kept {
        entries: HashMap<PeerId, Bytes>,
        full: bool,
        panics: bool,
        writes: usize,
        most: usize,
        open: usize,
    }

    impl Shelf {
        fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
            f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }

        fn peers(&self) -> HashSet<PeerId> {
            self.with(|kept| kept.entries.keys().copied().collect())
        }

        fn opened(&self) -> Handle {
            self.with(|kept| kept.open += 1);
            Handle(self.clone())
        }
    }

    struct Handle(Shelf);

    impl Drop for Handle {
        fn drop(&mut self) {
            self.0.with(|kept| kept.open -= 1);
        }
    }

    impl Store for Handle {
        fn name(&self) -> String {
            "shelf".into()
        }

        fn load(&mut self) -> Result<Vec<(PeerId, Bytes)>, StoreError> {
            let failed = || StoreError::Damaged { store: self.name(), reason: "rot".into() };
            self.0.with(|kept| match kept.full {
                true => Err(failed()),
                false => Ok(kept.entries.clone().into_iter().collect()),
            })
        }

        fn write(&mut self, changes: &[(PeerId, Option<Bytes>)]) -> Result<(), StoreError> {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
            let failed = StoreError::Io { store: self.name(), action: "written", cause: full };
            self.0.with(|kept| {
                assert!(!kept.panics, "a bug of the store");
                if kept.full {
                    return Err(failed);
                }
                kept.writes += 1;
                kept.most = kept.most.max(changes.len());
                for (peer, entry) in changes {
                    match entry {
                        Some(entry) => kept.entries.insert(*peer, entry.clone()),
                        None => kept.entries.remove(peer),
                    };
                }
                Ok(())
            })
        }
    }

    async fn host(shelf: &Shelf) -> Host {
        let builder = crate::builder()
            .transport(p2p_transport_tcp::Tcp::default())
            .security(p2p_security_noise::Noise::new)
            .muxer(p2p_mux::Yamux::default());
        builder.store(shelf.opened()).spawn().await.unwrap()
    }

    fn peer(number: u32) -> PeerId {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Keypair::from_ed25519_seed(&seed).public().peer_id()
    }

    fn addr() -> Multiaddr {
        "/ip4/1.2.3.4/tcp/1".parse().unwrap()
    }

    fn add(host: &Host, numbers: std::ops::Range<u32>) {
        for number in numbers {
            host.peerstore().add(peer(number), [addr()]);
        }
    }

    async fn next(events: &mut crate::Events) -> Event {
        events.next().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_known_again_after_a_restart() {
        let shelf = Shelf::default();
        let first = host(&shelf).await;
        add(&first, 0..3);
        sleep(GATHERING * 2).await;
        assert_eq!((shelf.peers().len(), shelf.with(|kept| kept.writes)), (3, 1));
        // What has changed last is written at the end, and the store is closed.
        first.peerstore().remove(&peer(0));
        add(&first, 3..4);
        first.close().await;
        assert_eq!(shelf.peers(), (1..4).map(peer).collect());
        assert_eq!((first.inner.tasks.len(), shelf.with(|kept| kept.open)), (0, 0));
        let second = host(&shelf).await;
        assert_eq!(second.peerstore().peers().len(), 3);
        let known = second.peerstore().get(&peer(3)).unwrap();
        assert_eq!(known.addrs[0].addr, addr());
        // Nothing has changed, and nothing is written.
        second.close().await;
        assert_eq!(shelf.with(|kept| kept.writes), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_dropped_writes_what_it_knows() {
        let shelf = Shelf::default();
        let dropped = host(&shelf).await;
        add(&dropped, 0..1);
        drop(dropped);
        while shelf.with(|kept| kept.open) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shelf.peers(), HashSet::from([peer(0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_is_told_once_and_the_host_goes_on_until_there_is_room() {
        let shelf = Shelf::default();
        let host = host(&shelf).await;
        let mut events = host.events();
        shelf.with(|kept| kept.full = true);
        add(&host, 0..1);
        let Event::StoreFailed { error } = next(&mut events).await else { panic!("another event") };
        assert_eq!(error.to_string(), "the peer store shelf cannot be written: no storage space");
        // The time between tries grows, up to a minute, and no event says so again.
        sleep(RETRY_MAX * 5).await;
        add(&host, 1..2000);
        host.peerstore().remove(&peer(0));
        assert_eq!(host.peerstore().peers().len(), 1999);
        shelf.with(|kept| kept.full = false);
        let since = Instant::now();
        assert!(matches!(next(&mut events).await, Event::StoreRecovered));
        assert!(since.elapsed() <= RETRY_MAX, "{:?}", since.elapsed());
        assert_eq!(shelf.peers(), (1..2000).map(peer).collect());
        assert!(shelf.with(|kept| kept.most) <= 1024);
        host.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_panics_harms_nobody() {
        let shelf = Shelf::default();
        let host = host(&shelf).await;
        let mut events = host.events();
        shelf.with(|kept| kept.panics = true);
        add(&host, 0..1);
        let Event::StoreFailed { error } = next(&mut events).await else { panic!("another event") };
        assert!(
            matches!(error, StoreError::Failed { ref store, .. } if store == "shelf"),
            "{error}"
        );
        shelf.with(|kept| kept.panics = false);
        assert!(matches!(next(&mut events).await, Event::StoreRecovered));
        assert_eq!(shelf.peers(), HashSet::from([peer(0)]));
        host.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_be_read_is_an_error_of_spawn() {
        let shelf = Shelf::default();
        shelf.with(|kept| kept.full = true);
        let builder = crate::builder()
            .transport(p2p_transport_tcp::Tcp::default())
            .security(p2p_security_noise::Noise::new)
            .muxer(p2p_mux::Yamux::default());
        let refused = builder.store(shelf.opened()).spawn().await.unwrap_err();
        assert!(matches!(refused, BuildError::Store(StoreError::Damaged { .. })), "{refused}");
        assert_eq!(refused.to_string(), "the peer store shelf is damaged: rot");
        assert_eq!(shelf.with(|kept| kept.open), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_store_has_beyond_the_bounds_or_cannot_be_read_is_removed_there() {
        let shelf = Shelf::default();
        let first = host(&shelf).await;
        add(&first, 0..4096);
        first.close().await;
        let one = shelf.with(|kept| kept.entries[&peer(0)].clone());
        shelf.with(|kept| {
            kept.entries.extend((5000..5100).map(|number| (peer(number), one.clone())));
            kept.entries.insert(peer(6000), Bytes::from_static(b"no entry"));
        });
        let second = host(&shelf).await;
        assert_eq!(second.peerstore().peers().len(), 4096);
        second.close().await;
        assert_eq!(shelf.peers().into_iter().collect::<Vec<_>>().len(), 4096);
        let known: HashSet<PeerId> = second.peerstore().peers().into_iter().collect();
        assert_eq!(shelf.peers(), known);
    }
}
