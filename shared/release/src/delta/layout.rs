//! Which part of the old package belongs to which part of the new one.

use std::ops::Range;

/// A part of the new package and its like in the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub new: Range<usize>,
    pub old: Range<usize>,
}

/// Members of the same name belong together, each with its header. What is no archive is one part.
pub(super) fn parts(old: &[u8], new: &[u8]) -> Vec<Part> {
    let (before, after) = (members(old), members(new));
    let Some(first) = after.first() else {
        return vec![Part { new: 0..new.len(), old: 0..old.len() }];
    };
    let mut parts = Vec::with_capacity(after.len() + 1);
    if first.1.start > 0 {
        parts.push(Part { new: 0..first.1.start, old: 0..before.first().map_or(0, |(_, range)| range.start) });
    }
    for (at, (name, range)) in after.iter().enumerate() {
        // Up to the next member, so that padding and the end of the archive go along.
        let end = after.get(at + 1).map_or(new.len(), |(_, next)| next.start);
        let like = before.iter().position(|(other, _)| other == name);
        let old_range = match like {
            Some(like) => before[like].1.start..before.get(like + 1).map_or(old.len(), |(_, next)| next.start),
            None => 0..0,
        };
        parts.push(Part { new: range.start..end, old: old_range });
    }
    parts
}

/// Names of the members of an archive and where they lie, header included; none where it is not one.
fn members(bytes: &[u8]) -> Vec<(Vec<u8>, Range<usize>)> {
    let mut archive = tar::Archive::new(std::io::Cursor::new(bytes));
    let Ok(entries) = archive.entries_with_seek() else { return Vec::new() };
    let mut members: Vec<(Vec<u8>, Range<usize>)> = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else { return Vec::new() };
        let place = |at: u64| usize::try_from(at).ok().filter(|at| *at <= bytes.len());
        let (start, content) = (place(entry.raw_header_position()), place(entry.raw_file_position()));
        let end = content.and_then(|content| content.checked_add(usize::try_from(entry.size()).ok()?));
        let after = members.last().map_or(0, |(_, range)| range.end);
        match (start, end) {
            (Some(start), Some(end)) if after <= start && start < end && end <= bytes.len() => {
                members.push((entry.path_bytes().into_owned(), start..end));
            }
            _ => return Vec::new(),
        }
    }
    members
}
