//! How deep the stack has ever been.

/// What `cortex-m-rt` paints the stack with before anything runs.
pub const PAINT: u32 = 0xcccc_cccc;

/// Bytes of the stack that were never used. `words` is the stack's memory, its limit first: a stack grows towards it,
/// so what still has its paint from there on was never reached.
pub fn untouched(words: &[u32]) -> u32 {
    let count = words.iter().take_while(|word| **word == PAINT).count();
    (count * size_of::<u32>()) as u32
}
