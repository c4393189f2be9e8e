//! Which files count, and how they come to be.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Fields, Schema, SchemaRef};
use tributary_process::disk::{self, Access, Disk, create_folder_below};
use tributary_wire::{Micros, Sha256, StreamName};
use ulid::Ulid;

use crate::days::{DaySlice, add_rowless, day_name, split_by_day};
use crate::file::{self, BatchKey, Footer, LakeFile, Rowless};
use crate::names::Names;
use crate::schema::StreamSchema;
use crate::{LakeError, Scan};

/// A file that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Place in the order of commits; 0 until committed.
    pub number: i64,
    /// Path below the lake's folder.
    pub path: String,
    /// Stream of all rows.
    pub stream: StreamName,
    /// UTC day of all rows, since 1970-01-01.
    pub day: i64,
    /// How many rows.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Earliest event time.
    pub min_time: Micros,
    /// Latest event time.
    pub max_time: Micros,
}

/// Where the folder and what counts differ: paths below the lake's folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// There, but not counting: left behind by a crash.
    pub unregistered: Vec<String>,
    /// Counting, but not there: lost by the disk or removed by hand.
    pub missing: Vec<String>,
}

/// One batch, decoded, on its way into files.
#[derive(Debug, Clone)]
pub struct Portion {
    /// Its name.
    pub key: BatchKey,
    /// Hash of its body as it travelled.
    pub hash: Sha256,
    /// When the hub took it in.
    pub ingest_time: Micros,
    /// Its rows, with the lake's own columns.
    pub records: RecordBatch,
}

/// A file that is durable but does not count yet.
#[derive(Debug, Clone)]
pub struct Written {
    /// What to commit.
    pub entry: FileEntry,
    /// What is inside, still in memory.
    pub records: RecordBatch,
}

