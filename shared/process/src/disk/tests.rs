//! The simulated disk keeps what POSIX promises, and the helpers ask no more of it.

use std::io::{ErrorKind, Write};
use std::path::Path;

use super::*;

fn content(disk: &dyn Disk, path: &str) -> Option<Vec<u8>> {
    disk.read(Path::new(path), 1 << 20).ok()
}

/// A disk with a durable folder.
fn disk() -> SimDisk {
    let disk = SimDisk::new();
    create_folder_durably(&disk, Path::new("/state/files")).unwrap();
    disk
}

#[test]
fn a_file_is_old_or_new_at_every_cut_of_its_replacement_and_new_after_it() {
    let path = Path::new("/state/files/a");
    let (old, new) = (vec![b'o'; 1500], vec![b'n'; 1700]);
    let count = {
        let disk = disk();
        replace(&disk, path, &old, Access::Everyone).unwrap();
        let before = disk.operations();
        replace(&disk, path, &new, Access::Everyone).unwrap();
        disk.operations() - before
    };
    let mut survived = 0;
    for cut in 0..=count {
        for seed in 0..40 {
            let disk = disk();
            replace(&disk, path, &old, Access::Everyone).unwrap();
            disk.fail_after(cut);
            let written = replace(&disk, path, &new, Access::Everyone);
            disk.crash(Some(seed));
            let found = content(&disk, "/state/files/a").unwrap();
            assert!(found == old || found == new, "cut {cut}, seed {seed}: {} bytes", found.len());
            assert!(written.is_err() || found == new, "cut {cut}: said to be durable");
            survived += usize::from(found == new);
            let left = disk.list(Path::new("/state/files")).unwrap();
            assert!(left.iter().all(|name| name == "a" || is_unfinished(name)), "{left:?}");
        }
    }
    assert!(survived > 40, "the rename sometimes survives without the folder's sync: {survived}");
}

#[test]
fn writers_of_one_path_all_succeed_and_one_of_them_is_there_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::thread::scope(|scope| {
        for writer in 0..8_u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    replace(&RealDisk, path, &vec![writer; 10_000 + usize::from(writer)], Access::Everyone).unwrap();
                }
            });
        }
    });
    let found = std::fs::read(&path).unwrap();
    assert!(found.len() == 10_000 + usize::from(found[0]) && found.iter().all(|byte| *byte == found[0]));
    assert_eq!(RealDisk.list(folder.path()).unwrap(), ["a"]);
}

#[test]
fn what_was_not_synced_is_lost_torn_or_left_and_never_anything_else() {
    let path = Path::new("/state/files/part");
    let (mut torn, mut whole, mut none) = (0, 0, 0);
    for seed in 0..60 {
        let disk = disk();
        let mut file = disk.append(path).unwrap();
        file.write_all(&[b's'; 700]).unwrap();
        file.sync().unwrap();
        disk.sync_folder(Path::new("/state/files")).unwrap();
        file.write_all(&[b'u'; 2000]).unwrap();
        disk.crash(Some(seed));
        let found = content(&disk, "/state/files/part").unwrap();
        assert_eq!(found[..700], [b's'; 700]);
        assert!(found[700..].iter().all(|byte| [0, b'u'].contains(byte)));
        let (forgotten, in_part) = match found.len() {
            700 => (1, 0),
            2700 if !found.contains(&0) => (0, 0),
            _ => (0, 1),
        };
        assert_eq!(disk.harm(), Harm { forgotten, torn: in_part, short: 0 });
        (none, torn, whole) = (none + forgotten, torn + in_part, whole + 1 - forgotten - in_part);
        assert!(file.write_all(b"x").is_err(), "a dead program writes nothing");
    }
    assert!(torn > 5 && whole > 5 && none > 5, "{torn} torn, {whole} whole, {none} none");
}

#[test]
fn a_synced_file_without_a_synced_name_and_a_name_in_an_unsynced_folder_are_lost() {
    let disk = disk();
    let mut file = disk.create(Path::new("/state/files/b"), Access::Everyone).unwrap();
    file.write_all(b"content").unwrap();
    file.sync().unwrap();
    disk.create_folder(Path::new("/new")).unwrap();
    replace(&disk, Path::new("/new/c"), b"content", Access::Everyone).unwrap();
    disk.crash(None);
    assert_eq!(content(&disk, "/state/files/b"), None);
    assert_eq!(content(&disk, "/new/c"), None);
}

