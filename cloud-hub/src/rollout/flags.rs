//! Flags for the applications beside the agents: given to devices by their labels or by name, delivered in assignments.

use std::collections::BTreeMap;

use cloud_hub_core::selector::Selector;
use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, Micros};

use super::RolloutError;
use super::fleet::labels_of_device;
use crate::audit::{self, Change};

/// Different flags at most: all of them travel in every assignment.
pub const MAX_FLAGS: i64 = 64;
/// Longest name of a flag in bytes.
pub const MAX_KEY_BYTES: usize = 63;
/// Longest value of a flag in bytes.
pub const MAX_VALUE_BYTES: usize = 256;

/// Why a flag is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No name of a flag.
    #[error("{found:?} is no name of a flag: expected 1 to {MAX_KEY_BYTES} of a-z, 0-9, '.', '_' and '-'")]
    Key {
        /// As given.
        found: String,
    },
    /// A value that is too long, or would steer a terminal.
    #[error("the value of flag {key} has {found} bytes, expected at most {MAX_VALUE_BYTES} without control characters")]
    Value {
        /// Which flag.
        key: String,
        /// How long it is.
        found: usize,
    },
    /// Too many.
    #[error("there are {MAX_FLAGS} flags already; clear one before setting {key}")]
    TooMany {
        /// Which flag.
        key: String,
    },
    /// Nobody is known under that name.
    #[error("there is no device {device}")]
    NoDevice {
        /// Which.
        device: DeviceId,
    },
}

/// Whom a flag is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One device.
    Device(DeviceId),
    /// All that have these labels.
    Labels(Selector),
}

impl Target {
    fn text(&self) -> String {
        match self {
            Self::Device(device) => format!("device/{device}"),
            Self::Labels(selector) => format!("labels/{selector}"),
        }
    }

    fn read(text: &str) -> Result<Self, RolloutError> {
        let unreadable = |problem: String| RolloutError::Unreadable { what: "the target of a flag", problem };
        match text.split_once('/') {
            Some(("device", device)) => Ok(Self::Device(DeviceId::new(device)?)),
            Some(("labels", selector)) => {
                Ok(Self::Labels(selector.parse().map_err(|error| unreadable(format!("{error}")))?))
            }
            _ => Err(unreadable(format!("{text:?}"))),
        }
    }

    /// The narrower one wins: one device over labels, more labels over fewer.
    fn narrowness(&self) -> usize {
        match self {
            Self::Device(_) => usize::MAX,
            Self::Labels(selector) => selector.labels(),
        }
    }
}

/// One flag of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// For whom.
    pub target: Target,
    /// Its name.
    pub key: String,
    /// What it says.
    pub value: String,
    /// When it was set.
    pub changed: Micros,
}

/// All flags of the fleet, by name, wider targets first.
#[derive(Debug, Clone, Default)]
pub struct Flags(Vec<Flag>);

impl Flags {
    /// As they are now.
    pub async fn read(catalog: &mut SqliteConnection) -> Result<Self, RolloutError> {
        let query = "select target, key, value, changed from flags order by key, target";
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(query).fetch_all(catalog).await?;
        let read = |(target, key, value, changed): (String, String, String, i64)| {
            Ok(Flag { target: Target::read(&target)?, key, value, changed: Micros(changed) })
        };
        let mut flags = rows.into_iter().map(read).collect::<Result<Vec<Flag>, RolloutError>>()?;
        flags.sort_by(|a, b| (&a.key, a.target.narrowness()).cmp(&(&b.key, b.target.narrowness())));
        Ok(Self(flags))
    }

    /// All of them.
    pub fn all(&self) -> &[Flag] {
        &self.0
    }

    /// What a device with these labels is told: of every name the flag of the narrowest target that means it.
    pub fn of(&self, device: &str, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let meant = self.0.iter().filter(|flag| match &flag.target {
            Target::Device(other) => other.as_str() == device,
            Target::Labels(selector) => selector.matches(labels),
        });
        // The narrowest comes last, and stays.
        meant.map(|flag| (flag.key.clone(), flag.value.clone())).collect()
    }
}

/// Sets a flag for a target, or clears it there; whether that changed anything.
pub async fn set(
    catalog: &mut SqliteConnection,
    target: &Target,
    key: &str,
    value: Option<&str>,
    now: Micros,
) -> Result<bool, RolloutError> {
    check(catalog, target, key, value).await?;
    let text = target.text();
    let query = "select value from flags where target = $1 and key = $2";
    let before: Option<String> = sqlx::query_scalar(query).bind(&text).bind(key).fetch_optional(&mut *catalog).await?;
    if before.as_deref() == value {
        return Ok(false);
    }
    let done = match value {
        Some(value) => sqlx::query(
            "insert into flags (target, key, value, changed) values ($1, $2, $3, $4)
             on conflict (target, key) do update set value = excluded.value, changed = excluded.changed",
        )
        .bind(&text)
        .bind(key)
        .bind(value)
        .bind(now.0),
        None => sqlx::query("delete from flags where target = $1 and key = $2").bind(&text).bind(key),
    };
    done.execute(&mut *catalog).await?;
    let (from, to) = (json!({"value": before}), json!({"value": value, "target": text}));
    let action = if value.is_some() { "flag.set" } else { "flag.clear" };
    audit::record(catalog, Change { action, subject: key, from, to }, now).await?;
    Ok(true)
}

async fn check(
    catalog: &mut SqliteConnection,
    target: &Target,
    key: &str,
    value: Option<&str>,
) -> Result<(), RolloutError> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if !(1..=MAX_KEY_BYTES).contains(&key.len()) || !key.chars().all(letter) {
        return Err(FlagError::Key { found: key.chars().take(MAX_KEY_BYTES).collect() }.into());
    }
    let Some(value) = value else { return Ok(()) };
    let key = key.to_owned();
    if value.len() > MAX_VALUE_BYTES || value.chars().any(char::is_control) {
        return Err(FlagError::Value { key, found: value.len() }.into());
    }
    if let Target::Device(device) = target {
        let query = "select exists (select 1 from devices where id = $1)";
        let known: bool = sqlx::query_scalar(query).bind(device.as_str()).fetch_one(&mut *catalog).await?;
        if !known {
            return Err(FlagError::NoDevice { device: device.clone() }.into());
        }
    }
    let query = "select count(distinct key) from flags where key <> $1";
    let others: i64 = sqlx::query_scalar(query).bind(&key).fetch_one(catalog).await?;
    if others >= MAX_FLAGS {
        return Err(FlagError::TooMany { key }.into());
    }
    Ok(())
}

/// The flags of one device.
pub async fn of(catalog: &mut SqliteConnection, device: &DeviceId) -> Result<Vec<(String, String)>, RolloutError> {
    let flags = Flags::read(catalog).await?;
    if flags.all().is_empty() {
        return Ok(Vec::new());
    }
    let labels = labels_of_device(catalog, device).await?;
    Ok(flags.of(device.as_str(), &labels).into_iter().collect())
}
