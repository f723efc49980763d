//! What an input says.

use std::{collections::VecDeque, time::Duration};

use super::{
    app::{Exchange, Manner, Way},
    link::{Dialed, Fault, Plan},
};
use crate::input::Input;

/// How many decisions are read.
const STEPS_MAX: usize = 64;
const EXCHANGES_MAX: usize = 16;
/// The most that one stream carries, and all of them, in bytes.
const LEN_MAX: usize = 100_000;
const CARRIED_MAX: usize = 300_000;
/// The most that all stalls of a run last together.
pub(super) const STALLS_MAX: Duration = Duration::from_secs(200);
/// The longest piece of what is read or written, in bytes.
const PIECE_MAX: usize = 64 << 10;

/// What a side does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Exchange(Exchange),
    Ping,
    Connect,
    /// Dials the other side as if it were somebody else.
    ConnectToOther,
    Identify,
    Wait(Duration),
    /// Waits for all calls under way.
    Join,
    Disconnect,
    Close,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) plans: [Plan; 2],
    pub(super) dials: VecDeque<Dialed>,
    pub(super) actions: Vec<(usize, Action)>,
}

impl Script {
    pub(super) fn read(data: &[u8]) -> Self {
        let mut input = Input::new(data);
        let mut script = Self::default();
        let mut left = Left { exchanges: EXCHANGES_MAX, bytes: CARRIED_MAX, stalls: STALLS_MAX };
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            script.step(&mut input, &mut left);
        }
        script
    }

    fn step(&mut self, input: &mut Input, left: &mut Left) {
        let op = input.byte();
        let side = usize::from(op >> 7);
        let plan = &mut self.plans[side];
        let action = match op & 0x0f {
            0..=3 => match left.exchange(input) {
                Some(exchange) => Action::Exchange(exchange),
                None => return,
            },
            4 => Action::Ping,
            5 => Action::Connect,
            6 => Action::ConnectToOther,
            7 => Action::Identify,
            8 => Action::Wait(Duration::from_millis(DELAYS[input.below(DELAYS.len())])),
            9 => Action::Join,
            10 if op & 0x10 == 0 => Action::Disconnect,
            10 => Action::Close,
            11..=13 => return plan.faults.push_back((input.len(LEN_MAX) - 1, left.fault(input))),
            14 => {
                let pieces = (0..=input.below(4)).map(|_| input.len(PIECE_MAX)).collect();
                let of = if op & 0x10 == 0 { &mut plan.writes } else { &mut plan.reads };
                *of = pieces;
                return;
            }
            _ => return self.dials.push_back(DIALED[input.below(DIALED.len())]),
        };
        self.actions.push((side, action));
    }
}

/// How long one waits, in milliseconds: about the limits of the hosts and their layers.
const DELAYS: [u64; 7] = [1, 30, 900, 4000, 11_000, 40_000, 100_000];

const DIALED: [Dialed; 6] = [
    Dialed::Open,
    Dialed::Refused,
    Dialed::Silent,
    Dialed::Slow,
    Dialed::FailsThere,
    Dialed::NotTaken,
];

/// What an input may still ask for.
struct Left {
    exchanges: usize,
    bytes: usize,
    stalls: Duration,
}

impl Left {
    fn exchange(&mut self, input: &mut Input) -> Option<Exchange> {
        self.exchanges = self.exchanges.checked_sub(1)?;
        let len = (input.len(LEN_MAX) - 1).min(self.bytes);
        self.bytes -= len;
        let optimistic = input.flag();
        let how = usize::from(input.byte());
        Some(Exchange {
            len,
            way: Way::ALL[how % Way::ALL.len()],
            manner: Manner::ALL[how / Way::ALL.len() % Manner::ALL.len()],
            optimistic,
        })
    }

    fn fault(&mut self, input: &mut Input) -> Fault {
        match input.below(7) {
            0 => {
                let time = Duration::from_millis(DELAYS[input.below(DELAYS.len())]);
                let time = time.min(self.stalls);
                self.stalls -= time;
                Fault::Stall(time)
            }
            1 => Fault::Flip(input.byte().max(1)),
            2 => Fault::Insert(input.bytes().to_vec()),
            3 => Fault::Lose(input.len(LEN_MAX)),
            4 => Fault::End,
            5 => Fault::Silence,
            _ => Fault::Break,
        }
    }
}
