//! What a run said so far: the lines of its `progress.jsonl`, read as the child process writes them.

use std::io;
use std::path::Path;

use cloud_hub_trainer::{PROGRESS_FILE, Step};

/// Enough for many thousands of epochs; a longer file is read from its end.
const LIMIT_BYTES: u64 = 4 << 20;

/// The steps so far. A last line that is still being written is left out.
pub fn read(folder: &Path) -> io::Result<Vec<Step>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match std::fs::File::open(folder.join(PROGRESS_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LIMIT_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    // The first line may be cut where the reading began.
    Ok(whole.lines().skip(usize::from(start > 0)).filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_left_for_the_next_reading() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let done = serde_json::to_string(&Step::Done { bytes: 5 }).unwrap();
        std::fs::write(folder.path().join(PROGRESS_FILE), format!("{done}\n{}", &done[..8])).unwrap();
        assert_eq!(read(folder.path()).unwrap(), [Step::Done { bytes: 5 }]);
    }
}
