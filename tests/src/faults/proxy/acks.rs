//! Drops, delays, duplicates and repeats ACKs.

use super::{Acks, Counts};
use crate::faults::rng::Rng;
use etwsieve_transport::wire::frame::{FrameType, HEADER_LEN, split_frame};
use std::sync::atomic::Ordering;

/// Maximum number of old ACKs that are remembered.
const OLD_MAX: usize = 32;

/// Changes the sequence of ACKs that a collector sends.
pub(super) struct Mangler {
    acks: Acks,
    rng: Rng,
    /// The beginning of an incomplete frame.
    input: Vec<u8>,
    /// An ACK that is sent after the next one.
    held: Option<Vec<u8>>,
    old: Vec<Vec<u8>>,
}

impl Mangler {
    pub(super) fn new(acks: Acks, rng: Rng) -> Self {
        Self { acks, rng, input: Vec::new(), held: None, old: Vec::new() }
    }

    /// Takes the next bytes from the collector, which may be none, and returns the bytes to forward, which may be none.
    pub(super) fn pass(&mut self, part: &[u8], counts: &Counts) -> Vec<u8> {
        let mut out = Vec::new();
        // The next ACK may never come, so a held one is sent when the collector is silent.
        if part.is_empty() {
            out.extend(self.held.take().unwrap_or_default());
            return out;
        }
        self.input.extend_from_slice(part);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Ok(Some(split)) = split_frame(rest) {
            let frame = &rest[..HEADER_LEN + split.payload.len()];
            if split.frame_type == FrameType::Ack {
                self.pass_ack(frame, &mut out, counts);
            } else {
                out.extend_from_slice(frame);
            }
            rest = split.rest;
        }
        self.input = rest.to_vec();
        out
    }

    fn pass_ack(&mut self, frame: &[u8], out: &mut Vec<u8>, counts: &Counts) {
        let acks = self.acks;
        let mut changed = true;
        if self.rng.chance(acks.stale) && !self.old.is_empty() {
            let old = self.rng.within(0..self.old.len() as u64) as usize;
            out.extend_from_slice(&self.old[old]);
        }
        if self.old.len() < OLD_MAX {
            self.old.push(frame.to_vec());
        }
        if self.rng.chance(acks.dropped) {
            // Nothing is forwarded.
        } else if self.rng.chance(acks.swapped) && self.held.is_none() {
            self.held = Some(frame.to_vec());
            counts.acks.fetch_add(1, Ordering::Relaxed);
            return;
        } else if self.rng.chance(acks.doubled) {
            out.extend_from_slice(frame);
            out.extend_from_slice(frame);
        } else {
            out.extend_from_slice(frame);
            changed = false;
        }
        out.extend(self.held.take().unwrap_or_default());
        if changed {
            counts.acks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Acks, Counts, Mangler, Rng};
    use etwsieve_transport::wire::frame::{FrameType, split_frame};
    use etwsieve_transport::wire::message::{AckV1, WelcomeV1};
    use etwsieve_transport::wire::{decode_message, encode_message};

    #[test]
    fn only_acks_are_touched_and_frames_stay_whole() {
        let mut sent = Vec::new();
        let welcome = WelcomeV1 { version: 1, epoch: [7; 16], durable: 0, window: 8, quiet_ms: 1000 };
        encode_message(&welcome, &mut sent).expect("it encodes");
        for sequence in 1..=100 {
            encode_message(&AckV1 { epoch: [7; 16], sequence }, &mut sent).expect("it encodes");
        }
        let acks = Acks { dropped: 20, swapped: 20, doubled: 20, stale: 20 };
        let mut mangler = Mangler::new(acks, Rng::new(5));
        let counts = Counts::default();
        let mut received = Vec::new();
        for part in sent.chunks(13) {
            received.extend(mangler.pass(part, &counts));
        }
        received.extend(mangler.pass(&[], &counts));
        let (mut welcomes, mut sequences) = (0, Vec::new());
        let mut rest = received.as_slice();
        while let Some(split) = split_frame(rest).expect("frames are whole") {
            match split.frame_type {
                FrameType::Welcome => welcomes += 1,
                _ => sequences.push(decode_message::<AckV1>(split.payload).expect("it decodes").sequence),
            }
            rest = split.rest;
        }
        assert_eq!((welcomes, rest.len()), (1, 0));
        assert!(sequences.windows(2).any(|pair| pair[0] == pair[1]), "one is doubled");
        assert!(sequences.windows(2).any(|pair| pair[0] > pair[1]), "one is late");
        assert!((1..=100).any(|sequence| !sequences.contains(&sequence)), "one is lost");
        assert!(counts.acks.into_inner() > 10);
    }
}
