//! The page of figures: what worlds and real programs came to, as the command that made it prints it.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tributary_world::{replay, seeds};

/// Has real programs killed so many times while they work; what the test says of it.
pub fn kill(kills: u32) -> io::Result<String> {
    let mut test = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    test.args(["test", "--package", "tributary-processes", "--test", "it", "kills::", "--", "--nocapture"]);
    // What a test is to tell goes past its own output, to the error stream.
    test.current_dir(env!("CARGO_MANIFEST_DIR")).env("TRIBUTARY_KILLS", kills.to_string()).stderr(Stdio::piped());
    let mut running = test.spawn()?;
    let (mut told, mut last) = (String::new(), String::new());
    for line in BufReader::new(running.stderr.take().expect("it is piped")).lines() {
        last = line?;
        if last.contains("kills survived") {
            told += &format!("{last}\n");
        }
        eprintln!("{last}");
    }
    let ended = running.wait()?;
    match ended.success() && !told.is_empty() {
        true => Ok(told),
        false => Err(io::Error::other(format!("the kills of real programs: {ended}: {last}"))),
    }
}

/// Writes the page.
pub fn write(path: &Path, parts: &[(&str, String)]) -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (commit, cores) = (replay::commit(), seeds::cores());
    let mut page = format!(
        "# What the promises were tested with\n\nAt commit {commit}, on {cores} cores. `README.md` beside this says what is \
         simulated and checked, and what that found. Made by\n\n\
         ```\ncargo run -p tributary-world -- {}\n```\n",
        arguments.join(" ")
    );
    for (title, told) in parts {
        page += &format!("\n## {title}\n\n```\n{told}```\n");
    }
    let found = include_str!("../README.md").split_once("\n## What it found\n").map_or("", |(_, found)| found);
    page += &format!("\n## What seeds found so far\n{found}");
    fs::write(path, page)
}
