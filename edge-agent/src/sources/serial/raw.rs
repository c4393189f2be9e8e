//! Raw windows as files: `SESSION-WINDOW-AXIS.i16`, samples as little-endian numbers.

use std::io;
use std::path::Path;

use edge_agent_core::node::RawWindow;
use tributary_process::durable;

/// Writes a window durably, and removes the oldest beyond `most`.
pub(super) fn keep(folder: &Path, session: u32, window: &RawWindow, most: usize) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let bytes: Vec<u8> = window.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let name = format!("{session:08x}-{:010}-{}.i16", window.window, window.axis);
    durable::write(&folder.join(name), &bytes)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "i16") {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    for (_, path) in files.iter().rev().skip(most.max(1)) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_windows_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for window in 1..=5 {
            let window = RawWindow { window, axis: 2, samples: vec![1, -1], records: vec![] };
            keep(folder.path(), 0xab, &window, 3).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3);
        assert_eq!(names[2], "000000ab-0000000005-2.i16");
        assert_eq!(std::fs::read(folder.path().join(&names[2])).unwrap(), [1, 0, 0xff, 0xff]);
    }
}
