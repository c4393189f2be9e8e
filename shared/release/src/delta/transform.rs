//! What a block looks like beside its old piece, so that little is left to compress.
//!
//! After a retraining nearly every weight differs, but most by little: the low bytes of the differences are noise, the
//! high ones nearly always zero. Taken apart, the high ones all but vanish.

/// How a block is told from its old piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As it is, without the old package.
    Fresh,
    /// As it is, with the old piece in front of it as a dictionary.
    Near,
    /// Byte by byte, the difference from the old piece: for int8 weights.
    Bytes,
    /// As f32 that begin at this byte (0 to 3): the difference in the order of numbers, its four bytes apart.
    Words(u8),
    /// As f32 that begin at this byte, their four bytes apart, without the old package.
    Apart(u8),
}

impl Mode {
    /// Those that need no old piece.
    pub const ALONE: [Self; 5] = [Self::Fresh, Self::Apart(0), Self::Apart(1), Self::Apart(2), Self::Apart(3)];
    /// Those that need one of the same length.
    pub const DIFFERENCES: [Self; 5] = [Self::Bytes, Self::Words(0), Self::Words(1), Self::Words(2), Self::Words(3)];

    pub fn code(self) -> u8 {
        match self {
            Self::Fresh => 0,
            Self::Near => 1,
            Self::Bytes => 2,
            Self::Words(phase) => 3 + phase,
            Self::Apart(phase) => 7 + phase,
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Fresh,
            1 => Self::Near,
            2 => Self::Bytes,
            3..=6 => Self::Words(code - 3),
            7..=10 => Self::Apart(code - 7),
            _ => return None,
        })
    }

    /// Lengths of the pieces that a block of this length is taken apart into.
    pub fn pieces(self, length: usize) -> Vec<usize> {
        match self {
            Self::Words(phase) | Self::Apart(phase) => {
                let words = words(phase, length);
                vec![length - 4 * words, words, words, words, words]
            }
            _ => vec![length],
        }
    }
}

fn words(phase: u8, length: usize) -> usize {
    length.saturating_sub(phase.into()) / 4
}

/// Takes a block apart. For differences `old` is as long as `new`.
pub(super) fn split(mode: Mode, new: &[u8], old: &[u8]) -> Vec<Vec<u8>> {
    let difference =
        |new: &[u8], old: &[u8]| new.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)).collect::<Vec<u8>>();
    let (Mode::Words(phase) | Mode::Apart(phase)) = mode else {
        return vec![if mode == Mode::Bytes { difference(new, old) } else { new.to_vec() }];
    };
    let count = words(phase, new.len());
    let (head, end) = head_and_end(phase, count);
    let mut pieces = vec![match mode {
        Mode::Apart(_) => [&new[..head], &new[end..]].concat(),
        _ => [difference(&new[..head], &old[..head]), difference(&new[end..], &old[end..])].concat(),
    }];
    pieces.extend((0..4).map(|_| Vec::with_capacity(count)));
    if let Mode::Apart(_) = mode {
        for word in new[head..end].as_chunks::<4>().0 {
            word.iter().zip(&mut pieces[1..]).for_each(|(byte, piece)| piece.push(*byte));
        }
        return pieces;
    }
    for (new, old) in new[head..end].as_chunks::<4>().0.iter().zip(old[head..end].as_chunks::<4>().0) {
        let bytes = distance(u32::from_le_bytes(*new), u32::from_le_bytes(*old)).to_le_bytes();
        bytes.into_iter().zip(&mut pieces[1..]).for_each(|(byte, piece)| piece.push(byte));
    }
    pieces
}

