//! The agent's program; see `edge-agent --help`.

fn main() {}
