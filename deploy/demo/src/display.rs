//! What the person who watches sees: a heading per step, facts below it, one line that moves while they wait.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use crate::step::Step;

/// Tells the story on standard output, in 80 columns.
#[derive(Debug)]
pub struct Display {
    start: Instant,
    moving: bool,
    steps: usize,
}

impl Display {
    /// The clock of the story starts.
    pub fn start() -> Self {
        Self { start: Instant::now(), moving: std::io::stdout().is_terminal(), steps: 0 }
    }

    /// A step begins.
    pub fn step(&mut self, step: Step) {
        self.clear();
        self.steps += 1;
        println!("\n{:>4} s  {}. {}", self.start.elapsed().as_secs(), self.steps, step.title());
    }

    /// Something true that was found out.
    pub fn fact(&self, fact: impl AsRef<str>) {
        self.clear();
        for line in wrap(fact.as_ref(), 70) {
            println!("        {line}");
        }
    }

    /// Where long work stands; overwritten by what comes next, and left out where nobody watches.
    pub fn progress(&self, text: impl AsRef<str>) {
        if self.moving {
            let text: String = text.as_ref().chars().take(70).collect();
            print!("\r\x1b[2K        {text}");
            let _ = std::io::stdout().flush();
        }
    }

    /// Seconds since the story began.
    pub fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn clear(&self) {
        if self.moving {
            print!("\r\x1b[2K");
        }
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("starts with one line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// `12345` as `12 345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_fit_and_numbers_are_grouped() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1 234 567");
    }
}
