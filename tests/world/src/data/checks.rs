//! What must hold: as the run goes, and at its end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::World;

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
    /// Left out by the sampling policy, and reported.
    pub left_out: u64,
    /// Nowhere but on disks that were replaced.
    pub replaced: u64,
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

    /// After every start of the hub: nothing twice, nothing that nobody brought.
    pub(super) fn check_often(&self) -> Result<()> {
        let brought: BTreeSet<&String> = self.devices.iter().flat_map(|device| &device.brought).collect();
        for stream in STREAMS {
            let Some(ids) = self.hub.readable_ids(stream)? else { continue };
            let foreign = ids.iter().find(|id| !brought.contains(id));
            ensure!(foreign.is_none(), "{stream}: {foreign:?} was never brought");
        }
        Ok(())
    }

    /// What a device had answered for when its disk was replaced counts as far as the lake has it.
    pub(super) fn count_replaced(&mut self, device: usize) -> Result<()> {
        let told = self.devices[device].told.len() as u64 * STREAMS.len() as u64;
        self.tally.accepted += told;
        self.tally.replaced += told;
        Ok(())
    }

    /// Every record is in the lake, once, or was reported as dropped or left out; and a replay gives what was served.
    pub(super) fn check_end(&mut self) -> Result<()> {
        self.check_often()?;
        let lake: BTreeMap<&str, BTreeSet<String>> =
            STREAMS.into_iter().map(|stream| Ok((stream, self.hub.ids(stream)?))).collect::<Result<_>>()?;
        // Devices of which the lake does not have all events: no replay can agree with what they served.
        let mut incomplete = BTreeSet::new();
        let mut present = 0;
        let sketched = self.hub.sketched()?;
        for device in &mut self.devices {
            let kept_back = device.kept_back()?;
            let (name, prefix, told) = (device.id.clone(), device.prefix(), device.told.len() as u64);
            let accepted = kept_back.accepted;
            ensure!(accepted == told, "{name}: {accepted} events were accepted, {told} answered as durable");
            let incarnation = device.incarnation();
            let (dropped, reported) = (&kept_back.dropped, self.hub.losses(&name, incarnation));
            ensure!(*dropped == reported, "{name}: {dropped:?} were dropped, the hub knows of {reported:?}");
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
                let dropped = kept_back.dropped(stream);
                let left_out = if stream == "observations" { kept_back.left_out } else { 0 };
                let lost: Vec<_> = device.told.iter().filter(|id| !found.contains(id)).take(5).collect();
                let there = found.len() as u64;
                ensure!(
                    accepted == there + dropped + left_out,
                    "{name}, {stream}: {accepted} accepted, {there} in the lake, {dropped} reported as dropped, \
                     {left_out} left out; missing: {lost:?}"
                );
                present += there;
                self.tally.accepted += accepted;
                self.tally.dropped += dropped;
                self.tally.left_out += left_out;
                if stream == "events" && dropped > 0 {
                    incomplete.insert(name.as_str().to_owned());
                }
            }
            if device.state > 0 {
                incomplete.insert(name.as_str().to_owned());
            }
        }
        self.tally.found = lake.values().map(|ids| ids.len() as u64).sum();
        // What earlier states of a device got through before their disk was replaced.
        let earlier = self.tally.found - present;
        self.tally.accepted += earlier.saturating_sub(self.tally.replaced);
        self.tally.replaced = self.tally.replaced.saturating_sub(earlier);
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
