//! The catalog as ingest's ledger.

use std::collections::BTreeSet;

use cloud_hub_lake::{FileEntry, StreamSchema};
use tributary_wire::{DeviceId, Micros, SequenceNumber, Sha256, StreamName};

use super::super::HUB_DEVICE;
use super::{Entry, Ledger, LedgerError, Standing};
use crate::backup::standing;
use crate::catalog::alerts::{self, Raise};
use crate::catalog::batches::{self, Numbering, State};
use crate::catalog::{Catalog, devices, files, quarantine};

impl Ledger for Catalog {
    async fn progress(&self, of: &Numbering) -> Result<Standing, LedgerError> {
        Ok(batches::progress(&mut *self.reader().acquire().await?, of).await?)
    }

    async fn answered(&self, of: &Numbering, sequence: SequenceNumber) -> Result<Option<(Sha256, State)>, LedgerError> {
        let known = batches::answered(&mut *self.reader().acquire().await?, of, sequence).await?;
        Ok(known.and_then(|(hash, state)| Some((Sha256(hash.try_into().ok()?), state))))
    }

    async fn is_kept(&self, device: &DeviceId, hash: &Sha256) -> Result<bool, LedgerError> {
        Ok(quarantine::is_kept(&mut *self.reader().acquire().await?, device, hash).await?)
    }

    async fn kept_bytes(&self, device: &DeviceId) -> Result<u64, LedgerError> {
        Ok(quarantine::bytes_of(&mut *self.reader().acquire().await?, device).await?)
    }

    async fn kept_paths(&self) -> Result<Vec<String>, LedgerError> {
        Ok(quarantine::paths(&mut *self.reader().acquire().await?).await?)
    }

    async fn files(&self) -> Result<Vec<FileEntry>, LedgerError> {
        Ok(files::all(self.reader()).await?)
    }

    async fn schemas(&self) -> Result<Vec<(StreamName, StreamSchema)>, LedgerError> {
        Ok(files::schemas(self.reader()).await?)
    }

    async fn enter(&self, entry: &Entry, now: Micros) -> Result<Vec<FileEntry>, LedgerError> {
        let mut transaction = self.write().await?;
        for device in entry.senders() {
            devices::seen(&mut transaction, device, now).await?;
        }
        for (stream, (schema, had)) in &entry.schemas {
            files::add_columns(&mut transaction, stream, *had, &schema.columns[*had..], now).await?;
        }
        let mut number = files::last_number(&mut transaction).await?;
        let mut entries = Vec::with_capacity(entry.files.len());
        for file in &entry.files {
            number += 1;
            let file = FileEntry { number, ..file.clone() };
            files::insert(&mut transaction, &file, now).await?;
            entries.push(file);
        }
        let mut changed = BTreeSet::new();
        for a in &entry.answers {
            if a.replays && batches::replayed(&mut transaction, &a.of, a.sequence, a.rows).await? {
                continue;
            }
            let (of, received) = (&a.of, a.received);
            if !batches::insert(&mut transaction, of, a.sequence, a.last, &a.hash, a.rows, a.state, received).await? {
                return Err(LedgerError::Raced); // dropping the transaction rolls it back
            }
            batches::insert_gap(&mut transaction, of, (a.sequence, a.last), &a.lost, received).await?;
            changed.insert(of);
        }
        for of in changed {
            if let Some(through) = entry.through.get(of) {
                batches::set_through(&mut transaction, of, *through).await?;
            }
        }
        for kept in &entry.kept {
            quarantine::insert(&mut transaction, kept, now).await?;
        }
        for (device, hash) in &entry.again {
            quarantine::again(&mut transaction, device, hash).await?;
        }
        for id in &entry.replayed {
            quarantine::mark_replayed(&mut transaction, id, now).await?;
        }
        for noted in &entry.noted {
            noted.record(&mut transaction, now).await?;
        }
        if let Some(taken) = &entry.rebuilt {
            let devices = entry.senders().into_iter().filter(|device| device.as_str() != HUB_DEVICE).count();
            standing::begin_anew(&mut transaction, taken, devices as i64, now).await?;
        }
        for alert in entry.alerts() {
            alerts::raise(&mut transaction, alert, now).await?;
        }
        transaction.commit().await?;
        Ok(entries)
    }

    async fn probe(&self) -> Result<(), LedgerError> {
        let mut transaction = self.write().await?;
        sqlx::query("update devices set last_seen = last_seen").execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    async fn raise(&self, alert: Raise<'_>, now: Micros) -> Result<(), LedgerError> {
        let mut transaction = self.write().await?;
        alerts::raise(&mut transaction, alert, now).await?;
        Ok(transaction.commit().await?)
    }

    async fn resolve(&self, kind: &str, subject: &str, now: Micros) -> Result<(), LedgerError> {
        let mut transaction = self.write().await?;
        alerts::resolve(&mut transaction, kind, subject, now).await?;
        Ok(transaction.commit().await?)
    }
}
