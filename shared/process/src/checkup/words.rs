//! Figures as people read them.

use std::time::Duration;

/// `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    // What would be shown as 1024.0 of one unit is 1.0 of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 file`, `3 files`.
pub fn count(number: u64, one: &str, more: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    }
}

/// `3.2 ms`, `1.5 s`.
pub fn millis(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// A length of time in the largest unit that says enough: `40 s`, `12 min`, `7 h`, `89 days`.
pub fn span(micros: i64) -> String {
    let seconds = micros.unsigned_abs() / 1_000_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => days(micros),
    }
}

/// `89 days`.
pub fn days(micros: i64) -> String {
    count(micros.unsigned_abs() / 86_400_000_000, "day", "days")
}
