//! A debugger on the emulated machine (QEMU's gdb stub): makes the processor run a few instructions of ours in the midst
//! of its program, which is how something breaks that the program itself never does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tributary_demo::wait;

/// Code memory that nothing of the board uses.
pub const PLACE: u32 = 0x0010_0000;

/// A connection to the stub. The machine stands still while there is one, unless it was told to go on.
pub struct Debugger {
    stub: UnixStream,
}

impl Debugger {
    /// Connects; the machine stands still.
    pub async fn attach(socket: &Path) -> Self {
        let connected = wait::until("the emulator's debugger listens", Duration::from_secs(60), async || {
            Ok(UnixStream::connect(socket).map_err(|error| error.to_string()))
        });
        let stub = connected.await.unwrap();
        stub.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stub }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stub.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn send(&mut self, command: &str) {
        let sum = command.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.stub, "${command}#{sum:02x}").unwrap();
    }

    /// The next packet, without its frame.
    fn answer(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => text.push(char::from(byte)),
            }
        }
        self.byte();
        self.byte();
        self.stub.write_all(b"+").unwrap();
        text
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        loop {
            // That it stands still it also says by itself, when somebody connects.
            match self.answer() {
                stopped if stopped.starts_with('T') => {}
                answer => return answer,
            }
        }
    }

    /// Has the processor run these instructions now, outside any interrupt.
    pub fn run(mut self, instructions: &[u16]) {
        const PROGRAM_COUNTER: u32 = 15;
        const STATUS: u32 = 25;
        // The stub gives single registers only to those who have asked it what registers there are.
        assert!(self.ask("qXfer:features:read:target.xml:0,800").starts_with(['l', 'm']));
        loop {
            let status = self.ask(&format!("p{STATUS:x}"));
            let status = u32::from_str_radix(&status, 16).unwrap().swap_bytes();
            // Its low bits number the interrupt that is being served.
            if status & 0x1ff == 0 {
                break;
            }
            self.send("c");
            std::thread::sleep(Duration::from_millis(3));
            self.stub.write_all(&[3]).unwrap();
            self.answer();
        }
        let bytes: String = instructions.iter().map(|half| format!("{:04x}", half.swap_bytes())).collect();
        assert_eq!(self.ask(&format!("M{PLACE:x},{:x}:{bytes}", 2 * instructions.len())), "OK");
        assert_eq!(self.ask(&format!("P{PROGRAM_COUNTER:x}={:08x}", PLACE.swap_bytes())), "OK");
        // Whoever detaches lets it go on.
        assert_eq!(self.ask("D"), "OK");
    }
}