#[test]
fn a_removal_counts_only_after_the_folders_sync() {
    let disk = disk();
    let path = Path::new("/state/files/a");
    replace(&disk, path, b"a", Access::Everyone).unwrap();
    disk.remove(path).unwrap();
    disk.crash(None);
    assert_eq!(content(&disk, "/state/files/a").as_deref(), Some(&b"a"[..]));
    disk.remove(path).unwrap();
    disk.sync_folder(Path::new("/state/files")).unwrap();
    disk.crash(Some(1));
    assert_eq!(content(&disk, "/state/files/a"), None);
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_the_space_of_a_half_written_file_back() {
    let disk = disk();
    disk.set_capacity(Some(100));
    replace(&disk, Path::new("/state/files/a"), &[1; 60], Access::Everyone).unwrap();
    let error = replace(&disk, Path::new("/state/files/b"), &[1; 60], Access::Everyone).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.list(Path::new("/state/files")).unwrap(), ["a"]);
    disk.crash(None);
    assert_eq!(disk.free(Path::new("/state/files")).unwrap(), 40);
}

#[test]
fn short_writes_are_finished_and_a_failed_sync_leaves_its_bytes_in_doubt() {
    let disk = disk();
    disk.set_short_writes(Some(3));
    replace(&disk, Path::new("/state/files/a"), &[7; 5000], Access::Everyone).unwrap();
    disk.crash(None);
    assert!(disk.harm().short > 0 && disk.harm().torn == 0);
    assert_eq!(content(&disk, "/state/files/a").unwrap(), [7; 5000]);

    let mut file = disk.append(Path::new("/state/files/a")).unwrap();
    file.write_all(&[8; 10]).unwrap();
    disk.fail_once(0, ErrorKind::Other);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    disk.crash(None);
    assert_eq!(disk.length(Path::new("/state/files/a")).unwrap(), 5000, "the second sync proves nothing");

    let mut file = disk.append(Path::new("/state/files/a")).unwrap();
    file.write_all(&[8; 10]).unwrap();
    disk.fail_once(0, ErrorKind::Other);
    assert!(file.sync().is_err());
    file.truncate(5000).unwrap();
    file.write_all(&[9; 10]).unwrap();
    file.sync().unwrap();
    disk.crash(Some(1));
    assert_eq!(content(&disk, "/state/files/a").unwrap()[5000..], [9; 10], "what is synced later stands above");
}

#[test]
fn a_program_that_is_killed_writes_nothing_more_and_loses_nothing() {
    let disk = SimDisk::new();
    let mut file = disk.until_crash().append(Path::new("/a")).unwrap();
    file.write_all(b"one").unwrap();
    disk.kill_after(1);
    file.write_all(b"two").unwrap();
    assert!(file.sync().is_err() && file.write_all(b"three").is_err(), "its handles are dead");
    assert_eq!((content(&disk, "/a").unwrap(), disk.boots()), (b"onetwo".to_vec(), 0));
    let mut next = disk.append(Path::new("/a")).unwrap();
    next.sync().unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    disk.crash(None);
    assert_eq!((content(&disk, "/a").unwrap(), disk.boots()), (b"onetwo".to_vec(), 1));
}

#[test]
fn the_real_disk_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("x/y");
    create_folder_durably(&RealDisk, &below).unwrap();
    let path = below.join("part");
    let mut file = RealDisk.append(&path).unwrap();
    file.write_all(b"0123456789").unwrap();
    file.truncate(4).unwrap();
    file.write_all(b"ab").unwrap();
    file.sync().unwrap();
    assert_eq!((file.length().unwrap(), RealDisk.length(&path).unwrap()), (6, 6));
    assert_eq!(RealDisk.read(&path, 6).unwrap(), b"0123ab");
    assert_eq!(RealDisk.read(&path, 5).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert!(RealDisk.free(&below).unwrap() > 0);
    RealDisk.rename(&path, &below.join("whole")).unwrap();
    assert_eq!(RealDisk.list(&below).unwrap(), ["whole"]);
    RealDisk.create(&below.join("whole"), Access::Owner).unwrap();
    assert_eq!(RealDisk.length(&below.join("whole")).unwrap(), 0);
    RealDisk.remove(&below.join("whole")).unwrap();
    assert_eq!(RealDisk.open(&below.join("whole")).err().unwrap().kind(), ErrorKind::NotFound);
}

#[test]
fn a_journal_is_played_again_up_to_any_operation() {
    let disk = SimDisk::new();
    disk.keep_journal();
    create_folder_durably(&disk, Path::new("/a")).unwrap();
    for text in ["one", "two and more"] {
        replace(&disk, Path::new("/a/b"), text.as_bytes(), Access::Everyone).unwrap();
    }
    let (mut replay, mut seen) = (disk.replay(), Vec::new());
    for operations in 0..=disk.journal_length() {
        let then = replay.after(operations);
        then.crash(None);
        seen.push(content(&then, "/a/b").map(|bytes| bytes.len()));
    }
    seen.dedup();
    assert_eq!(seen, [None, Some(3), Some(12)]);
}
