//! Power goes at every single write and erase of an update, and whatever is left of it, the node runs something whole.

use tributary_wire::link::BlobKind::{Firmware, Model};

use crate::flash::Survivor;
use crate::node::{factory, live_on};

const SURVIVORS: [Survivor; 4] = [Survivor::Nothing, Survivor::Half, Survivor::Some, Survivor::All];

#[test]
fn power_cut_at_every_write_and_erase_leaves_something_that_runs_and_the_update_ends_well() {
    let before = factory();
    live_on(&before, &[(Firmware, 1), (Model, 4)], &[(Model, 4)]);
    let known = [(Firmware, 1), (Firmware, 2), (Model, 4), (Model, 5)];
    let wanted = [(Model, 5), (Firmware, 2)];
    let undisturbed = before.copy();
    let lives = live_on(&undisturbed, &known, &wanted);
    let operations = undisturbed.operations();
    assert!(lives == 3 && operations > 200, "{lives} lives, {operations} operations");
    for cut in 0..operations {
        for survivor in SURVIVORS {
            let flash = before.copy();
            flash.cut_after(cut, survivor);
            let lives = live_on(&flash, &known, &wanted);
            assert!(lives <= 6, "cut after {cut}, {survivor:?} left: {lives} lives");
        }
    }
    println!("{operations} operations, each cut in {} ways", SURVIVORS.len());
}

#[test]
fn power_that_goes_again_and_again_never_leaves_a_node_without_firmware() {
    let before = factory();
    let known = [(Firmware, 1), (Firmware, 2), (Model, 5)];
    let wanted = [(Model, 5), (Firmware, 2)];
    let mut chance = 7_u32;
    for _ in 0..60 {
        let flash = before.copy();
        // Never more than a handful of writes between two cuts, and then peace.
        for _ in 0..12 {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            flash.cut_after(chance >> 24, SURVIVORS[(chance >> 20) as usize % 4]);
            // How far it gets does not matter here; that it starts does.
            let _ = crate::node::live(&flash, &known, &wanted);
            flash.power();
        }
        live_on(&flash, &known, &wanted);
    }
}
