//! What a feature view is, once it has been read and checked.

use tributary_wire::Micros;

/// A named, versioned definition of features over events. Made by [`View::from_toml`]; every reference in it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) time_zone: String,
    pub(crate) lateness: i64,
    pub(crate) label_delay: i64,
    pub(crate) max_events: usize,
    pub(crate) served_only: bool,
    pub(crate) fleet: Option<FleetSettings>,
    pub(crate) entities: Vec<EntityField>,
    pub(crate) values: Vec<ValueField>,
    pub(crate) features: Vec<Feature>,
}

/// Something that windows are kept for, such as a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityField {
    /// Name in events and in the lake.
    pub name: String,
    /// Type of its keys.
    pub kind: EntityKind,
}

/// Type of an entity's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityKind {
    /// Whole numbers.
    Int,
    /// Texts.
    Text,
}

/// A field that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueField {
    /// Name in events and in the lake.
    pub name: String,
    /// Its type.
    pub kind: ValueKind,
    /// Its unit in words, such as `EUR`; empty when it has none.
    pub unit: String,
    /// Whether an event without it is refused.
    pub required: bool,
}

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// True or false.
    Bool,
    /// Whole numbers.
    Int,
    /// Numbers.
    Double,
    /// Texts: kept in the lake, never a feature.
    Text,
}

impl ValueKind {
    /// Its name in a view file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "text",
        }
    }
}

/// One feature: one number per event.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Name in models, datasets and sketches.
    pub name: String,
    /// How it is computed.
    pub kind: FeatureKind,
    /// Over what it is computed.
    pub scope: Scope,
    /// What is served when it cannot be computed.
    pub default: f32,
}

/// How a feature is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureKind {
    /// A value of the event itself, by its place in [`View::values`].
    Value(usize),
    /// 1 on Saturday and Sunday in the view's time zone, else 0.
    Weekend,
    /// 1 when the hour in the view's time zone is from `first` to `last`, both included, else 0.
    Night {
        /// First hour of the night.
        first: u8,
        /// Last hour of the night; smaller than `first` when it passes midnight.
        last: u8,
    },
    /// An aggregate over a window.
    Window(Window),
}

/// An aggregate over the events of one entity with time in `(t - delay - length, t - delay]`, where `t` is the time of
/// the present event, which is included when `delay` is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What is computed; 0 over an empty window.
    pub aggregate: Aggregate,
    /// Whose events, by place in [`View::entities`].
    pub entity: usize,
    /// Length in microseconds.
    pub length: i64,
    /// Distance of its end from the present event in microseconds.
    pub delay: i64,
}

/// What is computed over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// How many events.
    Count,
    /// Sum of a value, by its place in [`View::values`].
    Sum(usize),
    /// Mean of a value, by its place in [`View::values`].
    Mean(usize),
    /// Share of events whose label is true; one without a label counts as false.
    LabelShare,
}

/// Over what a feature is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The event alone.
    Event,
    /// The events of this device, in accept order.
    Device,
    /// The events and labels of all devices, at the hub; a device serves the last snapshot it has.
    Fleet,
}

/// How fleet-scope features reach devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetSettings {
    /// Microseconds of event time between snapshots.
    pub cadence: i64,
    /// Microseconds of event time for which a snapshot may be served without a mark.
    pub lifetime: i64,
}

impl View {
    /// The text it was read from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The time zone of calendar features.
    pub fn time_zone(&self) -> &str {
        &self.time_zone
    }

    /// How many microseconds behind the newest event another may come and still enter the windows.
    pub fn lateness(&self) -> i64 {
        self.lateness
    }

    /// How many microseconds after an event its label is taken to be known.
    pub fn label_delay(&self) -> i64 {
        self.label_delay
    }

    /// How many events of one entity are kept at most; a bound on memory.
    pub fn max_events(&self) -> usize {
        self.max_events
    }

    /// Whether training takes features as they were served, and never replays windows: then a device may keep events
    /// back, and only what was served can be trained on.
    pub fn served_only(&self) -> bool {
        self.served_only
    }

    /// Whether the hub needs every event, because it replays windows over them: then none may be sampled out.
    pub fn needs_every_event(&self) -> bool {
        !self.served_only && (self.has_scope(Scope::Device) || self.has_scope(Scope::Fleet))
    }

    /// How fleet-scope features reach devices; `None` when the view has none.
    pub fn fleet(&self) -> Option<FleetSettings> {
        self.fleet
    }

    /// Entities that every event names.
    pub fn entities(&self) -> &[EntityField] {
        &self.entities
    }

    /// Values that events carry.
    pub fn values(&self) -> &[ValueField] {
        &self.values
    }

    /// Features, in the order of a model's input.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Names of the features, in the order of a model's input.
    pub fn feature_names(&self) -> Vec<String> {
        self.features.iter().map(|feature| feature.name.clone()).collect()
    }

    /// Whether a feature has this scope.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.features.iter().any(|feature| feature.scope == scope)
    }

    /// How far back windows of a scope reach from the present event, in microseconds.
    pub fn reach(&self, scope: Scope) -> i64 {
        let windows = self.features.iter().filter(|feature| feature.scope == scope).filter_map(Feature::window);
        windows.map(|window| window.delay + window.length).max().unwrap_or(0)
    }

    /// How far back device-scope windows reach from the present event, in microseconds.
    pub fn longest_device_window(&self) -> i64 {
        self.reach(Scope::Device)
    }

    /// The earliest event time that an event may have to enter windows when `newest` is the newest seen.
    pub fn earliest(&self, newest: Micros) -> Micros {
        Micros(newest.0.saturating_sub(self.lateness))
    }
}

impl Feature {
    /// Its window, when it has one.
    pub fn window(&self) -> Option<Window> {
        match self.kind {
            FeatureKind::Window(window) => Some(window),
            _ => None,
        }
    }
}
