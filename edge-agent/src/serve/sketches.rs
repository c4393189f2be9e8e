//! Sketches being filled, one sketcher per package in place. Their stored form is part of the event's transaction,
//! so that a restart neither loses nor doubles a count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tributary_release::OUTPUT_REFERENCE;
use tributary_stats::{Prediction, Sketch, Sketcher};
use tributary_wire::{Micros, Role};

use super::slot::{Slot, Slots};
use crate::state::SketchRecord;

struct Open {
    slot: Arc<Slot>,
    /// Missing when the package's references do not cover its features; then it has no sketches.
    sketcher: Option<Sketcher>,
    touched: bool,
}

/// All sketches of this device.
pub(super) struct Sketches {
    width: i64,
    roles: BTreeMap<Role, Open>,
    /// Read at start, waiting for their package to be put in place again.
    waiting: Vec<Sketch>,
    /// Keys in the state.
    stored: BTreeSet<String>,
    finished: Vec<Sketch>,
}

/// What changed for the state.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) open: Vec<(String, Option<Vec<u8>>)>,
    pub(super) finished: Vec<SketchRecord>,
}

fn key(sketch: &Sketch) -> String {
    let window = &sketch.window;
    format!("{}/{}/{}/{}", window.line, window.version, window.role, window.start)
}

fn record(sketch: &Sketch) -> SketchRecord {
    SketchRecord {
        line: sketch.window.line.clone(),
        version: sketch.window.version,
        window_start: Micros(sketch.window.start),
        window_end: Micros(sketch.window.end),
        sketch: sketch.encode(),
    }
}

fn sketcher(role: &Role, slot: &Slot, width: i64) -> Option<Sketcher> {
    let package = &slot.package().package;
    let find = |name: &str| package.reference.iter().find(|reference| reference.name == name).cloned();
    let inputs: Option<Vec<_>> = package.manifest.features.iter().map(|name| find(name)).collect();
    let output = find(OUTPUT_REFERENCE)?;
    let manifest = &package.manifest;
    Some(Sketcher::new(manifest.line.as_str(), manifest.version.0, role.as_str(), &inputs?, &output, width))
}

impl Sketches {
    pub(super) fn load(width: i64, stored: &[(String, Vec<u8>)]) -> Self {
        let mut waiting = Vec::new();
        for (key, bytes) in stored {
            match Sketch::decode(bytes) {
                Ok(sketch) => waiting.push(sketch),
                Err(error) => tracing::error!(%error, key, "a stored sketch is damaged and left out"),
            }
        }
        let stored = stored.iter().map(|(key, _)| key.clone()).collect();
        Self { width, roles: BTreeMap::new(), waiting, stored, finished: Vec::new() }
    }

    /// Follows the packages in place: one that went finishes its sketches, one that came takes back its stored ones.
    pub(super) fn follow(&mut self, slots: &Slots) {
        let gone: Vec<Role> = self
            .roles
            .iter()
            .filter(|(role, open)| !slots.get(role).is_some_and(|slot| Arc::ptr_eq(slot, &open.slot)))
            .map(|(role, _)| role.clone())
            .collect();
        for role in gone {
            if let Some(mut open) = self.roles.remove(&role)
                && let Some(sketcher) = &mut open.sketcher
            {
                self.finished.extend(sketcher.close_all());
            }
        }
        for (role, slot) in slots.iter() {
            if self.roles.contains_key(role) {
                continue;
            }
            let mut sketcher = sketcher(role, slot, self.width);
            let version = slot.package().package.manifest.version.0;
            let (own, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.waiting).into_iter().partition(|sketch| sketch.window.role == role.as_str());
            self.waiting = others;
            for sketch in own {
                let resumed = match &mut sketcher {
                    Some(sketcher) if sketch.window.version == version => sketcher.resume(sketch.clone()).is_ok(),
                    _ => false,
                };
                if !resumed {
                    self.finished.push(sketch);
                }
            }
            self.roles.insert(role.clone(), Open { slot: slot.clone(), sketcher, touched: true });
        }
    }

    pub(super) fn record(&mut self, role: &Role, prediction: &Prediction<'_>) {
        if let Some(open) = self.roles.get_mut(role)
            && let Some(sketcher) = &mut open.sketcher
        {
            sketcher.record(prediction);
            open.touched = true;
        }
    }

    /// Takes out what the watermark finished, and what changed since the last call.
    pub(super) fn changes(&mut self, watermark: Option<Micros>) -> Changes {
        let mut changes = Changes::default();
        let mut alive = BTreeSet::new();
        for open in self.roles.values_mut() {
            let Some(sketcher) = &mut open.sketcher else { continue };
            if let Some(watermark) = watermark {
                self.finished.extend(sketcher.close(watermark.0));
            }
            for sketch in sketcher.open() {
                let key = key(sketch);
                if open.touched {
                    changes.open.push((key.clone(), Some(sketch.encode())));
                }
                alive.insert(key);
            }
            open.touched = false;
        }
        alive.extend(self.waiting.iter().map(key));
        changes.open.extend(self.stored.difference(&alive).map(|key| (key.clone(), None)));
        changes.finished = std::mem::take(&mut self.finished).iter().map(record).collect();
        self.stored = alive;
        changes
    }
}
