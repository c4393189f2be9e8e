//! What happens to a hub.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use cloud_hub::ingest::MemoryLedger;
use rand::Rng;
use tributary_process::disk::{Disk, folder_of, walk};

use super::{Breakage, Hub, LAKE, LEDGER};

impl Hub {
    /// The disk refuses everything after so many more changes.
    pub fn fail_disk(&mut self, changes: u64) {
        self.ailing = true;
        self.disk.fail_after(changes);
    }

    /// One change of the disk fails, after so many more.
    pub fn fail_once(&mut self, changes: u64) {
        self.disk.fail_once(changes, ErrorKind::Other);
    }

    /// The disk is full after so many more bytes.
    pub fn fill_disk(&mut self, bytes: u64) {
        self.ailing = true;
        self.disk.set_capacity(Some(self.disk.used() + bytes));
    }

    /// The disk works, and has room.
    pub fn mend_disk(&mut self) {
        self.ailing = false;
        self.disk.mend();
        self.disk.set_capacity(None);
    }

    fn forget_messages(&mut self) {
        self.inbox.clear();
        self.gather(&self.config.clone());
        self.in_hand = None;
        self.late.clear();
    }

    /// The power goes. What was not synced is lost, or some of it, and what was not dealt with too.
    pub fn lose_power(&mut self) -> Result<()> {
        self.forget_messages();
        let seed = self.chance.random_bool(0.7).then(|| self.chance.random());
        self.disk.crash(seed);
        self.life = None;
        Ok(())
    }

    /// The program is killed; the machine goes on.
    pub fn kill(&mut self) -> Result<()> {
        self.forget_messages();
        self.disk.kill();
        self.life = None;
        Ok(())
    }

    /// The program is killed after so many more changes of the disk.
    pub fn kill_after(&mut self, changes: u64) {
        self.disk.kill_after(changes);
    }

    /// Whether the catalog can be lost: a disk that fails would take no new one.
    pub fn takes_catalog(&self) -> bool {
        !self.ailing
    }

    /// The power goes, and the catalog with it: the next start finds a new one beside the lake.
    pub fn lose_catalog(&mut self) -> Result<()> {
        self.put_back()?;
        let short = match self.breakage {
            Some(Breakage::RebuiltShort) => walk(&self.disk, Path::new(LAKE))?.into_iter().next(),
            Some(Breakage::ForgetsReplaced) => self.file_of_the_replaced()?,
            _ => None,
        };
        self.lose_power()?;
        self.ledger = MemoryLedger::create(Arc::new(self.disk.clone()), LEDGER)?;
        self.through.clear();
        if let Some(file) = short {
            self.disk.remove(&file)?;
            self.disk.sync_folder(folder_of(&file))?;
        }
        Ok(())
    }
}
