//! Samples in, overlapping windows out.

/// A hop that is not from 1 to the window's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hop of {found} samples; from 1 to the window's {length} are possible")]
pub struct WrongHop {
    /// What was asked for.
    pub found: usize,
    /// The window's length.
    pub length: usize,
}

/// The last `N` samples. A window is complete at first after `N` samples, and from then on every `hop` samples, so
/// neighbours share `N - hop` of them.
#[derive(Debug, Clone)]
pub struct Window<T, const N: usize> {
    samples: [T; N],
    /// Where the next sample goes; the oldest one lies there.
    next: usize,
    /// Samples until a window is complete.
    missing: usize,
    hop: usize,
}

impl<T: Copy + Default + Into<i32>, const N: usize> Window<T, N> {
    /// An empty one.
    pub fn new(hop: usize) -> Result<Self, WrongHop> {
        if (1..=N).contains(&hop) {
            Ok(Self { samples: [T::default(); N], next: 0, missing: N, hop })
        } else {
            Err(WrongHop { found: hop, length: N })
        }
    }

    /// Takes a sample; whether a window is complete with it.
    pub fn push(&mut self, sample: T) -> bool {
        self.samples[self.next] = sample;
        self.next = if self.next + 1 == N { 0 } else { self.next + 1 };
        self.missing -= 1;
        let complete = self.missing == 0;
        if complete {
            self.missing = self.hop;
        }
        complete
    }

    /// Forgets what it holds: after a gap in the samples no window may span it.
    pub fn clear(&mut self) {
        (self.next, self.missing) = (0, N);
    }

    /// The samples of the window that was just completed, the oldest first.
    pub fn samples(&self) -> impl Iterator<Item = T> + '_ {
        let (newer, older) = self.samples.split_at(self.next);
        older.iter().chain(newer).copied()
    }

    /// Copies [`Self::samples`] for [`crate::Analysis::features`], which works in place.
    pub fn copy_to(&self, out: &mut [i32; N]) {
        for (out, sample) in out.iter_mut().zip(self.samples()) {
            *out = sample.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete<const N: usize>(window: &mut Window<i16, N>, samples: core::ops::Range<i16>) -> ([[i32; N]; 8], usize) {
        let (mut found, mut count) = ([[0; N]; 8], 0);
        for sample in samples {
            if window.push(sample) {
                window.copy_to(&mut found[count]);
                count += 1;
            }
        }
        (found, count)
    }

    #[test]
    fn windows_overlap_by_length_less_hop() {
        let (found, count) = complete(&mut Window::<i16, 4>::new(3).unwrap(), 0..11);
        assert_eq!(&found[..count], [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]);
    }

    #[test]
    fn after_a_gap_a_window_begins_anew() {
        let mut window = Window::<i16, 4>::new(1).unwrap();
        assert_eq!(complete(&mut window, 0..6).1, 3);
        window.clear();
        let (found, count) = complete(&mut window, 10..14);
        assert_eq!(&found[..count], [[10, 11, 12, 13]]);
    }

    #[test]
    fn a_hop_over_the_length_is_refused() {
        assert_eq!(Window::<i16, 4>::new(5).unwrap_err(), WrongHop { found: 5, length: 4 });
        assert!(Window::<i16, 4>::new(0).is_err());
    }
}
