//! What the hub has to sign now. Pure: what it looks at is handed in.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_process::config::HumanDuration;
use tributary_wire::Micros;

/// How long what the hub signs is good for. Everything is signed again at half of its life, so that a hub that stands
/// still has that long to come back before devices refuse to begin installations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Of a timestamp: how old a picture of the repository may be shown to devices by somebody in between.
    pub timestamp: HumanDuration,
    /// Of a snapshot.
    pub snapshot: HumanDuration,
    /// Of the role of an unattended line.
    pub line: HumanDuration,
    /// How often the hub looks whether something is to be signed again.
    pub interval: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            timestamp: HumanDuration(Duration::from_secs(DAY)),
            snapshot: HumanDuration(Duration::from_secs(7 * DAY)),
            line: HumanDuration(Duration::from_secs(30 * DAY)),
            interval: HumanDuration(Duration::from_secs(60)),
        }
    }
}

impl Config {
    /// Refuses lifetimes that would run out between two looks.
    pub fn check(&self) -> anyhow::Result<()> {
        for (name, life) in [("timestamp", self.timestamp), ("snapshot", self.snapshot), ("line", self.line)] {
            let least = HumanDuration(self.interval.0 * 4);
            anyhow::ensure!(
                life.0 >= least.0,
                "publish.{name} is {life}, expected at least four times publish.interval: {least}"
            );
        }
        Ok(())
    }
}

/// What is known of a role that the hub signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its newest version.
    pub version: u64,
    /// When that expires.
    pub expires: Micros,
    /// Whether the keys that count now have signed it.
    pub accepted: bool,
    /// Whether it says what it should say now.
    pub current: bool,
}

/// Everything that the decision needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// The unattended lines, by role.
    pub lines: Vec<(String, Option<Held>)>,
    /// The snapshot; `current`: before any of the lines is signed again.
    pub snapshot: Option<Held>,
    /// The timestamp; `current`: before the snapshot is signed again.
    pub timestamp: Option<Held>,
    /// The highest version that any device trusts, of a snapshot
    pub reported_snapshot: u64,
    /// and of a timestamp.
    pub reported_timestamp: u64,
}

/// Why something is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It was never signed.
    New,
    /// It has to say something else.
    Changed,
    /// Other keys count now.
    Keys,
    /// Half of its life is over.
    Age,
    /// It is good for longer than the settings allow: they were shortened, or the clock was wrong.
    Long,
    /// Devices trust a higher version: the catalog was restored from a backup.
    Behind,
}

/// What is to be signed, each with its reason and its new version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Roles of lines.
    pub lines: Vec<(String, Why, u64)>,
    /// The snapshot.
    pub snapshot: Option<(Why, u64)>,
    /// The timestamp.
    pub timestamp: Option<(Why, u64)>,
}

/// Decides. Whatever is signed takes the files that name it along.
///
/// A line's role takes at least the number of the snapshot that first names it. So no device can trust a higher version
/// of it than of the snapshot, and after a restored backup the snapshots that devices report say how far to go.
pub fn plan(situation: &Situation, config: &Config, now: Micros) -> Plan {
    let Situation { lines, snapshot, timestamp, reported_snapshot, reported_timestamp } = situation;
    let next = |held: &Option<Held>, reported: u64| held.map_or(0, |held| held.version).max(reported) + 1;
    let next_snapshot = next(snapshot, *reported_snapshot);
    let behind = snapshot.is_some_and(|held| held.version < *reported_snapshot).then_some(Why::Behind);
    let lines: Vec<_> = lines
        .iter()
        .filter_map(|(role, held)| {
            let why = due(held.as_ref(), config.line.0, now).or(behind)?;
            Some((role.clone(), why, next(held, 0).max(next_snapshot)))
        })
        .collect();
    let changed = |taken_along: bool| taken_along.then_some(Why::Changed);
    let why = due(snapshot.as_ref(), config.snapshot.0, now).or(behind).or(changed(!lines.is_empty()));
    let snapshot = why.map(|why| (why, next_snapshot));
    let behind = timestamp.is_some_and(|held| held.version < *reported_timestamp).then_some(Why::Behind);
    let why = due(timestamp.as_ref(), config.timestamp.0, now).or(behind).or(changed(snapshot.is_some()));
    let timestamp = why.map(|why| (why, next(timestamp, *reported_timestamp)));
    Plan { lines, snapshot, timestamp }
}

