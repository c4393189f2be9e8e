//! A dataset as a hash and as a Parquet file.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256 as Hasher};
use tributary_process::disk::{self, Access, Disk, create_folder_below};
use tributary_wire::{FieldType, Sha256};

use super::{Dataset, StoredDataset};
use crate::LakeError;
use crate::schema::data_type;

impl Dataset {
    /// Hash of the rows themselves: view, columns, and every row in order, whatever file format holds them.
    pub fn content_hash(&self) -> Sha256 {
        let mut hasher = Hasher::new();
        let text = |hasher: &mut Hasher, text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        };
        text(&mut hasher, "dataset-v1");
        text(&mut hasher, self.spec.view.source());
        hasher.update((self.rows.len() as u64).to_le_bytes());
        for (at, row) in self.rows.iter().enumerate() {
            text(&mut hasher, &row.event_id);
            hasher.update(row.event_time.0.to_le_bytes());
            text(&mut hasher, &row.device);
            hasher.update([row.label.map_or(2, u8::from)]);
            // Rows of before there was sampling keep their hash.
            if row.inclusion < 1.0 {
                hasher.update(row.inclusion.to_bits().to_le_bytes());
            }
            self.features(at).iter().for_each(|value| hasher.update(value.to_bits().to_le_bytes()));
        }
        Sha256(hasher.finalize().into())
    }

    /// Columns `event_id`, `event_time`, `device`, one per feature, `label`, `inclusion`.
    pub fn to_records(&self) -> Result<RecordBatch, LakeError> {
        let width = self.spec.view.features().len();
        let texts = |text: fn(&super::DatasetRow) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.rows.iter().map(text)))
        };
        let times = TimestampMicrosecondArray::from_iter_values(self.rows.iter().map(|row| row.event_time.0));
        let mut fields: Vec<FieldRef> = vec![
            Arc::new(Field::new("event_id", DataType::Utf8, false)),
            Arc::new(Field::new("event_time", data_type(FieldType::Time), false)),
            Arc::new(Field::new("device", DataType::Utf8, false)),
        ];
        let mut columns: Vec<ArrayRef> =
            vec![texts(|row| &row.event_id), Arc::new(times.with_timezone("UTC")), texts(|row| &row.device)];
        for (at, feature) in self.spec.view.features().iter().enumerate() {
            fields.push(Arc::new(Field::new(&feature.name, DataType::Float32, false)));
            let values = self.features.iter().skip(at).step_by(width).copied();
            columns.push(Arc::new(Float32Array::from_iter_values(values)));
        }
        fields.push(Arc::new(Field::new("label", DataType::Boolean, true)));
        columns.push(Arc::new(self.rows.iter().map(|row| row.label).collect::<BooleanArray>()));
        fields.push(Arc::new(Field::new("inclusion", DataType::Float64, false)));
        columns.push(Arc::new(Float64Array::from_iter_values(self.rows.iter().map(|row| row.inclusion))));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// The Parquet file. The same rows give the same bytes with the same version of this program.
    pub fn encode(&self) -> Result<Vec<u8>, LakeError> {
        let records = self.to_records()?;
        let view = &self.spec.view;
        let about = [
            ("tributary.dataset", self.content_hash().to_string()),
            ("tributary.view", format!("{} {}", view.name(), view.version())),
            ("tributary.from", self.spec.from.0.to_string()),
            ("tributary.to", self.spec.to.0.to_string()),
            ("tributary.label_delay", self.spec.label_delay.to_string()),
        ];
        let about = about.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
        let encode = || {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                .set_key_value_metadata(Some(about))
                .build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, records.schema(), Some(properties))?;
            writer.write(&records)?;
            writer.close()?;
            Ok(bytes)
        };
        encode().map_err(|error: ParquetError| LakeError::Arrow(error.into()))
    }

    /// Writes the file into a folder, durably, under the hash of its bytes. A file that is there already is the same.
    pub fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<StoredDataset, LakeError> {
        let bytes = self.encode()?;
        let sha256 = Sha256(Hasher::digest(&bytes).into());
        let path = folder.join(format!("{sha256}.parquet"));
        let failed = |verb| move |source| LakeError::Storage { verb, path: folder.to_owned(), source };
        create_folder_below(disk, folder.parent().unwrap_or(folder), folder).map_err(failed("create"))?;
        disk::replace(disk, &path, &bytes, Access::Everyone).map_err(failed("write a dataset into"))?;
        Ok(StoredDataset { path, sha256, bytes: bytes.len() as u64 })
    }
}
