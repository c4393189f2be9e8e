//! What a reader of a feature row should know about how it came to be.

use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

/// A set of marks; its bits are a column of the lake and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(u32);

impl Marks {
    /// No mark.
    pub const NONE: Self = Self(0);
    /// A window reaches back into a time whose events this device has lost.
    pub const COLD: Self = Self(1);
    /// No snapshot of fleet-scope features is here; they are the declared defaults.
    pub const FLEET_MISSING: Self = Self(1 << 1);
    /// The snapshot is older than its lifetime; fleet-scope features are the declared defaults.
    pub const FLEET_STALE: Self = Self(1 << 2);
    /// The event came after a later one. Its windows are exact over what had come.
    pub const LATE: Self = Self(1 << 3);
    /// The event came after the lateness bound: window features are the declared defaults, and it entered no window.
    pub const TOO_LATE: Self = Self(1 << 4);
    /// A window had more events than are kept; the oldest are left out.
    pub const TRUNCATED: Self = Self(1 << 5);
    /// An optional value was left out; its feature is the declared default.
    pub const VALUE_MISSING: Self = Self(1 << 6);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::COLD, "cold"),
        (Self::FLEET_MISSING, "fleet-missing"),
        (Self::FLEET_STALE, "fleet-stale"),
        (Self::LATE, "late"),
        (Self::TOO_LATE, "too-late"),
        (Self::TRUNCATED, "truncated"),
        (Self::VALUE_MISSING, "value-missing"),
    ];

    /// As a number.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From a number; bits that this build does not know are kept.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names of the marks that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(mark, _)| self.contains(*mark)).map(|(_, name)| name)
    }
}

impl BitOr for Marks {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Marks {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
