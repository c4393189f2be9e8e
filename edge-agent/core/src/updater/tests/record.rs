//! What stays in the record: what was given up and why, also as an older agent wrote it.

use tributary_wire::{Generation, UpdaterState, VersionNumber};

use super::*;
use crate::updater::RecordV1;

#[test]
fn what_does_not_fit_is_given_up_and_shown_until_a_newer_generation_or_a_start() {
    let mut device = Device::new();
    device.until_committed(1);
    device.assign(2, false, 3600 * Micros::SECOND);
    device.persist();
    let lacks = vec!["it needs 3 GiB of memory, the machine has 1 GiB".to_owned()];
    let does_not_fit = |device: &mut Device| {
        let failure = FetchFailure::Unfit(lacks.clone());
        device.tell(Input::FetchFailed { sha256: release(2).sha256, failure, reason: "it does not fit".into() });
    };
    does_not_fit(&mut device);
    assert_eq!(device.updater.unfit(), None, "not said before it is durable");
    device.settle();
    let shown = |device: &Device| {
        let unfit = device.updater.unfit().unwrap();
        assert_eq!((unfit.package.version, &unfit.reasons), (VersionNumber(2), &lacks));
        assert_eq!((device.state(), device.committed()), (UpdaterState::RolledBack, Some(1)));
    };
    shown(&device);
    // Nothing has changed at the device: it says so again.
    device.restart();
    while !device.serves.is_empty() || !device.persists.is_empty() {
        device.serve(true);
        device.persist();
    }
    does_not_fit(&mut device);
    device.settle();
    shown(&device);
    // Another agent, or other settings.
    device.restart();
    device.settle();
    assert_eq!((device.updater.unfit(), device.committed()), (None, Some(2)));
}

#[test]
fn a_record_of_an_older_agent_is_read() {
    let mut record = Record { committed: Some(release(1)), ..Record::default() };
    let (sha256, generation) = (Sha256([2; 32]), Generation(7));
    // As postcard wrote the five fields of the first version.
    let undone = (ReleaseRef { sha256, ..release(2) }, generation, "so");
    let bytes =
        postcard::to_allocvec(&(&record.wanted, &record.committed, &record.previous, &record.candidate, Some(undone)))
            .unwrap();
    let read: RecordV1 = postcard::from_bytes(&bytes).unwrap();
    record.undone = Some(Undone {
        release: ReleaseRef { sha256, ..release(2) },
        generation,
        reason: "so".into(),
        unfit: Vec::new(),
    });
    assert_eq!(Record::from(read), record);
}
