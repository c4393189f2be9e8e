//! Fleet-scope features on a device: the last complete snapshot that the hub sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tributary_wire::{EntityKey, FeatureSnapshotV1, SnapshotNumber};

use crate::hash::KeyHash;
use crate::{Marks, Micros, Row, Scope, View};

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It completed its snapshot, which is served from now on.
    Complete(SnapshotNumber),
    /// More parts are needed.
    Partial,
    /// It belongs to a snapshot not newer than the one being served or gathered, or was here before.
    Old,
}

/// Why a part of a snapshot was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It belongs to another view or version.
    #[error("snapshot of view {found_name} version {found_version}; this is {name} version {version}")]
    View {
        /// This view's name.
        name: String,
        /// This view's version.
        version: u32,
        /// The snapshot's.
        found_name: String,
        /// The snapshot's.
        found_version: u32,
    },
    /// Its parts, entity, features or rows do not fit.
    #[error("snapshot {number}: {problem}")]
    Malformed {
        /// Which snapshot.
        number: SnapshotNumber,
        /// What does not fit.
        problem: String,
    },
}

/// The last complete snapshot, and the parts of the next. Cloning shares the snapshot.
#[derive(Debug, Clone)]
pub struct FleetTable {
    name: String,
    version: u32,
    entities: Vec<EntityFeatures>,
    serving: Option<Arc<Snapshot>>,
    gathering: Option<Gathering>,
}

/// The fleet-scope features of one entity.
#[derive(Debug, Clone)]
struct EntityFeatures {
    entity: usize,
    name: String,
    features: Vec<String>,
    /// Place in the view and declared default of each.
    places: Vec<(usize, f32)>,
}

#[derive(Debug)]
struct Snapshot {
    number: SnapshotNumber,
    taken: Micros,
    lifetime: i64,
    /// In the order of [`FleetTable::entities`].
    values: Vec<HashMap<EntityKey, Vec<f32>, KeyHash>>,
}

#[derive(Debug, Clone)]
struct Gathering {
    number: SnapshotNumber,
    parts: BTreeMap<u16, FeatureSnapshotV1>,
}

impl FleetTable {
    /// A table without any snapshot.
    pub fn new(view: &View) -> Self {
        let entities = view.entities().iter().enumerate().map(|(entity, field)| {
            let of_entity = |feature: &crate::Feature| feature.window().is_some_and(|window| window.entity == entity);
            let features = view.features().iter().enumerate();
            let features: Vec<_> =
                features.filter(|(_, feature)| feature.scope == Scope::Fleet && of_entity(feature)).collect();
            EntityFeatures {
                entity,
                name: field.name.clone(),
                features: features.iter().map(|(_, feature)| feature.name.clone()).collect(),
                places: features.iter().map(|(at, feature)| (*at, feature.default)).collect(),
            }
        });
        let entities = entities.filter(|entity| !entity.features.is_empty()).collect();
        Self { name: view.name().to_owned(), version: view.version(), entities, serving: None, gathering: None }
    }

    /// Takes one part. A newer snapshot replaces the one being gathered: its parts would come too late anyway.
    pub fn offer(&mut self, part: FeatureSnapshotV1) -> Result<Offer, SnapshotError> {
        self.check(&part)?;
        let newest = self.gathering.as_ref().map(|gathering| gathering.number);
        if self.number().is_some_and(|number| part.number <= number)
            || newest.is_some_and(|newest| part.number < newest)
        {
            return Ok(Offer::Old);
        }
        if newest != Some(part.number) {
            self.gathering = Some(Gathering { number: part.number, parts: BTreeMap::new() });
        }
        let Some(gathering) = &mut self.gathering else { return Ok(Offer::Partial) };
        if let Some(other) = gathering.parts.values().next()
            && (other.parts, other.taken, other.lifetime) != (part.parts, part.taken, part.lifetime)
        {
            let problem = format!("part {} disagrees with part {} about the snapshot", part.part, other.part);
            return Err(SnapshotError::Malformed { number: part.number, problem });
        }
        if gathering.parts.contains_key(&part.part) {
            return Ok(Offer::Old);
        }
        let parts = usize::from(part.parts);
        gathering.parts.insert(part.part, part);
        if gathering.parts.len() < parts {
            return Ok(Offer::Partial);
        }
        let complete = self.gathering.take().map(|gathering| self.assemble(gathering));
        self.serving = complete.map(Arc::new);
        Ok(self.number().map_or(Offer::Partial, Offer::Complete))
    }