fn due(held: Option<&Held>, life: Duration, now: Micros) -> Option<Why> {
    let Some(held) = held else { return Some(Why::New) };
    let life = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
    let left = held.expires.since(now);
    match held {
        Held { accepted: false, .. } => Some(Why::Keys),
        Held { current: false, .. } => Some(Why::Changed),
        _ if left <= life / 2 => Some(Why::Age),
        // A little more than a life is what rounding to whole seconds, and a clock that was set, may leave.
        _ if left > life + life / 8 => Some(Why::Long),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * Micros::SECOND;

    fn held(version: u64, hours: i64) -> Held {
        Held { version, expires: Micros(hours * HOUR), accepted: true, current: true }
    }

    fn calm() -> Situation {
        Situation {
            lines: vec![
                ("models/a".to_owned(), Some(held(3, 30 * 24))),
                ("models/b".to_owned(), Some(held(9, 16 * 24))),
            ],
            snapshot: Some(held(20, 7 * 24)),
            timestamp: Some(held(40, 24)),
            reported_snapshot: 20,
            reported_timestamp: 40,
        }
    }

    fn at(situation: &Situation, hour: i64) -> Plan {
        plan(situation, &Config::default(), Micros(hour * HOUR))
    }

    #[test]
    fn nothing_is_signed_while_everything_is_fresh_and_says_what_it_should() {
        assert_eq!(at(&calm(), 0), Plan::default());
        assert_eq!(at(&calm(), 11), Plan::default());
    }

    #[test]
    fn each_role_is_signed_again_at_half_of_its_life_and_takes_along_what_names_it() {
        let timestamp = Some((Why::Age, 41));
        assert_eq!(at(&calm(), 12), Plan { timestamp, ..Plan::default() });
        let mut older = calm();
        older.timestamp = Some(held(40, 200));
        older.lines.pop();
        let plan = at(&older, 84);
        assert_eq!(plan.snapshot, Some((Why::Age, 21)));
        let plan = at(&calm(), 2 * 24);
        assert_eq!(plan.lines, [("models/b".to_owned(), Why::Age, 21)], "at least the number of its snapshot");
        assert_eq!((plan.snapshot, plan.timestamp), (Some((Why::Changed, 21)), Some((Why::Age, 41))));
    }

    #[test]
    fn what_is_new_changed_or_signed_by_keys_that_no_longer_count_is_signed() {
        let mut situation = calm();
        situation.lines = vec![
            ("models/a".to_owned(), None),
            ("models/b".to_owned(), Some(Held { current: false, ..held(30, 30 * 24) })),
            ("models/c".to_owned(), Some(Held { accepted: false, ..held(2, 30 * 24) })),
        ];
        let plan = at(&situation, 0);
        let expected = [("models/a", Why::New, 21), ("models/b", Why::Changed, 31), ("models/c", Why::Keys, 21)];
        assert_eq!(plan.lines, expected.map(|(role, why, version)| (role.to_owned(), why, version)));
        assert_eq!((plan.snapshot, plan.timestamp), (Some((Why::Changed, 21)), Some((Why::Changed, 41))));
        let first = at(&Situation { lines: vec![("models/a".to_owned(), None)], ..Situation::default() }, 0);
        assert_eq!((first.lines[0].2, first.snapshot, first.timestamp), (1, Some((Why::New, 1)), Some((Why::New, 1))));
    }

    #[test]
    fn after_a_restored_backup_everything_is_signed_above_what_devices_trust() {
        let behind = Situation { reported_snapshot: 25, reported_timestamp: 99, ..calm() };
        let plan = at(&behind, 0);
        assert_eq!(plan.lines.iter().map(|line| line.2).collect::<Vec<_>>(), [26, 26]);
        assert_eq!((plan.snapshot, plan.timestamp), (Some((Why::Behind, 26)), Some((Why::Behind, 100))));
        let timestamp_only = at(&Situation { reported_timestamp: 41, ..calm() }, 0);
        assert_eq!(timestamp_only, Plan { timestamp: Some((Why::Behind, 42)), ..Plan::default() });
    }

    #[test]
    fn what_is_good_for_too_long_is_replaced_and_lifetimes_shorter_than_looks_are_refused() {
        let long = Situation { timestamp: Some(held(40, 1_000)), ..calm() };
        assert_eq!(at(&long, 0).timestamp, Some((Why::Long, 41)));
        Config::default().check().unwrap();
        let short = Config { timestamp: HumanDuration(Duration::from_secs(100)), ..Config::default() };
        assert!(short.check().unwrap_err().to_string().contains("publish.timestamp"));
    }
}
