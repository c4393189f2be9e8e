//! Is what a version sees still what it was trained on?
//!
//! A signal counts only when it is significant (false discovery controlled over all signals of a window), larger
//! than the owner cares about *and* than the reference's own days differ, and present in consecutive windows. Each
//! condition alone raises false alarms: with enough rows everything is significant, one odd day is large.

use serde::{Deserialize, Serialize};
use tributary_stats::{DriftTest, Reference, Sketch, discovery, drift};

/// When a model line's inputs and outputs count as drifted, and its labels as disappointing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether the line is watched at all.
    pub enabled: bool,
    /// Length of a window in whole UTC days of event time. Whole weeks keep the weekday out of the comparison.
    pub window_days: u32,
    /// Share of false ones among the signals believed in a window.
    pub false_discovery: f64,
    /// Population stability index that the lower confidence limit must exceed.
    pub min_effect: f64,
    /// How many times further than the reference's most unusual day a window must lie.
    pub spread_factor: f64,
    /// Change of a share (of missing values) that the lower confidence limit must exceed.
    pub min_share_change: f64,
    /// In how many consecutive windows a signal must be present.
    pub consecutive: u32,
    /// A window with fewer predictions is not judged.
    pub min_predictions: u64,
    /// What labels say.
    pub quality: crate::quality::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            window_days: 7,
            false_discovery: 0.01,
            min_effect: 0.1,
            spread_factor: 1.5,
            min_share_change: 0.05,
            consecutive: 2,
            min_predictions: 1_000,
            quality: crate::quality::Settings::default(),
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {expected}, found {found}")]
pub struct SettingsError {
    /// Which one.
    pub setting: &'static str,
    /// What it may be.
    pub expected: &'static str,
    /// What it is.
    pub found: String,
}

pub(crate) fn require(
    holds: bool,
    setting: &'static str,
    expected: &'static str,
    found: impl ToString,
) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError { setting, expected, found: found.to_string() }) }
}

impl Settings {
    /// Refuses settings that would never or always alarm.
    pub fn check(&self) -> Result<(), SettingsError> {
        let share = |value: f64| value > 0.0 && value < 1.0;
        let days = self.window_days;
        require((1..=366).contains(&days), "drift.window_days", "1 to 366", days)?;
        require(share(self.false_discovery), "drift.false_discovery", "between 0 and 1", self.false_discovery)?;
        require(self.min_effect >= 0.0, "drift.min_effect", "0 or more", self.min_effect)?;
        require(self.spread_factor >= 0.0, "drift.spread_factor", "0 or more", self.spread_factor)?;
        require(share(self.min_share_change), "drift.min_share_change", "between 0 and 1", self.min_share_change)?;
        require((1..=52).contains(&self.consecutive), "drift.consecutive", "1 to 52", self.consecutive)?;
        self.quality.check()
    }
}

/// What a signal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalKind {
    /// The law of a feature.
    Input,
    /// The share of values of a feature that are missing or not finite.
    Missing,
    /// The law of the model's output.
    Output,
    /// Agreement with labels.
    Quality,
}

impl std::fmt::Display for SignalKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Missing => "missing",
            Self::Output => "output",
            Self::Quality => "quality",
        })
    }
}

/// One comparison of one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What it is about.
    pub kind: SignalKind,
    /// Name of the feature, `output`, or the metric.
    pub name: String,
    /// Probability of something at least as extreme without change.
    pub p_value: f64,
    /// How much changed.
    pub effect: f64,
    /// Lower 95 % confidence limit of that.
    pub effect_lower: f64,
    /// What the limit has to exceed.
    pub threshold: f64,
    /// Whether it counts.
    pub drifted: bool,
}

/// Everything compared in one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// First instant of the window, UTC microseconds of event time.
    pub start: i64,
    /// First instant after it.
    pub end: i64,
    /// Predictions in it.
    pub predictions: u64,
    /// Why it was not judged, if it was not.
    pub skipped: Option<String>,
    /// One per comparison.
    pub signals: Vec<Signal>,
}