    fn check(&self, part: &FeatureSnapshotV1) -> Result<(), SnapshotError> {
        if (part.view.as_str(), part.view_version) != (&self.name, self.version) {
            return Err(SnapshotError::View {
                name: self.name.clone(),
                version: self.version,
                found_name: part.view.clone(),
                found_version: part.view_version,
            });
        }
        let malformed = |problem| Err(SnapshotError::Malformed { number: part.number, problem });
        if part.part >= part.parts {
            return malformed(format!("part {} of {}", part.part, part.parts));
        }
        if part.lifetime <= 0 {
            return malformed(format!("lifetime is {} us; more than 0 is expected", part.lifetime));
        }
        let Some(entity) = self.entities.iter().find(|entity| entity.name == part.entity) else {
            return malformed(format!("entity {:?} has no fleet-scope features", part.entity));
        };
        if entity.features != part.features {
            return malformed(format!("features are {:?}; expected {:?}", part.features, entity.features));
        }
        match part
            .rows
            .iter()
            .find(|row| row.values.len() != part.features.len() || !row.values.iter().all(|v| v.is_finite()))
        {
            Some(row) => malformed(format!("values of {} {} are {:?}", part.entity, row.key, row.values)),
            None => Ok(()),
        }
    }

    fn assemble(&self, gathering: Gathering) -> Snapshot {
        let mut snapshot = Snapshot {
            number: gathering.number,
            taken: Micros(0),
            lifetime: 0,
            values: self.entities.iter().map(|_| HashMap::default()).collect(),
        };
        for part in gathering.parts.into_values() {
            (snapshot.taken, snapshot.lifetime) = (part.taken, part.lifetime);
            if let Some(at) = self.entities.iter().position(|entity| entity.name == part.entity) {
                snapshot.values[at].extend(part.rows.into_iter().map(|row| (row.key, row.values)));
            }
        }
        snapshot
    }

    /// The number of the snapshot being served.
    pub fn number(&self) -> Option<SnapshotNumber> {
        self.serving.as_ref().map(|snapshot| snapshot.number)
    }

    /// The event time at which the snapshot being served was taken.
    pub fn taken(&self) -> Option<Micros> {
        self.serving.as_ref().map(|snapshot| snapshot.taken)
    }

    /// The snapshot being served, as a report states it.
    pub fn serving(&self) -> Option<(SnapshotNumber, Micros)> {
        self.serving.as_ref().map(|snapshot| (snapshot.number, snapshot.taken))
    }

    /// Fills the fleet-scope features: 0 for an entity without events, declared defaults and a mark when there is no
    /// snapshot or it is too old for the row.
    pub fn fill(&self, row: &Row, out: &mut [f32]) -> Marks {
        if self.entities.is_empty() {
            return Marks::NONE;
        }
        let (snapshot, mark) = match &self.serving {
            None => (None, Marks::FLEET_MISSING),
            Some(snapshot) if row.time.since(snapshot.taken) > snapshot.lifetime => (None, Marks::FLEET_STALE),
            Some(snapshot) => (Some(snapshot), Marks::NONE),
        };
        for (at, entity) in self.entities.iter().enumerate() {
            let values = snapshot.map(|snapshot| snapshot.values[at].get(&row.entities[entity.entity]));
            for (number, (place, default)) in entity.places.iter().enumerate() {
                out[*place] = match values {
                    None => *default,
                    Some(None) => 0.0,
                    Some(Some(values)) => values[number],
                };
            }
        }
        mark
    }
}
