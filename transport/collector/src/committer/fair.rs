//! The order in which waiting entries are written: deficit round robin over the sensors.
//!
//! Each sensor has a line of its own. In each round a line may spend [`QUANTUM`]; what an entry costs is its size and the
//! work of writing it, so that a sensor that sends long or expensive hits gets no more of the store than one that sends
//! short ones. (M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995.)

use std::collections::{HashMap, VecDeque};

/// What a line may spend in a round.
const QUANTUM: usize = 64 << 10;

/// Lines of entries, by the number of their share.
#[derive(Debug)]
pub(super) struct Fair<T> {
    lines: HashMap<u64, Line<T>>,
    /// The lines that are not empty, the next one first.
    ring: VecDeque<u64>,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<(usize, T)>,
    credit: usize,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), ring: VecDeque::new() }
    }
}

impl<T> Fair<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Adds an entry to the end of a line.
    pub(super) fn push(&mut self, line: u64, cost: usize, entry: T) {
        let ring = &mut self.ring;
        let line = self.lines.entry(line).or_insert_with(|| {
            ring.push_back(line);
            Line { waiting: VecDeque::new(), credit: QUANTUM }
        });
        line.waiting.push_back((cost, entry));
    }

    /// Takes the entry whose turn it is, with its cost.
    pub(super) fn pop(&mut self) -> Option<(usize, T)> {
        loop {
            let number = *self.ring.front()?;
            let line = self.lines.get_mut(&number)?;
            if let Some((cost, entry)) = line.waiting.pop_front_if(|(cost, _)| *cost <= line.credit) {
                line.credit -= cost;
                if line.waiting.is_empty() {
                    // A line that has waited for nothing saves no credit.
                    self.lines.remove(&number);
                    self.ring.pop_front();
                }
                return Some((cost, entry));
            }
            line.credit += QUANTUM;
            self.ring.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expensive_sensor_gets_no_more_than_its_share() {
        let mut fair = Fair::default();
        // Line 0 was first, with entries that cost a round each; the others cost a sixteenth.
        for _ in 0..100 {
            fair.push(0, QUANTUM, 0);
        }
        for line in 1..=4 {
            (0..64).for_each(|_| fair.push(line, QUANTUM / 16, line));
        }
        let (mut spent, mut honest) = (0, 0);
        while honest < 4 * 64 {
            let (cost, line) = fair.pop().unwrap();
            if line == 0 { spent += cost } else { honest += 1 }
        }
        // 64 entries of a sixteenth are four rounds.
        assert_eq!(spent, 4 * QUANTUM);
    }

    #[test]
    fn entries_of_a_line_keep_their_order_and_none_is_lost() {
        let mut fair = Fair::default();
        for number in 0..1000_u64 {
            fair.push(number % 7, (number as usize * 7919) % (3 * QUANTUM), number);
        }
        let mut last = [None; 7];
        let mut count = 0;
        while let Some((_, number)) = fair.pop() {
            let line = &mut last[(number % 7) as usize];
            assert!(*line < Some(number));
            *line = Some(number);
            count += 1;
        }
        assert_eq!(count, 1000);
        assert!(fair.is_empty() && fair.lines.is_empty());
    }
}
