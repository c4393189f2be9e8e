//! Trains the board's built-in anomaly model on the simulated machine, healthy.
//!
//! What a node learns in the field comes from its own windows, through the hub (`deploy/systems/vibration`), and replaces
//! this one. A node that nobody has sent a model has one that was truly learnt, and whoever changes the simulation or the
//! features can make a new one.

use std::error::Error;

use tributary_node_simulation::Machine;
use tributary_vibration::{HOP, Input, Learnt, WINDOW, inputs_of, learn};

/// The windows of all axes of a machine, as a model sees them.
fn windows(seed: u32, wears_after: Option<u32>, from: usize, count: usize) -> Vec<Input> {
    let mut machine = Machine::new(seed, wears_after);
    inputs_of(|| machine.sample(), from, count)
}

/// Learns from forty healthy machines.
pub fn learnt() -> Result<Learnt, Box<dyn Error>> {
    let healthy: Vec<Input> = (0..40).flat_map(|seed| windows(1000 + seed, None, 0, 24)).collect();
    Ok(learn(&healthy)?)
}

/// Windows of a hundred healthy machines that were not learnt from.
pub fn held_out() -> Vec<Input> {
    (0..100).flat_map(|seed| windows(5000 + seed, None, 0, 24)).collect()
}

/// Says how far the int8 model is from the one in floating point, on healthy and on worn machines.
pub fn print_parity(learnt: &Learnt) -> Result<(), Box<dyn Error>> {
    let worn: Vec<Input> = (0..100).flat_map(|seed| windows(9000 + seed, Some(0), 0, 24)).collect();
    for (name, inputs) in [("healthy", &held_out()), ("wearing", &worn)] {
        let parity = learnt.parity(inputs)?;
        println!(
            "int8 against 32-bit floating point, {name}: {:.2} steps apart on average, {:.2} at most; {} of {} decided alike",
            parity.mean, parity.largest, parity.agree.0, parity.agree.1
        );
    }
    Ok(())
}

/// Trains, says how good the model is, and writes it.
pub fn write(path: &str) -> Result<(), Box<dyn Error>> {
    let learnt = learnt()?;
    let model = learnt.model()?;
    let held_out = held_out();
    let alarms = held_out.iter().filter(|input| model.score(*input) > model.threshold()).count();
    println!("{} bytes; threshold {}", learnt.model_bytes().len(), model.threshold());
    println!("healthy windows of 100 other machines: {alarms} of {} over the threshold", held_out.len());
    print_parity(&learnt)?;
    // Wear grows by one count every 40 samples: from window to window by 6.4 counts of 3.9 mg.
    for after in [2, 4, 8, 16, 32] {
        let found = (0..50_u32).filter(|seed| {
            let worn = windows(7000 + seed, Some(0), after, 1);
            worn.iter().any(|input| model.score(input) > model.threshold())
        });
        println!(
            "knocks of {:>4} mg: found on {} of 50 machines",
            (after * HOP + WINDOW) / 40 * 39 / 10,
            found.count()
        );
    }
    std::fs::write(path, learnt.model_bytes())?;
    Ok(())
}
