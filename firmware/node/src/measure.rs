//! Readings become windows, windows become records.

use tributary_signal::{Analysis, Model};
use tributary_wire::link::{About, Health, Numbers, RAW_SAMPLES, RawPart, Record, Sensor, WINDOW};

use crate::analyzer::Analyzer;
use crate::node::Identity;
use crate::records::Records;
use crate::sampler::Reading;

const HEALTH_EVERY: u64 = 10_000_000;
/// An anomaly sends its raw window, but not more often than this: raw windows would push all else out of the store.
const RAW_EVERY: u64 = 60_000_000;

/// What a node measures, and the records it makes of it.
#[derive(Debug)]
pub(crate) struct Measure<'a, const AXES: usize, const N: usize, const B: usize> {
    identity: Identity<'a>,
    rate: u32,
    hop: usize,
    threshold: Option<u32>,
    analyzer: Analyzer<'a, AXES, N, B>,
    pub(crate) records: Records<'a>,
    /// Windows to send raw because somebody asked.
    pub(crate) raw_windows: u8,
    raw_after: u64,
    /// Records of earlier lives that nobody had when these ended.
    pub(crate) dropped: u32,
    pub(crate) health: Health,
    health_due: u64,
    next_reading: u32,
}

impl<'a, const AXES: usize, const N: usize, const B: usize> Measure<'a, AXES, N, B> {
    /// Parts of a raw window. An agent acknowledges them only when it has all, so more than may be on their way at once
    /// would wait for each other for ever: longer windows are never sent raw.
    const RAW_PARTS: usize = N.div_ceil(RAW_SAMPLES);
    pub(crate) const CAN_SEND_RAW: bool = Self::RAW_PARTS <= WINDOW as usize;

    pub(crate) fn new(
        identity: Identity<'a>,
        rate: u32,
        hop: usize,
        analysis: Analysis<B>,
        model: Option<Model<'a>>,
        memory: &'a mut [u8],
    ) -> Self {
        Self {
            identity,
            rate,
            hop,
            threshold: model.as_ref().map(Model::threshold),
            analyzer: Analyzer::new(hop, analysis, model),
            records: Records::new(memory),
            raw_windows: 0,
            raw_after: 0,
            dropped: 0,
            health: Health::default(),
            health_due: HEALTH_EVERY,
            next_reading: 1,
        }
    }

    pub(crate) fn identity(&self) -> &Identity<'a> {
        &self.identity
    }

    /// Takes a reading. `ticks` reads the clock that [`Identity::ticks`] is of; it may wrap.
    pub(crate) fn take(&mut self, reading: Reading<AXES>, ticks: impl Fn() -> u32) {
        let lost = reading.number.wrapping_sub(self.next_reading);
        self.next_reading = reading.number.wrapping_add(1);
        self.health.samples = self.health.samples.saturating_add(1);
        // Those were never taken, and the window goes on: a machine whose timer now and then stumbles still has windows.
        self.health.overrun = self.health.overrun.saturating_add(reading.missed);
        if lost > 0 {
            self.health.overrun = self.health.overrun.saturating_add(lost);
            self.analyzer.clear();
        }
        let changed = core::mem::replace(&mut self.health.sensor, reading.sensor) != reading.sensor;
        match reading.values {
            // What a stuck sensor says would teach a model that silence is healthy, so there are no windows of it.
            Some(values) if reading.sensor == Sensor::Well => {
                if self.analyzer.push(values) {
                    self.analyze(reading.uptime, reading.temperature, ticks);
                }
            }
            values => {
                self.analyzer.clear();
                let failed = u32::from(values.is_none());
                self.health.sensor_errors = self.health.sensor_errors.saturating_add(failed);
            }
        }
        if changed {
            self.tell_health(reading.uptime);
        }
    }

    fn analyze(&mut self, uptime: u64, temperature: Option<i16>, ticks: impl Fn() -> u32) {
        let begun = ticks();
        let mut anomaly = false;
        for axis in 0..AXES {
            let window = self.analyzer.features(axis);
            anomaly |= window.score.zip(self.threshold).is_some_and(|(score, threshold)| score > threshold);
            self.records.keep(uptime, &Record::Features(window.told(temperature)));
        }
        self.health.windows = self.health.windows.saturating_add(1);
        self.health.busiest = self.health.busiest.max(ticks().wrapping_sub(begun));
        let asked = self.raw_windows > 0;
        if Self::CAN_SEND_RAW && (asked || anomaly && uptime >= self.raw_after) {
            self.raw_windows = self.raw_windows.saturating_sub(1);
            if !asked {
                self.raw_after = uptime.saturating_add(RAW_EVERY);
            }
            (0..AXES).for_each(|axis| self.tell_raw(uptime, axis));
        }
    }

    fn tell_raw(&mut self, uptime: u64, axis: usize) {
        let (window, of) = (self.analyzer.number(), Self::RAW_PARTS as u8);
        for part in 0..of {
            let (mut bytes, mut length) = ([0; 2 * RAW_SAMPLES], 0);
            let samples = self.analyzer.samples(axis).skip(usize::from(part) * RAW_SAMPLES).take(RAW_SAMPLES);
            for (place, sample) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
                *place = sample.to_le_bytes();
                length += 2;
            }
            let raw = RawPart { window, axis: axis as u8, part, of, samples: &bytes[..length] };
            self.records.keep(uptime, &Record::Raw(raw));
        }
    }

    /// What the node is.
    pub(crate) fn about(&self) -> About<'a> {
        let Identity { kind, firmware, count, ticks, starts, .. } = self.identity;
        About {
            kind,
            firmware,
            rate: self.rate,
            window: N as u16,
            hop: self.hop as u16,
            axes: AXES as u8,
            band_ends: Numbers::new(self.analyzer.analysis().ends().iter().map(|end| u32::from(*end))),
            count,
            threshold: self.threshold,
            ticks,
            starts,
        }
    }

    pub(crate) fn tell_about(&mut self, uptime: u64) {
        let about = self.about();
        self.records.keep(uptime, &Record::About(about));
    }

    pub(crate) fn tell_health(&mut self, uptime: u64) {
        self.health_due = uptime.saturating_add(HEALTH_EVERY);
        let health = self.health();
        self.records.keep(uptime, &Record::Health(health));
    }

    /// How the node is.
    pub(crate) fn health(&self) -> Health {
        Health { overwritten: self.dropped.saturating_add(self.records.overwritten()), ..self.health }
    }

    /// What [`Self::health`] would call overwritten if the program ended now.
    pub(crate) fn dropped(&self) -> u32 {
        self.health().overwritten.saturating_add(self.records.len())
    }

    /// Tells how the node is when it is time to; whether it was.
    pub(crate) fn tell_health_if_due(&mut self, now: u64) -> bool {
        let due = now >= self.health_due;
        if due {
            self.tell_health(now);
        }
        due
    }

    /// A frame was damaged, or not for this node.
    pub(crate) fn refuse(&mut self) {
        self.health.refused = self.health.refused.saturating_add(1);
    }

    pub(crate) fn set_rate(&mut self, rate: u32, now: u64) {
        self.rate = rate;
        self.analyzer.clear();
        self.tell_about(now);
    }

    /// Whether there is a model whose scores it could be compared with.
    pub(crate) fn set_threshold(&mut self, score: u32, now: u64) -> bool {
        let known = self.threshold.is_some();
        if known {
            self.threshold = Some(score);
            self.tell_about(now);
        }
        known
    }
}
