//! How a majority gives out tokens, as a model: random histories in which questions arrive late or never, locks run out
//! whenever they like, and clocks are what they are. Servers forget nothing.

use crate::state::dice::Dice;
use crate::state::redis::majority::Count;

/// What is left out of what is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    /// A token is given out without being noted in a majority.
    NotNoted,
    /// It is noted also where the lock is somebody else's by then, or nobody's.
    NotedWithoutTheLock,
    /// It is noted in so many servers that are no majority.
    NotedInTooFew,
}

/// A server, with one key.
#[derive(Clone, Debug)]
struct Node {
    fence: u64,
    /// It stands still: tokens are not to rely on it.
    clock: u64,
    holder: Option<usize>,
}

/// A try to get the lock.
#[derive(Clone, Debug)]
struct Try {
    began: usize,
    /// What each server was asked, and said.
    tokens: Vec<Option<u64>>,
    asked: Vec<bool>,
    /// The token, once it is known, and where it is noted.
    token: Option<u64>,
    noted: Vec<Option<bool>>,
    given: Option<usize>,
}

struct World {
    dice: Dice,
    fault: Fault,
    nodes: Vec<Node>,
    tries: Vec<Try>,
}

const TRIES: usize = 6;
const STEPS: usize = 120;

impl World {
    fn new(mut dice: Dice, fault: Fault) -> Self {
        let count = [3, 5][dice.below(2) as usize];
        let node = |dice: &mut Dice| Node {
            fence: 0,
            clock: dice.below(100),
            holder: None,
        };
        let nodes = (0..count).map(|_| node(&mut dice)).collect();
        Self {
            dice,
            fault,
            nodes,
            tries: Vec::new(),
        }
    }

    fn majority(&self) -> usize {
        Count(self.nodes.len()).majority()
    }

    fn step(&mut self, now: usize) {
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let count = self.tries.len() as u64;
        match self.dice.below(8) {
            0 if self.tries.len() < TRIES => self.tries.push(Try {
                began: now,
                tokens: vec![None; self.nodes.len()],
                asked: vec![false; self.nodes.len()],
                token: None,
                noted: vec![None; self.nodes.len()],
                given: None,
            }),
            1 => self.nodes[node].holder = None,
            _ if count == 0 => {}
            _ => {
                let one = self.dice.below(count) as usize;
                self.go_on(one, node, now);
            }
        }
    }

    /// Has something arrive that a try has sent to a server.
    fn go_on(&mut self, number: usize, at: usize, now: usize) {
        let majority = self.majority();
        let enough = match self.fault {
            Fault::NotNoted => 0,
            Fault::NotedInTooFew => majority - 1,
            _ => majority,
        };
        let (node, one) = (&mut self.nodes[at], &mut self.tries[number]);
        match one.token {
            None if !one.asked[at] => {
                one.asked[at] = true;
                if node.holder.is_none() {
                    node.holder = Some(number);
                    node.fence = (node.fence + 1).max(node.clock);
                    one.tokens[at] = Some(node.fence);
                }
            }
            None if one.tokens.iter().flatten().count() >= majority => {
                one.token = one.tokens.iter().flatten().max().copied();
            }
            Some(token) if one.tokens[at].is_some() && one.noted[at].is_none() => {
                let has_it = node.holder == Some(number);
                let notes = has_it || self.fault == Fault::NotedWithoutTheLock;
                if notes {
                    node.fence = node.fence.max(token);
                }
                one.noted[at] = Some(notes);
            }
            _ => {}
        }
        let noted = one.noted.iter().flatten().filter(|it| **it).count();
        if one.token.is_some() && one.given.is_none() && noted >= enough {
            one.given = Some(now);
        }
    }

    fn complaint(&self) -> Option<String> {
        let given = self.tries.iter().filter(|it| it.given.is_some());
        let given: Vec<&Try> = given.collect();
        for one in &given {
            for other in &given {
                let is_later = one.given < Some(other.began);
                if is_later && other.token <= one.token {
                    return Some(format!("it does not grow: {one:?} and {other:?}"));
                }
                if !std::ptr::eq(*one, *other) && one.token == other.token {
                    return Some(format!("two have it: {one:?} and {other:?}"));
                }
            }
        }
        None
    }
}

/// Plays a history; returns how many tokens were given out, or what is wrong with them.
fn play(seed: u64, fault: Fault) -> Result<usize, String> {
    let mut world = World::new(Dice::Seeded(seed), fault);
    for now in 0..STEPS {
        world.step(now);
    }
    match world.complaint() {
        Some(complaint) => Err(format!("seed {seed}: {complaint}")),
        None => Ok(world.tries.iter().filter(|it| it.given.is_some()).count()),
    }
}

#[test]
fn tokens_grow_in_a_hundred_thousand_random_histories() {
    let given: Result<Vec<usize>, String> =
        (0..100_000).map(|seed| play(seed, Fault::None)).collect();
    let given = given.unwrap();
    // There is something to compare.
    assert!(given.iter().filter(|given| **given > 1).count() > 1_000);
}

#[test]
fn every_part_of_it_is_needed() {
    for fault in [
        Fault::NotNoted,
        Fault::NotedWithoutTheLock,
        Fault::NotedInTooFew,
    ] {
        let is_noticed = (0..100_000).any(|seed| play(seed, fault).is_err());
        assert!(is_noticed, "{fault:?} is not noticed");
    }
}
