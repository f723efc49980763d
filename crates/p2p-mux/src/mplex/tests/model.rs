use super::{super::frame::is_inbound, *};
use crate::model::{self, Terms, agree};

const SEEDS: u64 = 3000;
const BOUND: usize = 256 << 10;

impl model::End for Rig {
    fn core(&mut self) -> &mut dyn MuxCore {
        &mut self.session
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn pass(&mut self, time: Duration) {
        self.pass(time);
    }

    fn check(&mut self) {
        let counters = self.session.counters();
        assert_eq!(counters, self.session.recount());
        let most = self.session.received_max() + (16 << 10);
        assert!(counters.held <= most, "{} of {most}", counters.held);
        assert!(self.session.backlog() < 2000, "{}", self.session.backlog());
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn mirror(id: StreamId) -> StreamId {
        stream_id(number(id), !is_inbound(id))
    }
}

#[test]
fn random_sessions_agree_with_the_model() {
    let overflows = agree(SEEDS, |seed| {
        let (narrow, lazy) = (seed.is_multiple_of(4), seed % 5 == 1);
        let config = brisk()
            .streams_outbound_max(if lazy { 1 } else { 8 })
            .stream_received_max(BOUND)
            .connection_received_max(if narrow { BOUND } else { 16 << 20 });
        let config = if seed.is_multiple_of(3) { config.opens_per_second_max(4) } else { config };
        let behind_max = Some(BOUND - (48 << 10));
        let terms = Terms { len_max: 100_000, behind_max, narrow, lazy };
        ([Rig::with(config.clone()), Rig::with(config)], terms)
    });
    assert!(overflows > 100, "the bound was reached {overflows} times only");
}
