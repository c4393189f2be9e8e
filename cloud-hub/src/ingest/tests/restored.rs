//! What a restored catalog takes in again from the lake's files, and what it sets aside.

use super::*;
use crate::catalog::batches::{self, Numbering, State};
use crate::catalog::devices;

const ASIDE: &str = "/data/lake-set-aside";

/// The catalog's file is copied as a backup copies it.
async fn backup(bench: &Bench) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db").display().to_string();
    sqlx::query("vacuum into $1").bind(path).execute(bench.parts.catalog.reader()).await.unwrap();
    folder
}

/// A copy becomes the catalog of a restored hub, which has not read the lake yet.
async fn restored(folder: &Path, change: impl AsyncFnOnce(&mut sqlx::SqliteConnection)) {
    let catalog = Catalog::open(&folder.join("catalog.db")).await.unwrap();
    let mut write = catalog.write().await.unwrap();
    change(&mut write).await;
    let query = "insert into restores (epoch, restored, backup_time, audit_number, audit_hash, last_rollout, state)
                 values (1, 0, 0, 0, '', 0, 'reading')";
    sqlx::query(query).execute(&mut *write).await.unwrap();
    write.commit().await.unwrap();
    catalog.close().await;
}

async fn taken_in(bench: &Bench) -> TakenIn {
    let found: String =
        sqlx::query_scalar("select found_json from restores").fetch_one(bench.parts.catalog.reader()).await.unwrap();
    serde_json::from_str(&found).unwrap()
}

/// What was in quarantine when the backup was made and replayed since stands in one file with what others sent in that
/// moment.
#[tokio::test]
async fn a_file_with_a_message_replayed_after_the_backup_is_taken_in_with_all_that_is_in_it() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let together = |config: &mut IngestConfig| {
        config.group_idle = HumanDuration(Duration::from_secs(5));
        config.group_age = HumanDuration(Duration::from_secs(5));
        config.group_bytes = ByteSize(batch(1, &[1]).len() as u64 + 1);
    };
    let bench = Bench::with(folder.path(), &storage, together).await;
    let copy = backup(&bench).await;
    bench.send("edge-1", batch(1, &[1])).await;
    bench.send("edge-2", batch(1, &[2])).await;
    bench.until("both are answered", |acks| acks.iter().filter(|(_, ack)| ack.through.0 == 1).count() == 2).await;
    assert_eq!(bench.count("select count(*) from lake_files").await, 1, "both are in one file");
    let query = "select body_hash from batches where device = 'edge-1'";
    let hash: Vec<u8> = sqlx::query_scalar(query).fetch_one(bench.parts.catalog.reader()).await.unwrap();
    bench.crash().await;

    let (device, stream) = (DeviceId::new("edge-1").unwrap(), StreamName::new("events").unwrap());
    let of = Numbering { device, incarnation: Incarnation(1), stream };
    restored(copy.path(), async |catalog| {
        let (one, hash) = (SequenceNumber(1), tributary_wire::Sha256(hash.try_into().unwrap()));
        devices::seen(catalog, &of.device, Micros(1)).await.unwrap();
        batches::insert(catalog, &of, one, one, &hash, 0, State::Quarantined, Micros(1)).await.unwrap();
        batches::set_through(catalog, &of, one).await.unwrap();
        let kept = quarantine::Kept {
            id: "kept-1".to_owned(),
            device: of.device.clone(),
            named: Some((of.clone(), 1)),
            reason: "undecodable-body",
            detail: String::new(),
            hash,
            bytes: 1,
            path: "edge-1/kept-1.batch".to_owned(),
        };
        quarantine::insert(catalog, &kept, Micros(1)).await.unwrap();
    })
    .await;
    let bench = Bench::open(copy.path(), &storage).await;
    assert_eq!(bench.ids("events"), [1, 2], "{:?}", taken_in(&bench).await);
    assert_eq!(taken_in(&bench).await, TakenIn { files: 1, rows: 2, batches: 2, ..TakenIn::default() });
    assert_eq!(bench.count("select count(*) from batches where state = 'stored'").await, 2);
    assert_eq!(bench.count("select count(*) from quarantine where state = 'replayed'").await, 1);
    bench.stop().await;
}