/// Puts a block together again.
pub(super) fn join(mode: Mode, pieces: Vec<Vec<u8>>, old: &[u8]) -> Vec<u8> {
    let mut pieces = pieces.into_iter();
    let first = pieces.next().unwrap_or_default();
    let sum = |(difference, old): (&u8, &u8)| difference.wrapping_add(*old);
    let (Mode::Words(phase) | Mode::Apart(phase)) = mode else {
        return if mode == Mode::Bytes { first.iter().zip(old).map(sum).collect() } else { first };
    };
    let planes: Vec<Vec<u8>> = pieces.collect();
    let count = planes.first().map_or(0, Vec::len);
    let (head, end) = head_and_end(phase, count);
    let word = |at: usize| {
        [0, 1, 2, 3].map(|plane: usize| planes.get(plane).and_then(|plane| plane.get(at)).copied().unwrap_or(0))
    };
    let head = head.min(first.len());
    let mut new = Vec::with_capacity(first.len() + 4 * count);
    if let Mode::Apart(_) = mode {
        new.extend(&first[..head]);
        (0..count).for_each(|at| new.extend(word(at)));
        new.extend(&first[head..]);
        return new;
    }
    let end = end.min(old.len()).max(head);
    new.extend(first[..head].iter().zip(&old[..head]).map(sum));
    for (at, old) in old[head..end].as_chunks::<4>().0.iter().enumerate() {
        let distance = u32::from_le_bytes(word(at));
        new.extend(moved(u32::from_le_bytes(*old), distance).to_le_bytes());
    }
    new.extend(first[head..].iter().zip(&old[end..]).map(sum));
    new
}

/// Where the words begin and end. A block too short for one word is all head.
fn head_and_end(phase: u8, count: usize) -> (usize, usize) {
    let head = if count == 0 { 0 } else { usize::from(phase) };
    (head, head + 4 * count)
}

/// Bits of an f32 in the order of numbers: neighbouring numbers are neighbouring integers, across zero too.
fn ordered(bits: u32) -> u32 {
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn unordered(ordered: u32) -> u32 {
    if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered }
}

/// How far `new` lies from `old`, small for both directions.
fn distance(new: u32, old: u32) -> u32 {
    let difference = ordered(new).wrapping_sub(ordered(old)) as i32;
    ((difference << 1) ^ (difference >> 31)) as u32
}

fn moved(old: u32, distance: u32) -> u32 {
    let difference = (distance >> 1) ^ (distance & 1).wrapping_neg();
    unordered(ordered(old).wrapping_add(difference))
}

/// Bits that an ideal coder of single bytes needs for a block; compares modes quickly.
pub(super) fn estimate(mode: Mode, new: &[u8], old: &[u8]) -> f64 {
    split(mode, new, old).iter().map(|piece| entropy(piece)).sum()
}

fn entropy(piece: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    piece.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = piece.len() as f64;
    counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) * (total / f64::from(*count)).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_puts_together_what_it_took_apart() {
        let noise = |seed: u32| (0..999u32).map(move |at| (at.wrapping_mul(seed) >> 7) as u8).collect::<Vec<_>>();
        let (new, old) = (noise(2_654_435_761), noise(40_503 * 65_537));
        for length in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 999] {
            for mode in [Mode::Near].into_iter().chain(Mode::ALONE).chain(Mode::DIFFERENCES) {
                let pieces = split(mode, &new[..length], &old[..length]);
                assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), mode.pieces(length), "{mode:?} {length}");
                assert_eq!(join(mode, pieces, &old[..length]), &new[..length], "{mode:?} {length}");
                assert_eq!(Mode::from_code(mode.code()), Some(mode));
            }
        }
        assert_eq!(Mode::from_code(11), None);
    }

    #[test]
    fn numbers_that_moved_a_little_leave_their_high_bytes_empty() {
        let old: Vec<f32> = (0..1000).map(|at| (at as f32 * 0.37).sin()).collect();
        let new: Vec<f32> = old.iter().map(|x| x + x.abs() * 1e-5 * (x * 1e3).sin()).collect();
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
        let pieces = split(Mode::Words(0), &bytes(&new), &bytes(&old));
        assert!(pieces[3].iter().chain(&pieces[4]).all(|byte| *byte == 0));
        for (new, old) in [(1.0f32, -1.0f32), (0.0, -0.0), (f32::MIN, f32::MAX), (f32::NAN, 3.0)] {
            assert_eq!(moved(old.to_bits(), distance(new.to_bits(), old.to_bits())), new.to_bits());
        }
        let estimates = Mode::DIFFERENCES.map(|mode| estimate(mode, &bytes(&new), &bytes(&old)));
        assert!(estimates[2..].iter().all(|other| estimates[1] < *other), "the phase is found: {estimates:?}");
    }
}
