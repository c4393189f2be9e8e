use tributary_process::disk::{Access, SimDisk, replace};
use tributary_wire::VersionNumber;

use super::*;

const BODY: &[u8] = b"a package, near enough";

fn release_of(body: &[u8]) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(1), length: body.len() as u64, sha256: digest(body) }
}

fn release() -> ReleaseRef {
    release_of(BODY)
}

fn files() -> (SimDisk, PackageFiles) {
    let disk = SimDisk::new();
    let files = open(&disk);
    (disk, files)
}

/// As a process does that begins in this power cycle.
fn open(disk: &SimDisk) -> PackageFiles {
    PackageFiles::open_on(Arc::new(disk.until_crash()), "/packages".into(), None).unwrap()
}

#[test]
fn a_download_goes_on_where_the_last_process_left_it_on_the_real_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    for files in [files().1, PackageFiles::open(folder.path().join("packages")).unwrap()] {
        files.partial(&release()).unwrap().write(&BODY[..5]).unwrap();
        let mut again = files.partial(&release()).unwrap();
        assert_eq!(again.written(), 5);
        again.write(&BODY[5..]).unwrap();
        assert!(!files.has(&release().sha256), "not in place before it is whole and checked");
        again.finish().unwrap();
        assert_eq!(files.read(&release()).unwrap(), BODY);
        assert_eq!(files.held().unwrap(), [release().sha256]);
        assert_eq!(files.used().unwrap(), BODY.len() as u64, "nothing is left beside it");
    }
}

#[test]
fn wrong_bytes_too_few_and_too_many_are_refused_and_gone() {
    let (_disk, files) = files();
    let mut changed = BODY.to_vec();
    changed[3] ^= 1;
    let mut partial = files.partial(&release()).unwrap();
    partial.write(&changed).unwrap();
    assert!(matches!(partial.finish(), Err(FileError::Hash { .. })));
    let mut partial = files.partial(&release()).unwrap();
    assert_eq!(partial.written(), 0);
    partial.write(&BODY[..3]).unwrap();
    assert!(partial.write(BODY).is_err());
    assert!(matches!(partial.finish(), Err(FileError::Length { .. })));
    assert_eq!(files.used().unwrap(), 0);
}

#[test]
fn only_what_nothing_refers_to_and_what_a_crash_left_half_written_are_collected() {
    let (disk, files) = files();
    let [kept, gone] = [digest(b"kept"), digest(b"gone")];
    for sha256 in [&kept, &gone] {
        replace(&disk, &files.path(sha256), b"package", Access::Everyone).unwrap();
        replace(&disk, &files.named(sha256, STATEMENT), b"signed", Access::Everyone).unwrap();
    }
    for name in ["notes.txt", ".a.release.0.tmp"] {
        disk.create(&files.folder.join(name), Access::Everyone).unwrap();
    }
    assert_eq!(files.collect(&[kept]).unwrap(), 3);
    assert!(files.has(&kept) && !files.has(&gone));
    assert!(disk.length(&files.folder.join("notes.txt")).is_ok());
}

#[test]
fn a_download_that_does_not_fit_is_refused_before_it_begins() {
    let (disk, files) = files();
    disk.set_capacity(Some(disk.used() + RESERVE_BYTES + 10));
    let error = files.partial(&release()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("22 more bytes are needed for the download"), "{error}");
    assert_eq!(files.used().unwrap(), 0);
    disk.set_capacity(Some(disk.used() + RESERVE_BYTES + 1000));
    files.partial(&release()).unwrap();

    let budgeted = PackageFiles { budget: Some(20), ..files };
    let error = budgeted.partial(&release()).unwrap_err().to_string();
    assert!(error.contains("the budget for packages leaves 20"), "{error}");
}

