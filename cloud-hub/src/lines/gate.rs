//! Whether drift may start a training run now. Pure: what it looks at is handed in.

use tributary_wire::Micros;

use super::{Line, Retrain};

/// Whether drift may start a run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// It may not, for this reason.
    Closed(String),
}

/// What the gate looks at beside the line's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Situation {
    /// A run of the line that has not ended.
    pub unfinished: Option<i64>,
    /// A rollout of the line that is running or paused.
    pub rollout: Option<i64>,
    /// When the last run that drift asked for ended.
    pub last_end: Option<Micros>,
    /// Event time before which that run's rows lie.
    pub last_rows: Option<Micros>,
    /// Event time before which the rows of a run would lie now.
    pub rows: Option<Micros>,
}

/// One run or rollout at a time, a pause after each run, new rows for each, and only where the line's settings say so.
pub fn gate(line: &Line, situation: Situation, now: Micros) -> Gate {
    let Situation { unfinished, rollout, last_end, last_rows, rows } = situation;
    if line.settings.retrain == Retrain::Manual {
        return Gate::Closed("the line's setting `retrain` is `manual`".to_owned());
    }
    if let Some(run) = unfinished {
        return Gate::Closed(format!("run {run} is under way"));
    }
    if let Some(rollout) = rollout {
        // Its version is the answer to what was found; another one could not be rolled out before it ends.
        return Gate::Closed(format!("rollout {rollout} is under way"));
    }
    let pause = line.settings.cool_down.0.as_micros() as i64;
    if let Some(passed) = last_end.map(|end| now.since(end)).filter(|passed| *passed < pause) {
        let (passed, left) = (passed / Micros::SECOND, (pause - passed) / Micros::SECOND);
        let whole = line.settings.cool_down;
        return Gate::Closed(format!(
            "the last such run ended {passed} s ago; {left} s of the pause of {whole} are left"
        ));
    }
    match (last_rows, rows) {
        // The same rows and the same seed would give the same model.
        (Some(last), Some(rows)) if rows.since(last) < Micros::DAY => {
            Gate::Closed("less than a day of labelled events has come since the last such run".to_owned())
        }
        _ => Gate::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LineSettings;
    use tributary_wire::LineName;

    fn line(settings: LineSettings) -> Line {
        Line {
            name: LineName::new("card-fraud").unwrap(),
            view_name: "card".to_owned(),
            view_version: 1,
            settings,
            revision: 1,
            created: Micros(0),
            changed: Micros(0),
        }
    }

    fn closed(line: &Line, situation: Situation, now: Micros, words: &str) {
        let gate = gate(line, situation, now);
        assert!(matches!(&gate, Gate::Closed(why) if why.contains(words)), "{gate:?}");
    }

    #[test]
    fn drift_starts_one_run_at_a_time_with_a_pause_after_each() {
        let line = line(LineSettings::default());
        let minute = |n: i64| Micros(n * 60 * Micros::SECOND);
        let nothing = Situation::default();
        assert_eq!(gate(&line, nothing, minute(0)), Gate::Open);
        closed(&line, Situation { unfinished: Some(3), ..nothing }, minute(0), "run 3");
        closed(&line, Situation { rollout: Some(4), ..nothing }, minute(0), "rollout 4");
        let ended = Situation { last_end: Some(minute(0)), ..nothing };
        closed(&line, ended, minute(9), "60 s of the pause");
        assert_eq!(gate(&line, ended, minute(10)), Gate::Open);
    }

    #[test]
    fn a_run_needs_a_day_of_labelled_events_that_the_last_one_did_not_have() {
        let line = line(LineSettings::default());
        let at = |rows| Situation { last_rows: Some(Micros(0)), rows: Some(Micros(rows)), ..Situation::default() };
        closed(&line, at(Micros::DAY - 1), Micros(0), "less than a day");
        assert_eq!(gate(&line, at(Micros::DAY), Micros(0)), Gate::Open);
    }

    #[test]
    fn a_manual_line_is_left_to_people() {
        let settings = LineSettings { retrain: Retrain::Manual, ..LineSettings::default() };
        closed(&line(settings), Situation::default(), Micros(0), "manual");
    }
}
