//! The package file as a tar: one layout for given members, and nothing else is read back.
//!
//! The same members always give the same bytes: fixed order, no owner, no time, no compression. Reading lays the
//! members out again and compares, so a change in a header, in the padding or behind the end is noticed too.

use std::io::{self, Write};

/// What an archive must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub bytes: usize,
    pub members: usize,
}

/// Why bytes are not an archive of ours.
#[derive(Debug)]
pub(crate) enum ArchiveError {
    TooLong { found: usize, limit: usize },
    TooMany { limit: usize },
    NotTar { source: io::Error },
    BeyondEnd { member: String },
    NotCanonical { offset: usize },
}

/// A member's name and content.
pub(crate) type Member<'a> = (String, &'a [u8]);

pub(crate) fn write(members: &[Member<'_>], out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        tar.append(&header, *content)?;
    }
    tar.into_inner()?.flush()
}

pub(crate) fn read(bytes: &[u8], limits: Limits) -> Result<Vec<Member<'_>>, ArchiveError> {
    if bytes.len() > limits.bytes {
        return Err(ArchiveError::TooLong { found: bytes.len(), limit: limits.bytes });
    }
    // The reader quotes what it found, which may be anything: only what can be printed is repeated.
    let not_tar = |error: io::Error| {
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let words: String = error.to_string().chars().take(120).map(printable).collect();
        ArchiveError::NotTar { source: io::Error::new(error.kind(), words) }
    };
    let mut archive = tar::Archive::new(io::Cursor::new(bytes));
    let mut members = Vec::new();
    for entry in archive.entries_with_seek().map_err(not_tar)? {
        let entry = entry.map_err(not_tar)?;
        if members.len() == limits.members {
            return Err(ArchiveError::TooMany { limit: limits.members });
        }
        let member = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let start = usize::try_from(entry.raw_file_position()).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(entry.size()).ok()?));
        match start.zip(end).and_then(|(start, end)| bytes.get(start..end)) {
            Some(content) => members.push((member, content)),
            None => return Err(ArchiveError::BeyondEnd { member }),
        }
    }
    let mut compare = Compare { expected: bytes, equal: 0 };
    match write(&members, &mut compare) {
        Ok(()) if compare.equal == bytes.len() => Ok(members),
        _ => Err(ArchiveError::NotCanonical { offset: compare.equal }),
    }
}

/// Takes what is written only as long as it equals what is expected.
struct Compare<'a> {
    expected: &'a [u8],
    equal: usize,
}

impl Write for Compare<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let left = &self.expected[self.equal..];
        let same = piece.iter().zip(left).take_while(|(a, b)| a == b).count();
        self.equal += same;
        if same == piece.len() { Ok(same) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1 << 20, members: 3 };

    fn written(members: &[Member<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(members, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn members_come_back_in_order_and_the_same_members_give_the_same_bytes() {
        let members = [("b".to_owned(), &b"two"[..]), ("a".to_owned(), &[7; 1000][..]), ("empty".to_owned(), &[][..])];
        let bytes = written(&members);
        assert_eq!(read(&bytes, LIMITS).unwrap(), members);
        assert_eq!(written(&members), bytes);
    }

    #[test]
    fn size_and_count_are_limited() {
        let members: Vec<_> = (0..4).map(|i| (i.to_string(), &b"x"[..])).collect();
        let bytes = written(&members);
        assert!(matches!(read(&bytes, LIMITS), Err(ArchiveError::TooMany { limit: 3 })));
        let small = Limits { bytes: 100, members: 9 };
        assert!(matches!(read(&bytes, small), Err(ArchiveError::TooLong { limit: 100, .. })));
    }

    #[test]
    fn a_cut_or_longer_archive_is_refused() {
        let bytes = written(&[("a".to_owned(), &[7; 1000][..])]);
        for end in [0, 1, 511, 512, 900, 1536, bytes.len() - 512, bytes.len() - 1] {
            assert!(read(&bytes[..end], LIMITS).is_err(), "{end}");
        }
        let longer = [&bytes[..], &[0; 512]].concat();
        assert!(matches!(read(&longer, LIMITS), Err(ArchiveError::NotCanonical { .. })));
    }

    #[test]
    fn a_member_that_claims_to_be_huge_takes_no_memory() {
        let mut header = tar::Header::new_ustar();
        header.set_path("a").unwrap();
        header.set_size(1 << 33);
        header.set_cksum();
        assert!(read(header.as_bytes(), LIMITS).is_err());
    }
}
