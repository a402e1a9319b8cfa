//! Deficit round robin over the sensors: the order in which queued entries are written.
//!
//! Each sensor is a flow, which may spend [`QUANTUM`] per round. The cost of an entry is its size plus the work of
//! writing it, so a sensor that sends long or expensive hits gets no more of the store than one that sends short ones.
//! (M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995.)

use std::collections::{HashMap, VecDeque};

/// The cost that a flow may spend per round, in bytes.
const QUANTUM: usize = 64 << 10;

/// A queue that serves its flows in turn.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    flows: HashMap<u64, Flow<T>>,
    /// The flows that are not empty, in the order of their turns.
    ring: VecDeque<u64>,
}

#[derive(Debug)]
struct Flow<T> {
    waiting: VecDeque<(usize, T)>,
    credit: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { flows: HashMap::new(), ring: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Adds an entry to the end of a flow.
    pub(super) fn push(&mut self, flow: u64, cost: usize, entry: T) {
        let ring = &mut self.ring;
        let flow = self.flows.entry(flow).or_insert_with(|| {
            ring.push_back(flow);
            Flow { waiting: VecDeque::new(), credit: QUANTUM }
        });
        flow.waiting.push_back((cost, entry));
    }

    /// Removes the next entry and returns it with its cost.
    pub(super) fn pop(&mut self) -> Option<(usize, T)> {
        loop {
            let number = *self.ring.front()?;
            let flow = self.flows.get_mut(&number)?;
            if let Some((cost, entry)) = flow.waiting.pop_front_if(|(cost, _)| *cost <= flow.credit) {
                flow.credit -= cost;
                if flow.waiting.is_empty() {
                    // An empty flow loses its credit.
                    self.flows.remove(&number);
                    self.ring.pop_front();
                }
                return Some((cost, entry));
            }
            flow.credit += QUANTUM;
            self.ring.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expensive_sensor_gets_no_more_than_its_share() {
        let mut fair = FairQueue::default();
        // Entries of flow 0, which comes first, cost a whole round; those of the others a sixteenth.
        for _ in 0..100 {
            fair.push(0, QUANTUM, 0);
        }
        for flow in 1..=4 {
            (0..64).for_each(|_| fair.push(flow, QUANTUM / 16, flow));
        }
        let (mut spent, mut honest) = (0, 0);
        while honest < 4 * 64 {
            let (cost, flow) = fair.pop().unwrap();
            if flow == 0 { spent += cost } else { honest += 1 }
        }
        // 64 entries of a sixteenth are four rounds.
        assert_eq!(spent, 4 * QUANTUM);
    }

    #[test]
    fn entries_of_a_flow_keep_their_order_and_none_is_lost() {
        let mut fair = FairQueue::default();
        for number in 0..1000_u64 {
            fair.push(number % 7, (number as usize * 7919) % (3 * QUANTUM), number);
        }
        let mut last = [None; 7];
        let mut count = 0;
        while let Some((_, number)) = fair.pop() {
            let flow = &mut last[(number % 7) as usize];
            assert!(*flow < Some(number));
            *flow = Some(number);
            count += 1;
        }
        assert_eq!(count, 1000);
        assert!(fair.is_empty() && fair.flows.is_empty());
    }
}
