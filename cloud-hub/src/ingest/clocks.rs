//! Devices whose clock is off, told by what a report was stamped with when it came.

use serde_json::json;
use sqlx::SqliteConnection;
use tributary_process::checkup::span;
use tributary_wire::{DeviceId, Micros};

use crate::catalog::alerts;

/// The kind of the alert; its subject is the device.
pub(super) const KIND: &str = "device-clock";
/// As devices judge themselves.
const LIMIT: i64 = 300 * Micros::SECOND;
/// 2020-01-01. A clock before this was never set: such a device goes by the times that it sees signed.
const NEVER_SET: Micros = Micros(1_577_836_800_000_000);

/// Raises the alert of a device whose clock is off, or resolves it.
pub(super) async fn look(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    stamped: Micros,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let Some(ahead) = off(stamped, now) else {
        return alerts::resolve(connection, KIND, device.as_str(), now).await.map(drop);
    };
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let detail = json!({
        "problem": format!("the clock of this device is {} {side} the hub's", span(ahead)),
        "device_time": stamped, "hub_time": now,
        "next": "have the device's clock kept by a time service: it judges certificates and signed metadata by it; if \
                 many devices are off by as much, look at the hub's own clock",
    });
    let alert = alerts::Raise { kind: KIND, subject: device.as_str(), severity: "warning", detail };
    alerts::raise(connection, alert, now).await.map(drop)
}

/// How far a clock is ahead, where that is too far.
fn off(stamped: Micros, now: Micros) -> Option<i64> {
    let ahead = stamped.since(now);
    (stamped >= NEVER_SET && ahead.unsigned_abs() > LIMIT.unsigned_abs()).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    const NOW: Micros = Micros(1_800_000_000_000_000);

    #[test]
    fn a_clock_is_off_by_more_than_minutes_unless_it_was_never_set() {
        let at = |ahead: i64| off(Micros(NOW.0 + ahead), NOW);
        assert_eq!((at(0), at(LIMIT), at(-LIMIT)), (None, None, None));
        assert_eq!((at(LIMIT + 1), at(-LIMIT - 1)), (Some(LIMIT + 1), Some(-LIMIT - 1)));
        assert_eq!(off(Micros(3_600 * Micros::SECOND), NOW), None, "an hour after it woke up in 1970");
        assert_eq!(off(Micros(i64::MAX), NOW), Some(i64::MAX - NOW.0));
        assert_eq!(off(Micros(i64::MIN), NOW), None);
    }

    #[tokio::test]
    async fn the_alert_of_a_device_opens_once_and_ends_when_its_clock_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
        let device = DeviceId::new("edge-1").unwrap();
        for (ahead, state, times) in [(2 * Micros::HOUR, "open", 1), (2 * Micros::HOUR, "open", 2), (0, "resolved", 2)]
        {
            let mut write = catalog.write().await.unwrap();
            look(&mut write, &device, Micros(NOW.0 + ahead), NOW).await.unwrap();
            write.commit().await.unwrap();
            let query = "select subject, state, times, detail from alerts where kind = 'device-clock'";
            let found: Vec<(String, String, i64, String)> =
                sqlx::query_as(query).fetch_all(catalog.reader()).await.unwrap();
            let [(subject, is, counted, detail)] = &found[..] else { panic!("{found:?}") };
            assert_eq!((subject.as_str(), is.as_str(), *counted), ("edge-1", state, times));
            assert!(detail.contains("2 h ahead of"), "{detail}");
        }
    }
}