/// Once more into another stream it would double the rows.
#[tokio::test]
async fn a_message_replayed_into_another_stream_after_the_backup_stays_replayed() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    bench.send("edge-1", typed(1, "amount", Column::Int(vec![Some(1)]))).await;
    bench.until_through(1).await;
    bench.send("edge-1", typed(2, "amount", Column::Text(vec![Some("1".into())]))).await;
    bench.until_through(2).await;
    let copy = backup(&bench).await;
    let id: String =
        sqlx::query_scalar("select id from quarantine").fetch_one(bench.parts.catalog.reader()).await.unwrap();
    let second = StreamName::new("events-2").unwrap();
    bench.ingest.replay(&id, Some(second.clone())).await.unwrap();
    bench.crash().await;

    restored(copy.path(), async |_| {}).await;
    let bench = Bench::open(copy.path(), &storage).await;
    let again = bench.ingest.replay(&id, Some(second)).await.unwrap_err();
    assert!(again.to_string().contains("was replayed before"), "{again}: {:?}", taken_in(&bench).await);
    assert_eq!(bench.count("select count(*) from batches where state = 'quarantined'").await, 0);
    bench.stop().await;
}

/// A file that a crash left behind shares its batch with another. It goes aside, and nobody is alarmed, if that one is
/// there; without it, it may be the only one that has the batch.
#[tokio::test]
async fn what_was_left_behind_is_set_aside_and_called_spare_only_if_another_file_has_it_all() {
    for is_there in [true, false] {
        let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
        let bench = Bench::open(folder.path(), &storage).await;
        bench.send("edge-1", batch(1, &[1])).await;
        bench.until_through(1).await;
        let copy = backup(&bench).await;
        bench.crash().await;
        let path = walk(&storage, Path::new("/data/lake")).unwrap().remove(0);
        let left = path.with_file_name("00000000000000000000000001.parquet");
        let bytes = storage.read(&path, u64::MAX).unwrap();
        disk::replace(&storage, &left, &bytes, Access::Everyone).unwrap();
        if !is_there {
            storage.remove(&path).unwrap();
        }

        restored(copy.path(), async |catalog| {
            if !is_there {
                sqlx::query("delete from lake_files").execute(catalog).await.unwrap();
            }
        })
        .await;
        let bench = Bench::open(copy.path(), &storage).await;
        let expected = if is_there { (1, 0) } else { (0, 1) };
        let taken = taken_in(&bench).await;
        assert_eq!((taken.leftovers, taken.set_aside), expected);
        let aside = walk(&storage, Path::new(ASIDE)).unwrap();
        assert_eq!(aside.len(), 1);
        assert_eq!(storage.read(&aside[0], u64::MAX).unwrap(), bytes);
        let alerts = bench.count("select count(*) from alerts where kind = 'lake-files-set-aside'").await;
        assert_eq!(alerts, i64::from(!is_there));
        assert_eq!(bench.ids("events").len(), usize::from(is_there));
        bench.stop().await;
    }
}

/// With the catalog gone nobody knows whether a part of a batch was acknowledged as a whole.
#[tokio::test]
async fn beside_a_lost_catalog_a_file_is_deleted_only_if_all_that_it_holds_is_in_others() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), SimDisk::new());
    let bench = Bench::open(folder.path(), &storage).await;
    let two_days: Vec<i64> = (12..36).collect();
    bench.send("edge-1", batch(1, &two_days)).await;
    bench.until_through(1).await;
    bench.send("edge-2", batch(1, &[100])).await;
    bench.until("edge-2 is answered", |acks| acks.iter().any(|(d, _)| d.as_str() == "edge-2")).await;
    let files = bench.parts.lake.files_after(&StreamName::new("events").unwrap(), 0);
    bench.crash().await;
    let path = |at: usize| Path::new("/data/lake").join(&files[at].path);
    assert_eq!(files.iter().map(|file| file.day).collect::<Vec<_>>(), [0, 1, 4]);
    let bytes = |path: &Path| storage.read(path, u64::MAX).unwrap();
    let (part, whole) = (bytes(&path(0)), bytes(&path(2)));
    storage.remove(&path(1)).unwrap();
    let left_behind = path(2).with_file_name("00000000000000000000000001.parquet");
    disk::replace(&storage, &left_behind, &whole, Access::Everyone).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let bench = Bench::open(elsewhere.path(), &storage).await;
    assert_eq!(bench.ids("events"), [100]);
    assert_eq!(walk(&storage, Path::new("/data/lake")).unwrap(), [path(2)], "the copy is gone, nothing else is left");
    let aside = Path::new(ASIDE).join(&files[0].path);
    assert_eq!(walk(&storage, Path::new(ASIDE)).unwrap(), std::slice::from_ref(&aside));
    assert_eq!(bytes(&aside), part);
    let problem = "select count(*) from alerts where kind = 'lake-files-set-aside' and detail like '%were lost%'";
    assert_eq!(bench.count(problem).await, 1);
    // A device that still has the batch sends it again.
    bench.send("edge-1", batch(1, &two_days)).await;
    bench.until_through(1).await;
    assert_eq!(bench.ids("events").len(), 25);
    bench.stop().await;
}
