//! What must hold: as the run goes, and at its end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use tributary_wire::{DeviceId, Incarnation, LossReason};

use super::World;
use super::device::Device;
use super::hub::Losses;

/// Records that stand in the lake once for every event.
const STREAMS: [&str; 2] = ["events", "observations"];

/// What became of the records.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Records that follow from events which a device answered for.
    pub accepted: u64,
    /// In the lake.
    pub found: u64,
    /// Given up by devices, and reported.
    pub dropped: u64,
    /// Of those, because the disk did not keep them.
    pub corrupt: u64,
    /// Left out by the sampling policy, and reported.
    pub left_out: u64,
    /// Nowhere but on disks that were replaced.
    pub replaced: u64,
}

/// What was there before.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// Ids that states answered as durable whose disks were replaced.
    pub told: BTreeSet<String>,
    /// What the lake had when somebody last looked: it stays there.
    seen: [BTreeSet<String>; STREAMS.len()],
    /// Records that the hub knew as given up by states whose disks were replaced.
    losses: Vec<(DeviceId, Incarnation, Losses)>,
    /// Whether a disk was replaced while the lake could not be looked at.
    pub unseen: bool,
}

impl World {
    /// Whether nothing more will happen that matters.
    pub(super) fn is_at_rest(&mut self) -> Result<bool> {
        if !self.hub.is_up() || self.hub.is_holding() {
            return Ok(false);
        }
        for device in &mut self.devices {
            if !device.is_through() || !device.is_at_rest()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What keeps the world from its rest, in words.
    pub(super) fn unrest(&mut self) -> Result<String> {
        let mut words = format!("hub up: {}, holding: {}", self.hub.is_up(), self.hub.is_holding());
        for device in &mut self.devices {
            let (through, rest) = (device.is_through(), device.is_at_rest()?);
            words += if device.is_up() { "" } else { "; down" };
            words += &format!("; {}: source through: {through}, connected: {}, ", device.id, device.connected);
            words += &format!("at rest: {rest}");
            if !rest && device.is_up() {
                words += &format!(" ({})", device.waiting()?);
            }
        }
        Ok(words)
    }

    /// Now and then: nothing twice, nothing that nobody brought, and nothing gone that was there.
    pub(super) fn check_often(&mut self) -> Result<()> {
        let brought: BTreeSet<&String> = self.devices.iter().flat_map(|device| &device.brought).collect();
        for (stream, seen) in STREAMS.into_iter().zip(&mut self.earlier.seen) {
            let Some(ids) = self.hub.readable_ids(stream)? else { return Ok(()) };
            let foreign = ids.iter().find(|id| !brought.contains(id));
            ensure!(foreign.is_none(), "{stream}: {foreign:?} was never brought");
            let gone: Vec<_> = seen.difference(&ids).take(5).collect();
            ensure!(gone.is_empty(), "{stream}: {gone:?} were in the lake, and are not there any more");
            *seen = ids;
        }
        self.earlier.unseen = false;
        Ok(())
    }

    /// Looks what the hub has of a device whose disk is about to be replaced: that at least has to stay.
    pub(super) fn look_before_loss(&mut self, device: usize) -> Result<()> {
        self.earlier.unseen = true;
        if self.hub.is_up() {
            let Device { id, .. } = &self.devices[device];
            let (id, incarnation) = (id.clone(), self.devices[device].incarnation());
            let losses = self.hub.losses(&id, incarnation);
            self.earlier.losses.push((id, incarnation, losses));
            self.check_often()?;
        }
        Ok(())
    }

    /// What earlier states of devices got through before their disks were replaced, of the ids that the lake has.
    fn count_earlier(&mut self, lake: &BTreeSet<String>) {
        let present: Vec<String> = self.devices.iter().map(Device::prefix).collect();
        let there = lake.iter().filter(|id| !present.iter().any(|prefix| id.starts_with(prefix)));
        let there: BTreeSet<&String> = there.collect();
        let lost = self.earlier.told.iter().filter(|id| !there.contains(id)).count() as u64;
        self.tally.accepted += there.len() as u64 + lost;
        self.tally.replaced += lost;
    }

    /// Every record is in the lake, once, or was reported as dropped or left out; and a replay gives what was served.
    pub(super) fn check_end(&mut self) -> Result<()> {
        self.check_often()?;
        let lake: BTreeMap<&str, BTreeSet<String>> =
            STREAMS.into_iter().map(|stream| Ok((stream, self.hub.ids(stream)?))).collect::<Result<_>>()?;
        // Devices of which the lake does not have all events: no replay can agree with what they served.
        let mut incomplete = BTreeSet::new();
        let sketched = self.hub.sketched()?;
        for device in &mut self.devices {
            let kept_back = device.kept_back()?;
            let (name, prefix, told) = (device.id.clone(), device.prefix(), device.told.len() as u64);
            let accepted = kept_back.accepted;
            ensure!(accepted == told, "{name}: {accepted} events were accepted, {told} answered as durable");
            let incarnation = device.incarnation();
            let reported = self.hub.losses(&name, incarnation);
            check_losses(&kept_back.dropped, &reported).with_context(|| name.to_string())?;
            // Each event is one prediction, and each prediction is in one sketch.
            if device.setup.packaged && kept_back.dropped("sketches") == 0 {
                let sent = sketched.get(&(name.clone(), incarnation)).copied().unwrap_or(0);
                let open = kept_back.sketched;
                ensure!(
                    accepted == sent + open,
                    "{name}: of {accepted} predictions {sent} are in the lake's sketches, {open} in open ones"
                );
            }
            for stream in STREAMS {
                let found: BTreeSet<&String> = lake[stream].iter().filter(|id| id.starts_with(&prefix)).collect();
                let dropped = of_stream(&reported, stream);
                let left_out = if stream == "observations" { kept_back.left_out } else { 0 };
                let lost: Vec<_> = device.told.iter().filter(|id| !found.contains(id)).take(5).collect();
                let there = found.len() as u64;
                ensure!(
                    accepted == there + dropped + left_out,
                    "{name}, {stream}: {accepted} accepted, {there} in the lake, {dropped} reported as dropped, \
                     {left_out} left out; missing: {lost:?}"
                );
                self.tally.accepted += accepted;
                self.tally.dropped += dropped;
                self.tally.corrupt += reported.get(&(stream.to_owned(), LossReason::Corrupt)).copied().unwrap_or(0);
                self.tally.left_out += left_out;
                if stream == "events" && dropped > 0 {
                    incomplete.insert(name.as_str().to_owned());
                }
            }
            if device.state > 0 {
                incomplete.insert(name.as_str().to_owned());
            }
        }
        for (device, incarnation, losses) in &self.earlier.losses {
            let now = self.hub.losses(device, *incarnation);
            // What was damaged on a device the lake may have after all.
            let mut known = losses.iter().filter(|((_, reason), _)| *reason != LossReason::Corrupt);
            let less = known.find(|(of, records)| now.get(of).is_none_or(|now| now < records));
            ensure!(
                less.is_none(),
                "{device}: the hub knew of {losses:?} before its disk was replaced, now of {now:?}"
            );
        }
        for ids in lake.values() {
            self.tally.found += ids.len() as u64;
            self.count_earlier(ids);
        }
        self.check_replay(&incomplete, &lake["observations"])
    }

    fn check_replay(&self, incomplete: &BTreeSet<String>, observations: &BTreeSet<String>) -> Result<()> {
        let replay = self.hub.replay(&self.view)?;
        let differs: Vec<_> = replay.examples.iter().filter(|it| !incomplete.contains(&it.device)).collect();
        ensure!(differs.is_empty(), "features as served are not those of a replay: {differs:?}");
        if incomplete.is_empty() {
            let compared = replay.compared + replay.cold;
            ensure!(
                (compared, replay.mismatches, replay.unfit) == (observations.len() as u64, 0, 0),
                "{} observations, the replay says {replay:?}",
                observations.len()
            );
        }
        Ok(())
    }
}

/// What a device counted as dropped, and what its hub knows: the same, but that the hub may have what the device sent before
/// its own disk lost it.
fn check_losses(dropped: &Losses, reported: &Losses) -> Result<()> {
    let only = |losses: &Losses| -> Losses {
        losses
            .iter()
            .filter(|((_, reason), _)| *reason != LossReason::Corrupt)
            .map(|(of, it)| (of.clone(), *it))
            .collect()
    };
    let all_told = only(dropped) == only(reported);
    let invented = reported.iter().any(|(of, records)| dropped.get(of).is_none_or(|dropped| dropped < records));
    ensure!(all_told && !invented, "{dropped:?} were dropped, the hub knows of {reported:?}");
    Ok(())
}

fn of_stream(losses: &Losses, stream: &str) -> u64 {
    losses.iter().filter(|((of, _), _)| of == stream).map(|(_, records)| records).sum()
}
