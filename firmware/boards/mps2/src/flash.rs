//! The board's slots. The machine has no flash that a program could write, so they lie in code memory that nothing else
//! uses, behind `RamFlash`; a restart of the machine keeps them, switching it off does not.
//!
//! | from | what |
//! |---|---|
//! | `0x0000_0000` | the loader |
//! | `0x0001_0000` | the program that runs: the loader copies it here, where other chips show one of two banks |
//! | `0x0020_0000` | journal, two slots of models, two slots of firmware |
//! | `0x0038_0000` | what the factory writes into the first slot: whoever starts the emulator puts it there |

use tributary_node_simulation::{EMULATOR_KEY, RamFlash};
use tributary_signal::ModelPayload;
use tributary_slots::{KEY_BYTES, Layout, Slots, Trusted};
use tributary_wire::link::NodeName;

/// The type of this node.
pub const TYPE: NodeName<'static> = match NodeName::new("mps2") {
    Ok(name) => name,
    Err(_) => panic!("not a node type"),
};
/// Numbers that the model sees.
pub const INPUTS: usize = 4 + if cfg!(feature = "bands") { 8 } else { 0 };

const PAGE: u32 = 4096;
const BEGIN: usize = 0x0020_0000;
const MODEL: u32 = 2 * PAGE;
const FIRMWARE: u32 = 128 * PAGE;
/// Where everything lies, from [`BEGIN`] on.
pub const LAYOUT: Layout = Layout {
    journal: [0, PAGE],
    model: [2 * PAGE, 4 * PAGE],
    model_size: MODEL,
    firmware: [6 * PAGE, 6 * PAGE + FIRMWARE],
    firmware_size: FIRMWARE,
};
const SIZE: usize = (6 * PAGE + 2 * FIRMWARE) as usize;

/// Whose blobs are taken: `NODE_KEY` when the board is built, 64 hexadecimal digits; else the emulator's, whose secret
/// half everybody knows.
static KEYS: [[u8; KEY_BYTES]; 1] = [match option_env!("NODE_KEY") {
    Some(text) => unhex(text),
    None => EMULATOR_KEY,
}];

const fn unhex(text: &str) -> [u8; KEY_BYTES] {
    let (text, mut bytes, mut at) = (text.as_bytes(), [0; KEY_BYTES], 0);
    assert!(text.len() == 2 * KEY_BYTES, "NODE_KEY is not 64 hexadecimal digits");
    while at < text.len() {
        let digit = match text[at] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("NODE_KEY has something else than hexadecimal digits"),
        };
        bytes[at / 2] = bytes[at / 2] << 4 | digit;
        at += 1;
    }
    bytes
}

/// The slots' memory.
///
/// # Safety
/// Call once in a program: nothing else may look at it meanwhile.
pub unsafe fn flash() -> RamFlash<'static> {
    // SAFETY: code memory from here on is RAM of this machine that neither program has a section in; the only reference,
    // as the caller promises.
    RamFlash(unsafe { core::slice::from_raw_parts_mut(BEGIN as *mut u8, SIZE) })
}

/// The slots in it.
pub fn slots(flash: RamFlash<'static>) -> Slots<'static, RamFlash<'static>> {
    let trusted = Trusted { keys: &KEYS, node: TYPE };
    let passes = |payload: &[u8]| ModelPayload::read(payload, INPUTS).is_ok_and(|payload| payload.passes());
    match Slots::open(flash, LAYOUT, trusted, passes) {
        Ok(slots) => slots,
        Err(misuse) => panic!("{misuse:?}"),
    }
}