/// A reference of fewer days has not seen every weekday, so its spread is not known,
const WHOLE_WEEK: u32 = 7;
/// and more is asked of an effect: from the default 0.1 to the 0.25 that the literature calls a major shift.
const UNKNOWN_SPREAD: f64 = 2.5;

/// Compares one window with the references of the package.
pub fn judge(settings: &Settings, inputs: &[Reference], output: &Reference, window: &Sketch) -> Findings {
    let (start, end, predictions) = (window.window.start, window.window.end, window.predictions);
    let skip = |reason: String| Findings { start, end, predictions, skipped: Some(reason), signals: Vec::new() };
    if predictions < settings.min_predictions {
        return skip(format!("{predictions} predictions, {} are needed", settings.min_predictions));
    }
    let seen = inputs.iter().zip(&window.inputs).chain([(output, &window.output)]);
    if inputs.len() != window.inputs.len()
        || seen.clone().any(|(reference, seen)| reference.histogram.fingerprint != seen.fingerprint)
    {
        return skip("its bins are not those of the package".to_owned());
    }
    let mut signals = Vec::with_capacity(2 * inputs.len() + 1);
    for (index, (reference, seen)) in seen.enumerate() {
        let spread = &reference.spread;
        let law = drift::psi(&reference.histogram.counts, &seen.counts, spread.design_effect);
        let known = if spread.windows < WHOLE_WEEK { UNKNOWN_SPREAD } else { 1.0 };
        let threshold = (known * settings.min_effect).max(settings.spread_factor * spread.psi_max);
        let kind = if index < inputs.len() { SignalKind::Input } else { SignalKind::Output };
        signals.extend(law.map(|test| signal(kind, &reference.name, &test, threshold)));
        if kind == SignalKind::Input {
            let share = |h: &tributary_stats::Histogram| (h.unusable(), h.unusable() + h.total());
            let missing = drift::share(share(&reference.histogram), share(seen), spread.design_effect);
            let threshold = settings.min_share_change;
            signals.extend(missing.map(|test| signal(SignalKind::Missing, &reference.name, &test, threshold)));
        }
    }
    let p_values: Vec<f64> = signals.iter().map(|signal| signal.p_value).collect();
    let believed = discovery::benjamini_hochberg(&p_values, settings.false_discovery);
    for (signal, believed) in signals.iter_mut().zip(believed) {
        signal.drifted = believed && signal.effect_lower > signal.threshold;
    }
    Findings { start, end, predictions, skipped: None, signals }
}

fn signal(kind: SignalKind, name: &str, test: &DriftTest, threshold: f64) -> Signal {
    Signal {
        kind,
        name: name.to_owned(),
        p_value: test.p_value,
        effect: test.effect,
        effect_lower: test.effect_lower,
        threshold,
        drifted: false,
    }
}

/// The signals that count now: those drifted in each of the last `consecutive` judged windows. Windows come oldest
/// first; skipped ones neither count nor break a row. The strongest stands first.
pub fn verdict(consecutive: u32, windows: &[Findings]) -> Vec<Signal> {
    let needed = consecutive.max(1) as usize;
    let judged: Vec<&Findings> = windows.iter().rev().filter(|w| w.skipped.is_none()).take(needed).collect();
    let Some((last, earlier)) = judged.split_first() else { return Vec::new() };
    if judged.len() < needed {
        return Vec::new();
    }
    let drifted_in = |window: &Findings, signal: &Signal| {
        window.signals.iter().any(|s| s.drifted && s.kind == signal.kind && s.name == signal.name)
    };
    let stays = |signal: &&Signal| signal.drifted && earlier.iter().all(|window| drifted_in(window, signal));
    let mut found: Vec<Signal> = last.signals.iter().filter(stays).cloned().collect();
    let strength = |signal: &Signal| signal.effect_lower / signal.threshold.max(1e-9);
    found.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
    found
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
