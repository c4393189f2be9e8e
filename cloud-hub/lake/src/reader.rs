//! Reading many files one after the other, decoding ahead of whoever takes the records.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tributary_process::disk::Disk;

use crate::LakeError;
use crate::columns::fit;
use crate::file::LakeFile;

/// Records decoded and not yet taken; more would only cost memory.
const AHEAD: usize = 2;

/// Records of a scan, in the order of days and then of commits. Ends after the first error.
pub struct Scan {
    schema: SchemaRef,
    records: Receiver<Result<RecordBatch, LakeError>>,
}

impl Scan {
    pub(crate) fn start(disk: Arc<dyn Disk>, paths: Vec<PathBuf>, schema: SchemaRef) -> Self {
        let (sender, records) = sync_channel(AHEAD);
        let wanted = schema.clone();
        thread::spawn(move || {
            for path in paths {
                if let Err(error) = read_file(&*disk, path, &wanted, &sender) {
                    let _ = sender.send(Err(error));
                    return;
                }
            }
        });
        Self { schema, records }
    }

    /// The columns of every record batch that the scan gives.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch, LakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.recv().ok()
    }
}

fn read_file(
    disk: &dyn Disk,
    path: PathBuf,
    schema: &SchemaRef,
    sender: &SyncSender<Result<RecordBatch, LakeError>>,
) -> Result<(), LakeError> {
    let open = disk.open_at(&path).map_err(|source| LakeError::Storage { verb: "open", path: path.clone(), source })?;
    for records in LakeFile::open(&path, open)?.read(&path, schema)? {
        let damaged =
            |error: arrow::error::ArrowError| LakeError::Damaged { path: path.clone(), problem: error.to_string() };
        let records = fit(&records.map_err(damaged)?, schema)?;
        if sender.send(Ok(records)).is_err() {
            return Ok(()); // nobody wants the rest
        }
    }
    Ok(())
}
