//! A device's state that its drive gives back otherwise than it was written.

use std::path::Path;

use anyhow::Result;
use edge_agent::state::simdisk::{self, STATE};
use rand::Rng;
use tributary_process::disk::Disk;

use super::Device;

impl Device {
    /// A bit of a batch flips that has no receipt, while the device is off in good order; one that left already only if
    /// `sent`. Which batch; none while there is none.
    pub fn rot_batch(&mut self, sent: bool) -> Result<Option<String>> {
        let Some(life) = &self.life else { return Ok(None) };
        // While the disk fails nobody can say.
        let Ok(mut batches) = simdisk::batches(&life.store) else { return Ok(None) };
        batches.retain(|(stream, number, _)| sent || *number > self.watch.highest(stream));
        if batches.is_empty() {
            return Ok(None);
        }
        let (stream, number, bytes) = batches.swap_remove(self.chance.random_range(0..batches.len()));
        self.stop();
        self.life = None;
        let at = self.chance.random_range(0..bytes.len());
        let file = self.disk.read(Path::new(STATE), u64::MAX)?;
        // Where it lay before its page was written anew, the same bytes may lie still.
        let places: Vec<usize> = (0..file.len()).filter(|place| file[*place..].starts_with(&bytes)).collect();
        places.iter().try_for_each(|place| self.disk.rot(Path::new(STATE), place + at))?;
        self.rotten = true;
        self.begin()?;
        Ok(Some(format!("{stream}/{number}")))
    }

    /// A bit of the state flips, wherever it is, and at this moment the power goes or the program is killed. Where; none
    /// while nothing can be written.
    pub fn rot_anywhere(&mut self) -> Result<Option<usize>> {
        let Some(life) = &self.life else { return Ok(None) };
        // A flaw in what the newest commit alone wrote passes for one that was torn, and costs this commit: a report's.
        if life.store.next_report_number().is_err() {
            return Ok(None);
        }
        let file = self.disk.read(Path::new(STATE), u64::MAX)?;
        let used = file.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let at = self.chance.random_range(0..=used);
        self.disk.rot(Path::new(STATE), at)?;
        let before = std::mem::replace(&mut self.rotten, true);
        if self.chance.random_bool(0.5) {
            self.lose_power()?;
        } else {
            self.kill()?;
        }
        // The start after a program that did not end in order has read all of it, and found nothing.
        self.rotten = before || !self.is_up();
        Ok(Some(at))
    }
}
