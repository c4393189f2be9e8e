//! The unit of a node's samples outlives the agent: a node tells it once a session, and goes on with that session when
//! the agent was restarted.

use std::io;
use std::path::Path;

use tributary_process::durable;

const FILE: &str = "unit";

/// Keeps what one count is, in nm/s², before the record that told it is acknowledged.
pub(super) fn remember(folder: &Path, session: u32, count: u32) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    durable::write(&folder.join(FILE), format!("{session:08x} {count}\n").as_bytes())
}

/// What one count is in this session, if it was told.
pub(super) fn remembered(folder: &Path, session: u32) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join(FILE)).ok()?;
    let (of, count) = text.trim().split_once(' ')?;
    if u32::from_str_radix(of, 16) == Ok(session) { count.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_remembered_for_its_session_only() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(remembered(folder.path(), 7), None);
        remember(folder.path(), 7, 38_245_935).unwrap();
        assert_eq!((remembered(folder.path(), 7), remembered(folder.path(), 8)), (Some(38_245_935), None));
    }
}
