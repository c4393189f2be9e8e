//! Findings as text: marks in a column, at most 80 characters in a line.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use super::words::count;
use super::{Finding, Mark, Mending, Report};

const WIDTH: usize = 80;
/// Columns of the mark, with what stands before and behind it.
const MARK: usize = 8;
/// Longest name of a check that the others are aligned with.
const LONGEST: usize = 18;
/// How many single items are shown.
const ITEMS: usize = 5;

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// None.
    Plain,
    /// Those of a terminal.
    Colours,
}

impl Style {
    /// Colours where standard output is a terminal that wants them (<https://no-color.org>).
    pub fn of_output() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let wanted = std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        if wanted { Self::Colours } else { Self::Plain }
    }

    fn paint(self, text: &str, code: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colours => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }

    fn mark(self, finding: &Finding) -> String {
        let (word, code) = match finding.mark {
            _ if finding.is_mended() => ("fixed", "32"),
            Mark::Ok => ("ok", "32"),
            Mark::Warn => ("warn", "1;33"),
            Mark::Fail => ("FAIL", "1;31"),
            Mark::Skipped => ("skip", "2"),
        };
        format!("  {}{}", self.paint(word, code), " ".repeat(MARK - 2 - word.len()))
    }
}

impl Report {
    /// For people.
    pub fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let head = format!("{} doctor: {}, version {}, {}", self.program, self.subject, self.version, self.at);
        wrapped(&mut out, "", 2, &head);
        let names = self.findings.iter().map(|finding| finding.check.chars().count());
        let width = names.filter(|width| *width <= LONGEST).max().unwrap_or(0);
        let mut section = "";
        for finding in &self.findings {
            if finding.section != section {
                section = finding.section;
                let _ = writeln!(out, "\n{}", style.paint(section, "1"));
            }
            finding.write(&mut out, width, style);
        }
        out.push('\n');
        out.push_str(&self.summary(style));
        out
    }

    /// What is about to be done, before it is done.
    pub fn announcement(&self) -> String {
        let mut out = String::new();
        for what in self.offers() {
            wrapped(&mut out, "will ", 5, what);
        }
        out
    }

    /// The last lines: how many of each, and what one command would mend.
    fn summary(&self, style: Style) -> String {
        let [(_, ok), (_, warn), (_, fail), (_, skipped), (_, repaired)] = self.counts();
        let mut parts = vec![format!("{ok} ok")];
        for (number, one, more) in [
            (warn, "warning", "warnings"),
            (fail, "failed", "failed"),
            (skipped, "skipped", "skipped"),
            (repaired, "repaired", "repaired"),
        ] {
            if number > 0 {
                parts.push(count(number as u64, one, more));
            }
        }
        let (verdict, code) = match self.worst() {
            Mark::Fail => ("Something is broken", "1;31"),
            Mark::Warn => ("It works, with warnings", "1;33"),
            Mark::Ok | Mark::Skipped => ("All is well", "1;32"),
        };
        let mut out = String::new();
        let (lead, width) = (format!("{}:", style.paint(verdict, code)), verdict.len() + 1);
        wrapped_after(&mut out, &format!("{lead} "), width + 1, 0, &format!("{}.", parts.join(", ")));
        let offers = self.offers().count() as u64;
        if offers > 0 {
            let words =
                format!("--repair does {}, and deletes nothing.", count(offers, "thing about it", "things about it"));
            wrapped(&mut out, "", 0, &words);
        }
        out
    }
}

impl Finding {
    fn write(&self, out: &mut String, width: usize, style: Style) {
        let indent = MARK + width + 2;
        let name = self.check.chars().count();
        let mark = style.mark(self);
        if name <= width {
            let lead = format!("{mark}{}{}", self.check, " ".repeat(width - name + 2));
            wrapped_after(out, &lead, indent, indent, &self.found);
        } else {
            let _ = writeln!(out, "{mark}{}", self.check);
            wrapped(out, &" ".repeat(indent), indent, &self.found);
        }
        let lead = " ".repeat(indent);
        for item in self.details.iter().take(ITEMS) {
            wrapped(out, &format!("{lead}- "), indent + 2, item);
        }
        if self.details.len() > ITEMS {
            let _ = writeln!(out, "{lead}- and {} more (--json lists all)", self.details.len() - ITEMS);
        }
        match &self.mending {
            Some(Mending::Tried { outcome, .. }) => {
                let words = match outcome {
                    Ok(done) => format!("repaired: {done}"),
                    Err(why) => format!("not repaired: {why}"),
                };
                wrapped(out, &format!("{lead}-> "), indent + 3, &words);
            }
            Some(Mending::Offered(mend)) => {
                wrapped(out, &format!("{lead}-> "), indent + 3, &format!("--repair: {}", mend.what))
            }
            None => {}
        }
        if let Some(advice) = &self.advice
            && !self.is_mended()
        {
            wrapped(out, &format!("{lead}-> "), indent + 3, advice);
        }
    }
}

/// Text behind `lead`, broken at words, further lines indented.
fn wrapped(out: &mut String, lead: &str, indent: usize, text: &str) {
    wrapped_after(out, lead, lead.chars().count(), indent, text);
}

/// The same behind a lead that is as wide as said: colours take no room.
fn wrapped_after(out: &mut String, lead: &str, lead_width: usize, indent: usize, text: &str) {
    let (mut line, mut width, mut empty) = (lead.to_owned(), lead_width, true);
    // A figure and its sign of per cent stay together.
    let text = text.replace(" %", "\u{a0}%");
    for word in text.split([' ', '\n', '\t']).filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if !empty && width + 1 + length > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            (line, width, empty) = (" ".repeat(indent), indent, true);
        }
        if !empty {
            line.push(' ');
            width += 1;
        }
        line.push_str(&word.replace('\u{a0}', " "));
        (width, empty) = (width + length, false);
    }
    let _ = writeln!(out, "{}", line.trim_end());
}
