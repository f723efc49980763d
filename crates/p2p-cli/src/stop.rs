//! What ends a command from outside, and how.

use std::{io, process, sync::Arc, thread};

use tokio::sync::watch;

/// Says that the command is to end, and with which exit code when it is not done: Ctrl-C, SIGTERM,
/// or nobody reads its output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<watch::Sender<Option<u8>>>);

impl Stop {
    pub(crate) fn request(&self, code: u8) {
        self.0.send_replace(Some(code));
    }

    /// Waits until the command is to end, and gives the exit code. Cancel safe.
    pub(crate) async fn requested(&self) -> u8 {
        let mut requested = self.0.subscribe();
        let code = requested.wait_for(Option::is_some).await;
        code.ok().and_then(|code| *code).expect("this handle keeps the sender alive")
    }
}

/// The first signal requests the end; a second ends the program at once. They are watched from a
/// thread of their own, so that a command that is stuck cannot stand in their way. From here on
/// they do not kill the program any more.
pub(crate) fn on_signals(stop: Stop) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        #[cfg(unix)]
        survive_large_files()?;
        Signals::new()?
    };
    let watch = move || {
        runtime.block_on(async {
            stop.request(signals.next().await);
            process::exit(signals.next().await.into());
        });
    };
    thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(())
}

/// A file that grows over the limit on its size is an error of writing, and not the end of the
/// program.
#[cfg(unix)]
fn survive_large_files() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let too_large = rustix::process::Signal::XFSZ.as_raw();
    signal(SignalKind::from_raw(too_large)).map(drop)
}

/// Exit codes of a program that a signal ends, as shells have them.
const INTERRUPTED: u8 = 130;
#[cfg(unix)]
const TERMINATED: u8 = 143;

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal, and gives its exit code.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> u8 {
        self.0.recv().await;
        INTERRUPTED
    }
}
