//! A node on the emulated machine, and as much of an agent as its figures need.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tributary_wire::link::{
    About, BLOB_PART, BlobKind, BlobProblem, BlobStep, Deframer, Down, DownV1, Health, MAX_FRAME, NodeName, Order,
    Receiver, Record, Up, UpV1, blob_checksum, encode,
};

use crate::image;

/// The folder of the firmware's workspace.
pub fn firmware() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a node said of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    /// Its health after some seconds of its own time.
    pub health: Health,
    /// Ticks per second of its clock.
    pub ticks: u32,
    /// Bytes of all frames with features, and how many there were.
    pub features: (usize, usize),
    /// Microseconds from one window to the next: the fewest and the most, by the sampling interrupt's clock.
    pub spacing: Option<(u64, u64)>,
}

impl Said {
    /// A window and when its last sample was taken.
    fn window(&mut self, last: &mut Option<(u32, u64)>, window: u32, uptime: u64) {
        if let Some((before, then)) = last.replace((window, uptime))
            && window == before + 1
        {
            let (passed, known) = (uptime - then, self.spacing);
            self.spacing =
                Some(known.map_or((passed, passed), |(fewest, most)| (fewest.min(passed), most.max(passed))));
        }
    }
}

struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Firmware whose signature holds and whose content is not what was signed: the node checks all of it, with the deepest
/// calls that it has, and goes on as it was.
fn unwanted() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut image =
        image::sign(BlobKind::Firmware, NodeName::new("mps2")?, 2, 2, &[7; 600], &image::secret("emulator")?);
    *image.last_mut().ok_or("an image of nothing")? ^= 1;
    Ok(image)
}

/// Runs a program with one nanosecond of its time an instruction, until it has refused an image and then reported `reports`
/// times.
pub fn run(program: &str, reports: u32) -> Result<Said, Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("tributary-node-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let child = Command::new(firmware().join("run"))
        .args([program, &format!("unix:{}", socket.display()), "-icount", "shift=0"])
        .stdin(Stdio::null())
        .spawn()?;
    let _emulator = Emulator(child);
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut line = loop {
        match UnixStream::connect(&socket) {
            Ok(line) => break line,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error.into()),
        }
    };
    line.set_read_timeout(Some(Duration::from_millis(100)))?;
    let said = talk(&mut line, reports, deadline);
    let _ = std::fs::remove_file(&socket);
    said
}

fn talk(line: &mut UnixStream, reports: u32, deadline: Instant) -> Result<Said, Box<dyn Error>> {
    let (mut deframer, mut receiver, mut said) = (Deframer::default(), Receiver::default(), Said::default());
    let (mut session, mut heard, mut asked) = (0, 0, 0);
    let (mut bytes, mut since) = ([0; 512], 0);
    let (offered, mut checked, mut last) = (unwanted()?, false, None);
    let begun = Instant::now();
    while heard < reports {
        if Instant::now() > deadline {
            return Err("the emulated node does not report".into());
        }
        let count = match line.read(&mut bytes) {
            Ok(0) => return Err("the emulator is gone".into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => return Err(error.into()),
        };
        for byte in &bytes[..count] {
            since += 1;
            let Some(Ok(message)) = deframer.push(*byte) else { continue };
            let length = std::mem::take(&mut since);
            match Up::decode(message)? {
                Up::Hello { .. } => {
                    session = 1;
                    send(line, Down::Welcome { version: 1, session })?;
                    let (length, checksum) = (offered.len() as u32, blob_checksum(&offered));
                    send(line, Down::V1(DownV1::Offer { blob: 1, kind: BlobKind::Firmware, length, checksum }))?;
                }
                Up::V1(UpV1::Record { number, behind, uptime, record, .. }) => {
                    receiver.take(number, behind);
                    receiver.store(number);
                    match record {
                        Record::About(About { ticks, .. }) => said.ticks = ticks,
                        Record::Features(features) => {
                            if features.axis == 0 {
                                said.window(&mut last, features.window, uptime);
                            }
                            said.features = (said.features.0 + length, said.features.1 + 1);
                        }
                        Record::Health(health) => {
                            said.health = health;
                            heard += u32::from(checked);
                        }
                        _ => {}
                    }
                }
                Up::V1(UpV1::Blob { step: BlobStep::Next(from), .. }) => {
                    let part = offered.get(from as usize..).and_then(|rest| rest.chunks(BLOB_PART).next());
                    let bytes = part.ok_or("the node asks for more than there is")?;
                    send(line, Down::V1(DownV1::Part { blob: 1, offset: from, bytes }))?;
                }
                Up::V1(UpV1::Blob { step: BlobStep::Refused(BlobProblem::Signature), .. }) => checked = true,
                Up::V1(UpV1::Blob { step, .. }) => return Err(format!("the node says {step:?} of an image").into()),
                Up::V1(_) => {}
            }
        }
        if session != 0 {
            let (through, scattered) = receiver.acknowledged();
            send(line, Down::V1(DownV1::Ack { session, through, scattered }))?;
            // The order is repeated until the next second, which the node takes as one.
            asked = asked.max(1 + begun.elapsed().as_secs() as u32 / 3);
            send(line, Down::V1(DownV1::Order { session, number: asked, order: Order::Report }))?;
        }
    }
    Ok(said)
}

fn send(line: &mut UnixStream, message: Down<'_>) -> Result<(), Box<dyn Error>> {
    let mut frame = [0; MAX_FRAME];
    let length = encode(&message, &mut frame)?;
    line.write_all(&frame[..length])?;
    Ok(())
}
