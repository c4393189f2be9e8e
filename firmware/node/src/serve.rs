//! Between a node and its serial port.

use embedded_io::{Read, ReadReady, Write, WriteReady};

use crate::node::Node;

/// Moves what the port has to the node, and what the node has to say to the port, as far as neither waits. Returns
/// whether anything moved: if not, the processor may sleep until an interrupt.
pub fn serve<P, const AXES: usize, const N: usize, const B: usize>(
    port: &mut P,
    node: &mut Node<'_, AXES, N, B>,
    now: u64,
) -> Result<bool, P::Error>
where
    P: Read + Write + ReadReady + WriteReady,
{
    let mut moved = false;
    let mut bytes = [0; 16];
    // One turn reads and writes a bounded number of bytes, so that a talkative line cannot keep the main loop here.
    for _ in 0..32 {
        if !port.read_ready()? {
            break;
        }
        let count = port.read(&mut bytes)?;
        bytes[..count].iter().for_each(|byte| node.receive(now, *byte));
        moved |= count > 0;
    }
    for _ in 0..512 {
        let waiting = node.outgoing(now);
        if waiting.is_empty() || !port.write_ready()? {
            break;
        }
        let count = port.write(waiting)?;
        node.sent(count);
        moved |= count > 0;
    }
    Ok(moved)
}
