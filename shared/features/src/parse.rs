//! Reads a view from TOML and checks that every part of it fits the others.

use serde::Deserialize;

use crate::calendar::Calendar;
use crate::view::{
    Aggregate, EntityField, EntityKind, Feature, FeatureKind, FleetSettings, Scope, ValueField, ValueKind, View, Window,
};

/// Why a text is not a feature view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Not TOML, an unknown key, a missing key or a value of another type; the text has line and column.
    #[error("{0}")]
    Toml(String),
    /// A key holds something that does not fit the rest of the view.
    #[error("{place}: {problem}")]
    Wrong {
        /// Where, such as `feature "night"`.
        place: String,
        /// What is wrong there, with expected and found.
        problem: String,
    },
}

/// A view longer than this is refused before it is read: it travels inside every package.
const MAX_SOURCE_BYTES: usize = 256 * 1024;
/// More features than this make rows too wide for a device.
const MAX_FEATURES: usize = 1024;
/// Columns that the lake and datasets have in any case, so that a field of the same name would be ambiguous.
const RESERVED: [&str; 12] = [
    "accepted",
    "event_id",
    "event_time",
    "source",
    "device",
    "incarnation",
    "sequence",
    "ingest_time",
    "inclusion",
    "label",
    "known_at",
    "day",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewText {
    name: String,
    version: u32,
    #[serde(default = "utc")]
    time_zone: String,
    #[serde(default = "zero")]
    lateness: String,
    #[serde(default = "zero")]
    label_delay: String,
    #[serde(default = "max_events")]
    max_events_per_entity: usize,
    #[serde(default)]
    served_only: bool,
    fleet: Option<FleetText>,
    #[serde(default)]
    entity: Vec<EntityText>,
    #[serde(default)]
    value: Vec<ValueText>,
    #[serde(default)]
    feature: Vec<FeatureText>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn zero() -> String {
    "0s".to_owned()
}

/// 24 to 40 bytes each: a hot entity costs at most a few megabytes.
fn max_events() -> usize {
    100_000
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetText {
    cadence: String,
    lifetime: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntityText {
    name: String,
    kind: EntityKindText,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntityKindText {
    Int,
    Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueText {
    name: String,
    kind: ValueKindText,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    required: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ValueKindText {
    Bool,
    Int,
    Double,
    Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureText {
    name: String,
    kind: KindText,
    scope: Option<ScopeText>,
    #[serde(default)]
    default: f32,
    value: Option<String>,
    hours: Option<[u8; 2]>,
    entity: Option<String>,
    window: Option<String>,
    delay: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum KindText {
    Value,
    Weekend,
    Night,
    Count,
    Sum,
    Mean,
    LabelShare,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ScopeText {
    Event,
    Device,
    Fleet,
}

impl View {
    /// Reads a view and checks every reference in it.
    pub fn from_toml(text: &str) -> Result<Self, ViewError> {
        if text.len() > MAX_SOURCE_BYTES {
            return Err(wrong("view", format!("{} bytes long; at most {MAX_SOURCE_BYTES} are read", text.len())));
        }
        let read: ViewText = toml::from_str(text).map_err(|error| ViewError::Toml(error.to_string()))?;
        let fleet = match &read.fleet {
            None => None,
            Some(fleet) => Some(FleetSettings {
                cadence: positive("fleet", "cadence", &fleet.cadence)?,
                lifetime: positive("fleet", "lifetime", &fleet.lifetime)?,
            }),
        };
        let mut view = Self {
            source: text.to_owned(),
            lateness: duration("view", "lateness", &read.lateness)?,
            label_delay: duration("view", "label_delay", &read.label_delay)?,
            max_events: read.max_events_per_entity,
            name: read.name,
            version: read.version,
            time_zone: read.time_zone,
            served_only: read.served_only,
            fleet,
            entities: read.entity.into_iter().map(entity).collect(),
            values: read.value.into_iter().map(value).collect(),
            features: Vec::new(),
        };
        view.check_head()?;
        for text in read.feature {
            let feature = view.feature(text)?;
            view.features.push(feature);
        }
        view.check_features()?;
        Ok(view)
    }

    fn check_head(&self) -> Result<(), ViewError> {
        let name_fits = (1..=63).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !name_fits {
            return Err(wrong("view", format!("name {:?} does not match [a-z0-9-]{{1,63}}", self.name)));
        }
        if self.version == 0 {
            return Err(wrong("view", "version is 0; the first is 1".to_owned()));
        }
        if self.max_events < 16 {
            let found = self.max_events;
            return Err(wrong("view", format!("max_events_per_entity is {found}; at least 16 are kept")));
        }
        Calendar::zone(&self.time_zone).map_err(|problem| wrong("view", problem))?;
        let fields = self.entities.iter().map(|field| ("entity", &field.name));
        let fields: Vec<_> = fields.chain(self.values.iter().map(|field| ("value", &field.name))).collect();
        for (at, (kind, name)) in fields.iter().enumerate() {
            check_column(kind, name)?;
            if fields[..at].iter().any(|(_, other)| other == name) {
                return Err(wrong(&format!("{kind} {name:?}"), "the name is used twice".to_owned()));
            }
        }
        Ok(())
    }

    fn check_features(&self) -> Result<(), ViewError> {
        if self.features.is_empty() || self.features.len() > MAX_FEATURES {
            let found = self.features.len();
            return Err(wrong("view", format!("it has {found} features; 1 to {MAX_FEATURES} are allowed")));
        }
        for (at, feature) in self.features.iter().enumerate() {
            if self.features[..at].iter().any(|other| other.name == feature.name) {
                return Err(wrong(&format!("feature {:?}", feature.name), "the name is used twice".to_owned()));
            }
        }
        if self.served_only && self.has_scope(Scope::Fleet) {
            // The hub computes those from all events of all devices.
            return Err(wrong(
                "view",
                "served_only is true, though a feature has fleet scope: it needs every event".into(),
            ));
        }
        match (self.has_scope(Scope::Fleet), self.fleet) {
            (true, None) => Err(wrong("fleet", "missing, though a feature has fleet scope".to_owned())),
            (false, Some(_)) => Err(wrong("fleet", "given, though no feature has fleet scope".to_owned())),
            _ => Ok(()),
        }
    }

    fn feature(&self, text: FeatureText) -> Result<Feature, ViewError> {
        check_column("feature", &text.name)?;
        let place = format!("feature {:?}", text.name);
        let is_window = matches!(text.kind, KindText::Count | KindText::Sum | KindText::Mean | KindText::LabelShare);
        let takes_value = matches!(text.kind, KindText::Value | KindText::Sum | KindText::Mean);
        for (key, given, wanted) in [
            ("value", text.value.is_some(), takes_value),
            ("hours", text.hours.is_some(), text.kind == KindText::Night),
            ("entity", text.entity.is_some(), is_window),
            ("window", text.window.is_some(), is_window),
        ] {
            match (given, wanted) {
                (false, true) => return Err(wrong(&place, format!("key {key:?} is missing for this kind"))),
                (true, false) => return Err(wrong(&place, format!("key {key:?} does not belong to this kind"))),
                _ => {}
            }
        }
        if text.delay.is_some() && !is_window {
            return Err(wrong(&place, "key \"delay\" does not belong to this kind".to_owned()));
        }
        if !text.default.is_finite() {
            return Err(wrong(&place, format!("default is {}; it must be finite", text.default)));
        }
        let scope = match (text.scope, is_window) {
            (None | Some(ScopeText::Event), false) => Scope::Event,
            (Some(ScopeText::Device), true) => Scope::Device,
            (Some(ScopeText::Fleet), true) => Scope::Fleet,
            (Some(_), false) => return Err(wrong(&place, "only windows have a scope other than \"event\"".to_owned())),
            (_, true) => return Err(wrong(&place, "a window needs scope \"device\" or \"fleet\"".to_owned())),
        };
        let value = match &text.value {
            Some(name) => Some(self.numeric_value(&place, name, is_window)?),
            None => None,
        };
        let kind = match (text.kind, value) {
            (KindText::Value, Some(value)) => FeatureKind::Value(value),
            (KindText::Night, _) => self.night(&place, text.hours)?,
            (KindText::Count, _) => self.window(&place, &text, scope, Aggregate::Count)?,
            (KindText::LabelShare, _) => self.window(&place, &text, scope, Aggregate::LabelShare)?,
            (KindText::Sum, Some(value)) => self.window(&place, &text, scope, Aggregate::Sum(value))?,
            (KindText::Mean, Some(value)) => self.window(&place, &text, scope, Aggregate::Mean(value))?,
            // Value, sum and mean without a value were refused above.
            (KindText::Weekend | KindText::Value | KindText::Sum | KindText::Mean, _) => FeatureKind::Weekend,
        };
        Ok(Feature { name: text.name, kind, scope, default: text.default })
    }

    fn numeric_value(&self, place: &str, name: &str, in_window: bool) -> Result<usize, ViewError> {
        let Some(at) = self.values.iter().position(|field| field.name == name) else {
            let known: Vec<_> = self.values.iter().map(|field| field.name.as_str()).collect();
            return Err(wrong(place, format!("value {name:?} does not exist; the view has {}", known.join(", "))));
        };
        let field = &self.values[at];
        if field.kind == ValueKind::Text {
            return Err(wrong(place, format!("value {name:?} is a text; a number is expected")));
        }
        if in_window && !field.required {
            // A window cannot tell a missing value from 0.
            return Err(wrong(place, format!("value {name:?} must be required to enter a window")));
        }
        Ok(at)
    }

    fn night(&self, place: &str, hours: Option<[u8; 2]>) -> Result<FeatureKind, ViewError> {
        match hours {
            Some([first, last]) if first < 24 && last < 24 => Ok(FeatureKind::Night { first, last }),
            found => Err(wrong(place, format!("hours are {found:?}; two from 0 to 23 are expected"))),
        }
    }

    fn window(
        &self,
        place: &str,
        text: &FeatureText,
        scope: Scope,
        aggregate: Aggregate,
    ) -> Result<FeatureKind, ViewError> {
        let name = text.entity.as_deref().unwrap_or_default();
        let Some(entity) = self.entities.iter().position(|field| field.name == name) else {
            let known: Vec<_> = self.entities.iter().map(|field| field.name.as_str()).collect();
            return Err(wrong(place, format!("entity {name:?} does not exist; the view has {}", known.join(", "))));
        };
        let length = positive(place, "window", text.window.as_deref().unwrap_or_default())?;
        let delay = match &text.delay {
            Some(delay) => duration(place, "delay", delay)?,
            None => 0,
        };
        if aggregate == Aggregate::LabelShare {
            if scope != Scope::Fleet {
                return Err(wrong(place, "labels are known at the hub only: scope \"fleet\" is expected".to_owned()));
            }
            if delay < self.label_delay || delay == 0 {
                // Otherwise training would see labels that serving could not have had.
                let problem = "delay must be more than 0 and at least the view's label_delay";
                return Err(wrong(place, problem.to_owned()));
            }
        }
        Ok(FeatureKind::Window(Window { aggregate, entity, length, delay }))
    }
}

fn entity(text: EntityText) -> EntityField {
    let kind = match text.kind {
        EntityKindText::Int => EntityKind::Int,
        EntityKindText::Text => EntityKind::Text,
    };
    EntityField { name: text.name, kind }
}

fn value(text: ValueText) -> ValueField {
    let kind = match text.kind {
        ValueKindText::Bool => ValueKind::Bool,
        ValueKindText::Int => ValueKind::Int,
        ValueKindText::Double => ValueKind::Double,
        ValueKindText::Text => ValueKind::Text,
    };
    ValueField { name: text.name, kind, unit: text.unit, required: text.required }
}

fn check_column(kind: &str, name: &str) -> Result<(), ViewError> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let place = format!("{kind} {name:?}");
    if !fits {
        return Err(wrong(&place, "the name does not match [a-z0-9_]{1,63}".to_owned()));
    }
    if RESERVED.contains(&name) {
        return Err(wrong(&place, "the name is a column that the lake has in any case".to_owned()));
    }
    Ok(())
}

fn wrong(place: &str, problem: String) -> ViewError {
    ViewError::Wrong { place: place.to_owned(), problem }
}

fn positive(place: &str, key: &str, text: &str) -> Result<i64, ViewError> {
    match duration(place, key, text)? {
        0 => Err(wrong(place, format!("{key} is {text:?}; more than 0 is expected"))),
        micros => Ok(micros),
    }
}

/// A whole number and a unit: `90s`, `15m`, `1h`, `30d`. At most 100 years, so that sums of instants cannot overflow.
fn duration(place: &str, key: &str, text: &str) -> Result<i64, ViewError> {
    const MAX: i64 = 36_500 * 86_400_000_000;
    let refuse = || wrong(place, format!("{key} is {text:?}; expected a whole number with ms, s, m, h or d"));
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(refuse()),
    };
    let micros = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
    micros.filter(|micros| *micros <= MAX).ok_or_else(refuse)
}
