//! Distribution of fingerprints to the buckets of [`Teddy`](super::teddy), and the number of searches that are
//! worthwhile.
//!
//! A bucket passes text that has, at each position, the byte of some member. Fingerprints therefore belong together if
//! they differ in one position only, or in bytes that are rare in scripts. Each fingerprint starts in its own bucket;
//! then the two buckets whose union lets least additional text pass are merged, until few enough are left.

use crate::frequency::byte_likelihood;

/// Number of buckets: the bits of a byte.
pub(super) const BUCKETS: usize = 8;
/// Bytes of a fingerprint.
pub(crate) const LEN: usize = 4;

/// A needle's fingerprint: its bytes from some position on; after its end, any byte matches.
pub(crate) type Fingerprint = [Option<u8>; LEN];

/// Maximum number of initial buckets; further fingerprints are merged into one immediately.
const BEGINNING_MAX: usize = 128;
/// Maximum number of searches for one set of fingerprints.
const SEARCHES_MAX: usize = 4;
/// Cost of a search per position of the text, in candidates.
const SEARCH_COST: f64 = 0.008;

/// Fingerprints that share a bit.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) members: Vec<Fingerprint>,
    /// For each position, the low and the high halves of the members' bytes.
    halves: [[u16; 2]; LEN],
    likelihood: f64,
}

/// Distributes the fingerprints to the buckets of as many searches as are worthwhile.
pub(super) fn divide(fingerprints: &[Fingerprint]) -> Vec<Vec<Bucket>> {
    let likelihoods = Likelihoods::new();
    let mut merging = Merging::new(fingerprints, &likelihoods);
    let mut best: Option<(f64, Vec<Bucket>)> = None;
    for searches in (1..=SEARCHES_MAX).rev() {
        merging.until(searches * BUCKETS);
        let needed = merging.buckets.len().div_ceil(BUCKETS) as f64;
        let cost = needed * SEARCH_COST + passing(&merging.buckets);
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, merging.buckets.clone()));
        }
    }
    let buckets = best.map(|(_, buckets)| buckets).unwrap_or_default();
    buckets.chunks(BUCKETS).map(<[Bucket]>::to_vec).collect()
}

/// Distributes the fingerprints to the buckets of one search.
pub(super) fn of_one_search(fingerprints: &[Fingerprint]) -> Vec<Bucket> {
    let likelihoods = Likelihoods::new();
    let mut merging = Merging::new(fingerprints, &likelihoods);
    merging.until(BUCKETS);
    merging.buckets
}

/// Returns the estimated probability that a position passes.
pub(super) fn passing(buckets: &[Bucket]) -> f64 {
    buckets.iter().map(|bucket| bucket.likelihood).sum()
}

/// Buckets, with the costs of merging each pair.
struct Merging<'a> {
    buckets: Vec<Bucket>,
    /// For each bucket, the costs of merging it with each of those before it.
    costs: Vec<Vec<f64>>,
    likelihoods: &'a Likelihoods,
}

impl<'a> Merging<'a> {
    fn new(fingerprints: &[Fingerprint], likelihoods: &'a Likelihoods) -> Self {
        let mut buckets: Vec<Bucket> = Vec::new();
        for &fingerprint in fingerprints {
            let new = likelihoods.bucket(fingerprint);
            if buckets.len() < BEGINNING_MAX {
                buckets.push(new);
                continue;
            }
            let cost = |bucket: &&mut Bucket| likelihoods.cost(bucket, &new);
            if let Some(cheapest) = buckets.iter_mut().min_by(|a, b| cost(a).total_cmp(&cost(b))) {
                *cheapest = likelihoods.union(cheapest, &new);
            }
        }
        let with_earlier = |(number, bucket): (usize, &Bucket)| {
            buckets[..number].iter().map(|earlier| likelihoods.cost(earlier, bucket)).collect()
        };
        Self { costs: buckets.iter().enumerate().map(with_earlier).collect(), buckets, likelihoods }
    }

    fn until(&mut self, most: usize) {
        while self.buckets.len() > most {
            let all = self.costs.iter().enumerate();
            let all = all
                .flat_map(|(late, row)| row.iter().enumerate().map(move |(early, cost)| (cost, early, late)));
            let Some((_, early, late)) = all.min_by(|a, b| a.0.total_cmp(b.0)) else { return };
            self.merge(early, late);
        }
    }