/// The lake on a disk.
pub struct Lake {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
    names: Names,
    /// Files that do not count and could not be removed.
    pub(crate) left: Mutex<BTreeSet<String>>,
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    schemas: BTreeMap<StreamName, StreamSchema>,
    /// In commit order.
    files: BTreeMap<StreamName, Vec<FileEntry>>,
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lake").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Lake {
    /// A lake in a folder. Until files are registered it is empty, whatever the folder holds.
    pub fn open(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self, LakeError> {
        let root = root.into();
        let above = root.parent().unwrap_or(&root);
        create_folder_below(&*disk, above, &root).map_err(|source| LakeError::Storage {
            verb: "create",
            path: root.clone(),
            source,
        })?;
        Ok(Self { disk, root, names: Names::default(), left: Mutex::default(), index: RwLock::default() })
    }

    /// Names new files so, for a simulation that is to give the same files each time.
    pub fn naming(self, names: impl Fn() -> Ulid + Send + Sync + 'static) -> Self {
        Self { names: Names::made_by(names), ..self }
    }

    /// The name of a new file, here or beside: it sorts behind all that were given or are known to [`Self::compare`].
    pub fn new_name(&self) -> Ulid {
        self.names.next()
    }

    /// The disk below.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The lake's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Declares the columns of a stream.
    pub fn set_schema(&self, stream: &StreamName, schema: StreamSchema) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).schemas.insert(stream.clone(), schema);
    }

    /// The columns of a stream; none for one that nobody sent yet.
    pub fn schema(&self, stream: &StreamName) -> StreamSchema {
        self.read_index().schemas.get(stream).cloned().unwrap_or_default()
    }

    /// All streams that have columns.
    pub fn streams(&self) -> Vec<StreamName> {
        self.read_index().schemas.keys().cloned().collect()
    }

    /// Makes committed files count. They come in commit order.
    pub fn register(&self, entries: impl IntoIterator<Item = FileEntry>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            index.files.entry(entry.stream.clone()).or_default().push(entry);
        }
    }

    /// Files of a stream whose rows lie on the days given, by day and then in commit order.
    pub fn files(&self, stream: &StreamName, days: RangeInclusive<i64>) -> Vec<FileEntry> {
        let index = self.read_index();
        let files = index.files.get(stream).map_or(&[][..], Vec::as_slice);
        let mut files: Vec<_> = files.iter().filter(|file| days.contains(&file.day)).cloned().collect();
        files.sort_by_key(|file| (file.day, file.number));
        files
    }

    /// Files of a stream that were committed after file `number`, in commit order.
    pub fn files_after(&self, stream: &StreamName, number: i64) -> Vec<FileEntry> {
        let index = self.read_index();
        let files = index.files.get(stream).map_or(&[][..], Vec::as_slice);
        files[files.partition_point(|file| file.number <= number)..].to_vec()
    }

    /// Number of the newest file of a stream that counts; 0 when there is none.
    pub fn last_number(&self, stream: &StreamName) -> i64 {
        self.read_index().files.get(stream).and_then(|files| files.last()).map_or(0, |file| file.number)
    }

    fn read_index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches of one stream, durably, one file per day, and reads each file's end back. What was written
    /// does not count until it is committed and registered. On an error nothing counts and nothing is left.
    ///
    /// `rowless` are numbers of the stream that are answered for with them; when there are no rows at all, a file
    /// without any says so.
    pub fn write(
        &self,
        stream: &StreamName,
        schema: &StreamSchema,
        portions: &[Portion],
        rowless: Vec<Rowless>,
    ) -> Result<Vec<Written>, LakeError> {
        let schema = schema.arrow();
        let mut written: Vec<Written> = Vec::new();
        let mut days = split_by_day(stream, portions)?;
        add_rowless(&mut days, stream, rowless);
        for (day, slice) in days {
            match self.write_file(stream, day, &schema, slice) {
                Ok(file) => written.push(file),
                Err(error) => {
                    written.iter().for_each(|file| self.discard(&file.entry.path));
                    return Err(error);
                }
            }
        }
        Ok(written)
    }

    fn write_file(
        &self,
        stream: &StreamName,
        day: i64,
        schema: &SchemaRef,
        slice: DaySlice,
    ) -> Result<Written, LakeError> {
        let path = format!("{stream}/day={}/{}.parquet", day_name(day), self.new_name());
        let full = self.root.join(&path);
        let folder = full.parent().unwrap_or(&self.root);
        let failed = |verb: &'static str| {
            let path = full.clone();
            move |source| LakeError::Storage { verb, path, source }
        };
        let bytes = file::encode(schema, &slice.records, &slice.footer)?;
        create_folder_below(&*self.disk, &self.root, folder).map_err(failed("create the folder of"))?;
        if let Err(error) = disk::replace(&*self.disk, &full, &bytes, Access::Everyone) {
            // It may have got its name and not know it.
            self.discard(&path);
            return Err(failed("write")(error));
        }
        let fitted: Vec<_> =
            slice.records.iter().map(|records| crate::columns::fit(records, schema)).collect::<Result<_, _>>()?;
        let records = concat_batches(schema, &fitted)?;
        let entry = FileEntry {
            number: 0,
            path,
            stream: stream.clone(),
            day,
            rows: records.num_rows() as u64,
            bytes: bytes.len() as u64,
            min_time: Micros(slice.footer.min_time),
            max_time: Micros(slice.footer.max_time),
        };
        if let Err(error) = self.verify(&entry) {
            self.discard(&entry.path);
            return Err(error);
        }
        Ok(Written { entry, records })
    }

    /// Opens a file and compares its row count with what was written.
    pub fn verify(&self, entry: &FileEntry) -> Result<(), LakeError> {
        let (path, file) = self.open_file(&entry.path)?;
        match file.rows() {
            found if found != entry.rows => Err(LakeError::Rows { path, expected: entry.rows, found }),
            _ => Ok(()),
        }
    }

    /// Compares the folder with what counts.
    pub fn compare(&self) -> Result<Differences, LakeError> {
        let failed = |source| LakeError::Storage { verb: "list", path: self.root.clone(), source };
        let there = disk::walk(&*self.disk, &self.root).map_err(failed)?;
        let there: BTreeSet<&str> =
            there.iter().filter_map(|path| path.strip_prefix(&self.root).ok()?.to_str()).collect();
        let index = self.read_index();
        let known: BTreeSet<&str> = index.files.values().flatten().map(|file| file.path.as_str()).collect();
        there.iter().chain(&known).for_each(|path| self.names.found(path));
        let names = |paths: &mut dyn Iterator<Item = &&str>| paths.map(|path| (*path).to_owned()).collect();
        Ok(Differences {
            unregistered: names(&mut there.difference(&known)),
            missing: names(&mut known.difference(&there)),
        })
    }

    /// Makes files durable that nobody knows of, before they count: whoever left them may have died before it was done.
    pub fn settle(&self, paths: &[String]) -> Result<(), LakeError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| self.root.join(path)).collect();
        let failed = |source| LakeError::Storage { verb: "sync", path: self.root.clone(), source };
        disk::settle_names(&*self.disk, &self.root, &paths).map_err(failed)
    }

    /// What a file says about itself, for a catalog that was lost: its entry, its footer and its columns.
    pub fn describe(&self, path: &str) -> Result<(FileEntry, Footer, StreamSchema), LakeError> {
        let (full, file) = self.open_file(path)?;
        let bytes = self.disk.length(&full).unwrap_or_default();
        let footer = file.footer(&full)?;
        let entry = FileEntry {
            number: 0,
            path: path.to_owned(),
            stream: footer.stream.clone(),
            day: footer.day,
            rows: file.rows(),
            bytes,
            min_time: Micros(footer.min_time),
            max_time: Micros(footer.max_time),
        };
        Ok((entry, footer, file.stream_schema()))
    }

    /// What the footer of a file says, and how many rows the file has.
    pub fn footer(&self, path: &str) -> Result<(Footer, u64), LakeError> {
        let (full, file) = self.open_file(path)?;
        Ok((file.footer(&full)?, file.rows()))
    }

    fn open_file(&self, path: &str) -> Result<(PathBuf, LakeFile), LakeError> {
        let full = self.root.join(path);
        let open = self.disk.open_at(&full);
        let open = open.map_err(|source| LakeError::Storage { verb: "open", path: full.clone(), source })?;
        let file = LakeFile::open(&full, open)?;
        Ok((full, file))
    }

    /// All records of one file, with all columns that the stream has now.
    pub fn read(&self, entry: &FileEntry) -> Result<RecordBatch, LakeError> {
        let schema = self.schema(&entry.stream).arrow();
        let scan = Scan::start(self.disk.clone(), vec![self.root.join(&entry.path)], schema.clone());
        let records: Vec<_> = scan.collect::<Result<_, _>>()?;
        Ok(concat_batches(&schema, &records)?)
    }

    /// Records of a stream on the days given (UTC days since 1970-01-01), all columns or those named, by day and
    /// then in commit order: not in the order of event time. Columns that a file lacks are empty.
    pub fn scan(
        &self,
        stream: &StreamName,
        days: RangeInclusive<i64>,
        columns: Option<&[&str]>,
    ) -> Result<Scan, LakeError> {
        let whole = self.schema(stream).arrow();
        let schema = match columns {
            None => whole,
            Some(columns) => {
                let field = |name: &&str| {
                    whole.field_with_name(name).cloned().map_err(|_| LakeError::NoColumn {
                        stream: stream.to_string(),
                        column: (*name).to_owned(),
                        known: whole.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "),
                    })
                };
                Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Fields, _>>()?))
            }
        };
        let paths = self.files(stream, days).iter().map(|file| self.root.join(&file.path)).collect();
        Ok(Scan::start(self.disk.clone(), paths, schema))
    }
}

#[cfg(test)]
mod tests;
