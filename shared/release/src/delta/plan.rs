//! Makes the blocks of a patch: for each part of the new package, what takes the fewest bytes.

use std::io;
use std::ops::Range;

use super::DeltaError;
use super::blocks::{self, MAX_BLOCK, MAX_OLD};
use super::layout::{Part, parts};
use super::transform::{Mode, estimate};

/// Modes are compared over so many bytes.
const CHUNK: usize = 4 << 10;
/// A change of mode must save more than the header of a block and the start of new statistics.
const CHANGE: f64 = 8.0 * 256.0;

/// Appends all blocks.
pub(super) fn write(
    old: &[u8],
    new: &[u8],
    out: &mut Vec<u8>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), DeltaError> {
    for part in parts(old, new) {
        let mut at = part.new.start;
        while at < part.new.end {
            let end = part.new.end.min(at + MAX_BLOCK);
            out.append(&mut slice(old, new, &part, at..end).map_err(DeltaError::Make)?);
            if !go_on() {
                return Err(DeltaError::Stopped);
            }
            at = end;
        }
    }
    Ok(())
}

/// The cheapest blocks for a slice of a part: one with the old package as its dictionary, or runs of the other modes.
fn slice(old: &[u8], new: &[u8], part: &Part, range: Range<usize>) -> io::Result<Vec<u8>> {
    let whole = whole(old, new, part, range.clone())?;
    let place = aligned(old, new, part, &range);
    let like = place.map(|place| &old[place..place + range.len()]);
    let mut runs = Vec::new();
    for (mode, run) in runs_of(&new[range.clone()], like) {
        let piece = &new[range.start + run.start..range.start + run.end];
        match (like, place) {
            (Some(like), Some(place)) if Mode::DIFFERENCES.contains(&mode) => {
                blocks::write(mode, piece, &like[run.clone()], place + run.start, &mut runs)?;
            }
            _ => blocks::write(mode, piece, &[], 0, &mut runs)?,
        }
    }
    Ok(if runs.len() < whole.len() { runs } else { whole })
}

fn whole(old: &[u8], new: &[u8], part: &Part, range: Range<usize>) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    let middle = part.old.start + (range.start - part.new.start).min(part.old.len());
    let start = middle.saturating_sub((MAX_OLD - range.len()) / 2);
    let prefix = &old[start.min(old.len())..old.len().min(start + MAX_OLD)];
    let mode = if prefix.is_empty() { Mode::Fresh } else { Mode::Near };
    blocks::write(mode, &new[range], prefix, if prefix.is_empty() { 0 } else { start }, &mut block)?;
    Ok(block)
}

/// Where the old piece of a slice begins: as far from the start of its part, or, where something grew before it, from
/// its end.
fn aligned(old: &[u8], new: &[u8], part: &Part, range: &Range<usize>) -> Option<usize> {
    let from_start = part.old.start + (range.start - part.new.start);
    let from_end = (part.old.end + range.start).checked_sub(part.new.end);
    let mut places: Vec<usize> = [Some(from_start), from_end].into_iter().flatten().collect();
    places.retain(|place| !part.old.is_empty() && place + range.len() <= old.len());
    places.dedup();
    if let [only] = places[..] {
        return Some(only);
    }
    let cost = |place: &usize| {
        let chunks = new[range.clone()].chunks(CHUNK).zip(old[*place..].chunks(CHUNK));
        chunks.map(|(new, old)| best(new, &old[..new.len()]).1).sum::<f64>()
    };
    places.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b)))
}

fn best(new: &[u8], old: &[u8]) -> (Mode, f64) {
    let costs = Mode::DIFFERENCES.map(|mode| (mode, estimate(mode, new, old)));
    costs.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((Mode::Bytes, f64::INFINITY))
}

/// Stretches that one mode fits best, of whole chunks: the cheapest path through the chunks, where a change costs.
fn runs_of(new: &[u8], old: Option<&[u8]>) -> Vec<(Mode, Range<usize>)> {
    let mut modes = Mode::ALONE.to_vec();
    modes.extend(old.map(|_| Mode::DIFFERENCES).into_iter().flatten());
    let mut total = vec![0.0; modes.len()];
    let mut came_from: Vec<Vec<usize>> = Vec::new();
    for (number, new) in new.chunks(CHUNK).enumerate() {
        let old = old.map_or(&[][..], |old| &old[number * CHUNK..][..new.len()]);
        let (cheapest, least) = least_of(&total);
        let stays: Vec<bool> = total.iter().map(|total| *total <= least + CHANGE).collect();
        came_from.push(stays.iter().enumerate().map(|(at, stays)| if *stays { at } else { cheapest }).collect());
        for ((total, stays), mode) in total.iter_mut().zip(stays).zip(&modes) {
            *total = if stays { *total } else { least + CHANGE } + estimate(*mode, new, old);
        }
    }
    let mut mode = least_of(&total).0;
    let mut runs: Vec<(Mode, Range<usize>)> = Vec::new();
    for (chunk, from) in came_from.iter().enumerate().rev() {
        let range = chunk * CHUNK..new.len().min((chunk + 1) * CHUNK);
        match runs.last_mut() {
            Some((last, run)) if *last == modes[mode] => run.start = range.start,
            _ => runs.push((modes[mode], range)),
        }
        mode = from[mode];
    }
    runs.reverse();
    runs
}

fn least_of(costs: &[f64]) -> (usize, f64) {
    costs.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}
