//! Prints the node's figures: what it takes of flash and RAM, how much a window costs, what the link adds and carries, how
//! far the int8 model is from floating point.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use crate::{elf, emulator, line, train};

/// Memory for records that wait is a choice of the board (`boards/mps2/src/waiting.rs`); it is not counted as the program's.
const RECORD_MEMORY: u32 = 15 << 20;
/// The emulated timer's 25 MHz: 40 ns, and with `-icount shift=0` one instruction a nanosecond.
const NANOSECONDS_A_SECOND: u64 = 1_000_000_000;
/// Microseconds.
const WINDOW_EVERY: i64 = 256_000;
const SETS: [(&str, &[&str]); 3] = [
    ("moments", &["--no-default-features"]),
    ("moments, bands", &["--no-default-features", "--features", "bands"]),
    ("moments, bands, model", &[]),
];

/// Builds every feature set, runs it, and prints.
pub fn print() -> Result<(), Box<dyn Error>> {
    println!("node on mps2-an386 (Cortex-M4), 3 axes, windows of 512 samples every 256, at 1000 samples a second");
    println!("{:<24}{:>12}{:>14}{:>12}{:>18}", "feature set", "flash bytes", "static RAM", "stack", "instructions");
    println!("{:<24}{:>12}{:>14}{:>12}{:>18}", "", "", "without store", "high water", "a window, 3 axes");
    let mut loader = None;
    for (name, flags) in SETS {
        let built = Command::new(emulator::firmware().join("build")).args(flags).output()?;
        if !built.status.success() {
            return Err(String::from_utf8_lossy(&built.stderr).into());
        }
        let program = String::from_utf8(built.stdout)?.trim().to_owned();
        let size = elf::size(&std::fs::read(&program)?).ok_or("the build made no ELF file")?;
        let said = emulator::run(&program, 4)?;
        let instructions = u64::from(said.health.busiest) * (NANOSECONDS_A_SECOND / u64::from(said.ticks.max(1)));
        let stack = said.health.stack - said.health.stack_untouched;
        println!("{name:<24}{:>12}{:>14}{stack:>12}{instructions:>18}", size.flash, size.ram - RECORD_MEMORY);
        for clock in [25, 64] {
            // One instruction a cycle is what a Cortex-M4 does at best; flash wait states make it slower.
            let share = instructions as f64 / (f64::from(clock) * 1e6 * 0.256) * 100.0;
            println!("{:<24}  estimate: {share:.1} % of the time between two windows at {clock} MHz", "");
        }
        let (fewest, most) = said.spacing.ok_or("the node had no two windows")?;
        // Ticks of the clock that the timer counts with, beside 256 000 µs of them.
        let ticks = |passed: u64| (passed as i64 - WINDOW_EVERY) * i64::from(said.ticks) / 1_000_000;
        println!(
            "{:<24}  windows {fewest} to {most} µs apart: {:+} to {:+} ticks of {} MHz; {} samples missed",
            "",
            ticks(fewest),
            ticks(most),
            said.ticks / 1_000_000,
            said.health.overrun
        );
        if loader.is_none() {
            let path = Path::new(&program).with_file_name("loader");
            loader = Some(elf::size(&std::fs::read(path)?).ok_or("the build made no ELF file of the loader")?);
        }
    }
    if let Some(elf::Size { flash, ram }) = loader {
        println!("{:<24}{flash:>12}{ram:>14}", "loader");
    }
    print_link()?;
    println!();
    train::print_parity(&train::learnt()?)?;
    Ok(())
}

/// Prints what the link adds and carries: this needs neither the board nor an emulator.
pub fn print_link() -> Result<(), Box<dyn Error>> {
    let (record, frame) = line::sizes();
    println!(
        "\nlink: a window of one axis is a record of {record} bytes in a frame of {frame}: {} added",
        frame - record
    );
    // Three axes every 256 samples at 1000 a second, each with two bytes for its length.
    let hours = f64::from(RECORD_MEMORY) / (3 * (record + 2)) as f64 * 0.256 / 3600.0;
    println!("{} MiB hold the windows of {hours:.1} hours without an agent", RECORD_MEMORY >> 20);
    println!("{:<24}{:>12}{:>14}{:>12}{:>18}", "changed bytes", "windows/s", "bytes/s", "of line", "frames a window");
    for changed in [0, 100, 500] {
        let goodput = line::goodput(changed);
        let (share, percent) = (goodput.bytes / 11_520.0 * 100.0, changed as f64 / 100.0);
        let shown = format!("{percent} %");
        println!("{shown:<24}{:>12.1}{:>14.0}{share:>10.1} %{:>18.2}", goodput.windows, goodput.bytes, goodput.tries);
    }
    Ok(())
}
