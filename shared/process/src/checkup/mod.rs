//! What a program finds when it looks at itself: findings, what would mend them, and how both are shown.
//!
//! Whoever examines something gives [`Finding`]s, each with what was found, in numbers and units, and what a person can
//! do. A finding may carry a [`Mend`]: work that is safe to do without asking. [`Report`] puts them together, carries out
//! mends where that was asked for, and shows everything as text ([`Report::text`]) or as JSON of a documented form
//! ([`Report::json`]). [`host`] gathers what any program may want to know about its files and its machine.

mod disk;
mod folder;
mod mend;
pub mod host;
mod print;
mod words;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use disk::disk;
pub use folder::{FolderRules, folder};
pub use mend::{ASIDE, Mend, aside, rename_new};
pub use print::Style;
pub use words::{bytes, count, days, millis, span};

/// Version of [`Report::json`]'s form. Fields may be added; what is there keeps its name and meaning.
const FORMAT: u64 = 1;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Could not be looked at, or is not in use; why is said.
    Skipped,
    /// Works, but somebody should look after it.
    Warn,
    /// Broken.
    Fail,
}

impl Mark {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What came of a mend.
#[derive(Debug)]
enum Mending {
    /// Possible, but nobody asked for it.
    Offered(Mend),
    /// Done, or not, in words.
    Tried { what: String, outcome: Result<String, String> },
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    section: &'static str,
    check: String,
    mark: Mark,
    found: String,
    details: Vec<String>,
    advice: Option<String>,
    mending: Option<Mending>,
}

impl Finding {
    /// `check` names it within its section; `found` says how it is, with numbers and units.
    pub fn new(section: &'static str, check: impl Into<String>, mark: Mark, found: impl Into<String>) -> Self {
        let (check, found) = (check.into(), found.into());
        Self { section, check, mark, found, details: Vec::new(), advice: None, mending: None }
    }

    /// As it should be.
    pub fn ok(section: &'static str, check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(section, check, Mark::Ok, found)
    }

    /// Not looked at, and why.
    pub fn skipped(section: &'static str, check: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(section, check, Mark::Skipped, why)
    }

    /// Works, but somebody should look after it.
    pub fn warn(section: &'static str, check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(section, check, Mark::Warn, found)
    }

    /// Broken.
    pub fn fail(section: &'static str, check: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(section, check, Mark::Fail, found)
    }

    /// What a person should do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Single items, such as the files meant; only the first ones are shown to people.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// What `--repair` does about it.
    #[must_use]
    pub fn mended_by(mut self, mend: Mend) -> Self {
        self.mending = Some(Mending::Offered(mend));
        self
    }

    /// How it is.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Its section and name.
    pub fn key(&self) -> (&'static str, &str) {
        (self.section, &self.check)
    }

    /// What was found, in words.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What a person should do.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// What `--repair` would do, or has done.
    pub fn mend(&self) -> Option<&str> {
        match self.mending.as_ref()? {
            Mending::Offered(mend) => Some(&mend.what),
            Mending::Tried { what, .. } => Some(what),
        }
    }

    /// Whether it was mended.
    fn is_mended(&self) -> bool {
        matches!(self.mending, Some(Mending::Tried { outcome: Ok(_), .. }))
    }

    fn json(&self) -> Value {
        let repair = self.mending.as_ref().map(|mending| match mending {
            Mending::Offered(mend) => json!({ "what": mend.what, "done": null, "outcome": null }),
            Mending::Tried { what, outcome } => {
                json!({ "what": what, "done": outcome.is_ok(), "outcome": outcome.as_ref().unwrap_or_else(|why| why) })
            }
        });
        json!({
            "section": self.section, "check": self.check, "result": self.mark.name(), "found": self.found,
            "details": self.details, "advice": self.advice, "repair": repair,
        })
    }
}

/// All findings of one look.
#[derive(Debug)]
pub struct Report {
    /// Which program looked, such as `edge-agent`.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// At what: a name, or a folder.
    pub subject: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// What was found, in order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What would be mended, in order.
    pub fn offers(&self) -> impl Iterator<Item = &str> {
        self.findings
            .iter()
            .filter(|finding| matches!(finding.mending, Some(Mending::Offered(_))))
            .filter_map(Finding::mend)
    }

    /// Carries out every mend; one that fails keeps no other from being tried. Whether there was any.
    pub fn mend(&mut self) -> bool {
        let mut any = false;
        for finding in &mut self.findings {
            finding.mending = match finding.mending.take() {
                Some(Mending::Offered(Mend { what, work })) => {
                    any = true;
                    Some(Mending::Tried { what, outcome: work() })
                }
                other => other,
            };
        }
        any
    }

    /// A later look, with what was mended before it in the place of the same checks: what is well because it was mended
    /// says so, and what hung on it shows as it is now.
    #[must_use]
    pub fn again(self, mut later: Self) -> Self {
        let tried = self.findings.into_iter().filter(|finding| matches!(finding.mending, Some(Mending::Tried { .. })));
        for earlier in tried {
            let same = |finding: &Finding| finding.key() == earlier.key();
            let place = later.findings.iter().position(same);
            // A check that failed again says more than that mending was tried.
            later.findings.retain(|finding| !same(finding) || finding.mark > Mark::Skipped && earlier.is_mended());
            let end = later.findings.len();
            later.findings.insert(place.unwrap_or(end).min(end), earlier);
        }
        later
    }

    /// The worst that is left after what was mended.
    pub fn worst(&self) -> Mark {
        let left = self.findings.iter().filter(|finding| !finding.is_mended()).map(Finding::mark);
        left.filter(|mark| *mark != Mark::Skipped).max().unwrap_or(Mark::Ok)
    }

    /// Whether nothing is broken: warnings are none of it.
    pub fn is_well(&self) -> bool {
        self.worst() < Mark::Fail
    }

    /// How many there are of a mark, and how many were mended.
    fn counts(&self) -> [(&'static str, usize); 5] {
        let of = |mark| self.findings.iter().filter(|finding| finding.mark == mark && !finding.is_mended()).count();
        let mended = self.findings.iter().filter(|finding| finding.is_mended()).count();
        [
            ("ok", of(Mark::Ok)),
            ("warn", of(Mark::Warn)),
            ("fail", of(Mark::Fail)),
            ("skipped", of(Mark::Skipped)),
            ("repaired", mended),
        ]
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let counts: serde_json::Map<_, _> =
            self.counts().into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        json!({
            "format": FORMAT, "program": self.program, "version": self.version, "subject": self.subject,
            "at": self.at, "result": self.worst().name(), "counts": counts,
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })
    }
}
