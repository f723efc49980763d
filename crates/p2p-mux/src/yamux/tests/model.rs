use super::*;
use crate::model::{self, Terms, agree};

const SEEDS: u64 = 3000;

impl model::End for Rig {
    fn core(&mut self) -> &mut dyn MuxCore {
        &mut self.session
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pass(&mut self, time: Duration) {
        self.pass(time).unwrap();
    }

    fn check(&mut self) {
        assert_eq!(self.session.counters(), self.session.recount());
        assert!(self.session.backlog() < 2000, "{}", self.session.backlog());
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn mirror(id: StreamId) -> StreamId {
        id
    }
}

#[test]
fn random_sessions_agree_with_the_model() {
    agree(SEEDS, |seed| {
        let config =
            || quiet().streams_outbound_max(12).window_max(1 << 20).windows_growth_max(1 << 20);
        let client = Rig::fresh(config(), Role::Initiator);
        let mut server = Rig::fresh(config(), Role::Responder);
        server.now = client.now;
        let lazy = seed % 5 == 1;
        let terms = Terms { len_max: 300_000, behind_max: None, narrow: false, lazy };
        ([client, server], terms)
    });
}