    fn merge(&mut self, early: usize, late: usize) {
        self.buckets[early] = self.likelihoods.union(&self.buckets[early], &self.buckets[late]);
        self.buckets.remove(late);
        self.costs.remove(late);
        for row in &mut self.costs[late..] {
            row.remove(late);
        }
        for other in (0..self.buckets.len()).filter(|other| *other != early) {
            let cost = self.likelihoods.cost(&self.buckets[early], &self.buckets[other]);
            self.costs[early.max(other)][early.min(other)] = cost;
        }
    }
}

/// The probability of each byte, by its high and its low half.
struct Likelihoods([[f64; 16]; 16]);

impl Likelihoods {
    fn new() -> Self {
        let of = |high: usize, low: usize| byte_likelihood((high << 4 | low) as u8);
        Self(std::array::from_fn(|high| std::array::from_fn(|low| of(high, low))))
    }

    fn bucket(&self, fingerprint: Fingerprint) -> Bucket {
        let halves = fingerprint.map(|byte| match byte {
            Some(byte) => [1 << (byte & 15), 1 << (byte >> 4)],
            None => [u16::MAX; 2],
        });
        Bucket { members: vec![fingerprint], likelihood: self.passing(&halves), halves }
    }

    fn union(&self, a: &Bucket, b: &Bucket) -> Bucket {
        let halves = united(a, b);
        Bucket { members: [&a.members[..], &b.members].concat(), likelihood: self.passing(&halves), halves }
    }

    /// Returns how much more text the union of two buckets lets pass than they do separately.
    fn cost(&self, a: &Bucket, b: &Bucket) -> f64 {
        self.passing(&united(a, b)) - a.likelihood - b.likelihood
    }

    fn passing(&self, halves: &[[u16; 2]; LEN]) -> f64 {
        halves.iter().map(|set| self.of_place(*set)).product()
    }

    fn of_place(&self, [lows, highs]: [u16; 2]) -> f64 {
        if [lows, highs] == [u16::MAX; 2] {
            return 1.0;
        }
        let in_set = |set: u16| move |half: &usize| set >> half & 1 != 0;
        let of_high =
            |high: usize| -> f64 { (0..16).filter(in_set(lows)).map(|low| self.0[high][low]).sum() };
        (0..16).filter(in_set(highs)).map(of_high).sum()
    }
}

fn united(a: &Bucket, b: &Bucket) -> [[u16; 2]; LEN] {
    std::array::from_fn(|place| [0, 1].map(|half| a.halves[place][half] | b.halves[place][half]))
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Fingerprint, SEARCHES_MAX, divide};

    fn fingerprints(texts: &[&str]) -> Vec<Fingerprint> {
        texts.iter().map(|text| std::array::from_fn(|place| text.as_bytes().get(place).copied())).collect()
    }

    #[test]
    fn fingerprints_that_differ_in_one_byte_share_a_bucket() {
        let mut texts: Vec<String> = ('a'..='z').chain('0'..='9').map(|c| format!("{c}`")).collect();
        texts.extend(('0'..='9').map(|c| format!("{c}}}{{")));
        texts.extend(["clip", "&&", "wget", "irm ", "hidd", "curl"].map(str::to_owned));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let [search] = &divide(&fingerprints(&texts))[..] else { panic!("one search") };
        let members = |len| search.iter().filter(|bucket| bucket.members.len() == len).count();
        assert_eq!((search.len(), members(36), members(10), members(1)), (8, 1, 1, 6));
    }

    #[test]
    fn all_fingerprints_are_kept() {
        for count in [0, 1, 8, 9, 100, 300] {
            let texts: Vec<String> = (0..count).map(|number| format!("{:04}", number * 37 % 1000)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let searches = divide(&fingerprints(&texts));
            assert!(searches.len() <= SEARCHES_MAX && searches.iter().all(|search| search.len() <= BUCKETS));
            let mut kept: Vec<Fingerprint> =
                searches.iter().flatten().flat_map(|bucket| bucket.members.clone()).collect();
            let mut all = fingerprints(&texts);
            kept.sort_unstable();
            all.sort_unstable();
            assert_eq!(kept, all);
        }
    }
}
