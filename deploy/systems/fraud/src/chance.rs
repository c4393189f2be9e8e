//! Chance from a seed, by integer arithmetic and sums only: the same numbers on every machine and in every release,
//! which neither a library's generators nor a platform's logarithm promises.

/// A stream of random numbers (SplitMix64).
pub(crate) struct Chance {
    state: u64,
}

/// Scatters the bits of a number.
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Chance {
    /// A stream of its own for every combination of parts.
    pub(crate) fn new(parts: &[u64]) -> Self {
        let state = parts.iter().fold(0x5851_f42d_4c95_7f2d, |state, part| mix(state ^ mix(part.wrapping_add(1))));
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// One of `count` places; `count` is not 0.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// Mean 0, deviation 1, never beyond 6: the sum of twelve uniform numbers.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// How many of many rare things happen when `mean` do on average.
    pub(crate) fn count(&mut self, mean: f64) -> usize {
        // A thousand chances of a thousandth each: a Poisson count in all but name, without an exponential.
        let chance = ((mean / 1_000.0).clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64;
        (0..500)
            .map(|_| self.next())
            .map(|pair| usize::from(pair >> 32 < chance) + usize::from(pair & 0xffff_ffff < chance))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_they_claim() {
        let mut chance = Chance::new(&[1, 2]);
        let normals: Vec<_> = (0..20_000).map(|_| chance.normal()).collect();
        let mean = normals.iter().sum::<f64>() / 20_000.0;
        let square = normals.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        let counts: usize = (0..5_000).map(|_| chance.count(2.5)).sum();
        assert!((counts as f64 / 5_000.0 - 2.5).abs() < 0.1, "{counts}");
        assert!((0..1_000).all(|_| chance.index(3) < 3));
        assert_ne!(Chance::new(&[1, 2]).next(), Chance::new(&[2, 1]).next());
    }
}
