//! Room on the disk, judged.

use std::path::Path;

use super::host::{self, Room};
use super::{Finding, words};

/// With less than this nearly nothing can be written any more.
const LEAST_BYTES: u64 = 64 << 20;
/// With less than this somebody should look, however much the program itself will want.
const LOW_BYTES: u64 = 256 << 20;

/// Looks at the disk under a folder. `wanted`: how much more the program may come to write there.
pub fn disk(section: &'static str, folder: &Path, wanted: u64) -> Vec<Finding> {
    let there = host::nearest_folder(folder);
    match host::room(&there) {
        Ok(room) => judge(section, &there, room, wanted),
        Err(error) => vec![Finding::skipped(section, "disk", format!("{}: {error}", there.display()))],
    }
}

fn judge(section: &'static str, folder: &Path, room: Room, wanted: u64) -> Vec<Finding> {
    let place = folder.display();
    if room.read_only {
        let found = format!("the file system of {place} is mounted read-only");
        let advice = "find out why (dmesg: a broken disk is often remounted so), then: mount -o remount,rw";
        return vec![Finding::fail(section, "disk", found).advise(advice)];
    }
    let share = (room.free * 100).checked_div(room.total).unwrap_or(0);
    let found = format!("{} of {} free ({share} %)", words::bytes(room.free), words::bytes(room.total));
    let advice = format!("make room on the file system of {place}, or move the folder to a larger one");
    let bytes = if room.free < LEAST_BYTES {
        Finding::fail(section, "disk", found).advise(advice)
    } else if room.free < LOW_BYTES {
        Finding::warn(section, "disk", found).advise(advice)
    } else if room.free < wanted {
        let found = format!("{found}; the settings allow to write {} more", words::bytes(wanted));
        Finding::warn(section, "disk", found).advise(format!("{advice}; or lower the limits in the settings"))
    } else {
        Finding::ok(section, "disk", found)
    };
    let Some(left) = room.files_free else { return vec![bytes] };
    let share = (left * 100).checked_div(room.files_total).unwrap_or(0);
    let found = format!("{left} of {} may still be made ({share} %)", words::count(room.files_total, "file", "files"));
    let files = match left {
        0..1_000 => {
            Finding::fail(section, "inodes", found).advise(format!("remove files from the file system of {place}"))
        }
        _ if share < 5 => Finding::warn(section, "inodes", found)
            .advise(format!("look what fills the file system of {place} with small files")),
        _ => Finding::ok(section, "inodes", found),
    };
    vec![bytes, files]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Mark;

    #[test]
    fn room_is_judged_by_what_is_left_and_what_is_wanted() {
        let whole = Room {
            free: 8 << 30,
            total: 16 << 30,
            files_free: Some(900_000),
            files_total: 1_000_000,
            read_only: false,
        };
        let marks =
            |room, wanted| judge("M", Path::new("/x"), room, wanted).iter().map(Finding::mark).collect::<Vec<_>>();
        assert_eq!(marks(whole, 1 << 30), [Mark::Ok, Mark::Ok]);
        assert_eq!(marks(whole, 9 << 30), [Mark::Warn, Mark::Ok]);
        assert_eq!(marks(Room { free: 100 << 20, ..whole }, 0), [Mark::Warn, Mark::Ok]);
        assert_eq!(marks(Room { free: 1 << 20, ..whole }, 0), [Mark::Fail, Mark::Ok]);
        assert_eq!(marks(Room { files_free: Some(5), ..whole }, 0), [Mark::Ok, Mark::Fail]);
        assert_eq!(marks(Room { files_free: Some(20_000), ..whole }, 0), [Mark::Ok, Mark::Warn]);
        assert_eq!(marks(Room { files_free: None, ..whole }, 0), [Mark::Ok]);
        assert_eq!(marks(Room { read_only: true, ..whole }, 0), [Mark::Fail]);
        assert_eq!(marks(Room { total: 0, files_total: 0, ..whole }, 0)[0], Mark::Ok);
        let found = judge("M", Path::new("/x"), whole, 0);
        assert_eq!(found[0].found(), "8.0 GiB of 16.0 GiB free (50 %)");
    }
}