#[test]
fn after_any_cut_of_a_download_what_is_there_is_right_and_the_download_ends_well() {
    // Several marks long, and not made of zeros, which a hollow file has.
    let body: Vec<u8> = (0..(5 << 19) + 7).map(|n: u32| (n % 251) as u8 + 1).collect();
    let release = release_of(&body);
    let download = |files: &PackageFiles| -> io::Result<u64> {
        let mut partial = files.partial(&release)?;
        let start = partial.written();
        assert!(start <= release.length);
        for piece in body[start as usize..].chunks(1 << 18) {
            partial.write(piece)?;
        }
        partial.finish().map_err(io::Error::other)?;
        Ok(start)
    };
    let (mut cuts, mut resumed) = (0, 0);
    for seed in 0..2 {
        for cut in 0.. {
            let disk = SimDisk::new();
            disk.set_short_writes(Some(seed));
            let files = open(&disk);
            disk.fail_after(cut);
            let _ = download(&files);
            if !disk.has_failed() {
                break;
            }
            disk.crash(Some(cut * 10 + seed));
            let files = open(&disk);
            if files.has(&release.sha256) {
                assert_eq!(files.read(&release).unwrap(), body, "cut {cut} seed {seed}: in place and not whole");
            }
            match download(&files) {
                Ok(start) => resumed += u64::from(start > 0),
                // Hollow after all: found out by the hash, and whole the next time.
                Err(_) => panic!("cut {cut} seed {seed}: a mark spoke of bytes that are not there"),
            }
            assert_eq!(files.read(&release).unwrap(), body);
            cuts += 1;
        }
    }
    assert!(resumed > cuts / 4, "{resumed} of {cuts} went on from a mark");
    println!("{cuts} cuts of a download; {resumed} went on from a mark");
}

#[test]
fn a_failed_sync_never_leads_to_a_package_that_is_only_in_memory() {
    let body: Vec<u8> = (0..3000u32).map(|n| (n % 251) as u8 + 1).collect();
    let release = release_of(&body);
    for after in 0..12 {
        let (disk, files) = files();
        disk.fail_once(after, io::ErrorKind::Other);
        for _ in 0..3 {
            let Ok(mut partial) = files.partial(&release) else { continue };
            let start = partial.written() as usize;
            if partial.write(&body[start..]).is_ok() && partial.finish().is_ok() {
                break;
            }
        }
        assert!(files.has(&release.sha256), "fault at {after}");
        disk.crash(None);
        assert_eq!(open(&disk).read(&release).unwrap(), body, "fault at {after}");
    }
}

#[test]
fn a_bit_that_flips_on_the_disk_is_found() {
    let (disk, files) = files();
    let mut partial = files.partial(&release()).unwrap();
    partial.write(BODY).unwrap();
    partial.finish().unwrap();
    disk.rot(&files.path(&release().sha256), 7).unwrap();
    assert!(files.read(&release()).unwrap_err().is_damage());
    files.remove(&release().sha256).unwrap();
    disk.crash(None);
    assert!(!open(&disk).has(&release().sha256));
}

#[tokio::test]
async fn whoever_brings_a_package_waits_until_what_an_ended_task_began_is_over() {
    let (_, files) = files();
    let (release, other) = (release(), release_of(b"another package"));
    let first = files.turn(&release.sha256).await;
    let mut partial = first.partial(&release).unwrap();
    drop(first);
    files.turn(&other.sha256).await;
    let waits = files.turn(&release.sha256);
    tokio::pin!(waits);
    tokio::select! {
        biased;
        _ = waits.as_mut() => panic!("it is still being written"),
        () = std::future::ready(()) => {}
    }
    partial.write(BODY).unwrap();
    partial.finish().unwrap();
    let second = waits.await;
    assert!(second.has(&release.sha256));
    // A wait that is given up keeps nobody else waiting.
    tokio::select! {
        biased;
        _ = files.turn(&release.sha256) => panic!("it is the second's turn"),
        () = std::future::ready(()) => {}
    }
    drop(second);
    files.turn(&release.sha256).await;
}
