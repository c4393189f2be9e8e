//! The node on the Cortex-M4 machine `mps2-an386`. It is wiring only: timer, UART, watchdog and memory are the
//! machine's; it has no accelerometer, so `tributary-node-simulation` answers for one over I²C. The program beside this
//! one, the loader, starts it.
#![no_std]
#![no_main]

mod clock;
mod device;
mod flash;
mod registers;
mod remains;
mod uart;
mod waiting;
mod watchdog;

use core::cell::RefCell;

use cortex_m::interrupt::{self, Mutex};
use cortex_m::peripheral::SCB;
use cortex_m_rt::{entry, exception};
use heapless::spsc::{Producer, Queue};
use lm75::{Lm75, ic};
use tributary_node::{Accelerometer, Action, Adxl345, Identity, Node, Reading, Sampler, serve};
use tributary_node_simulation::{Machine, Parts, RamFlash};
use tributary_signal::{Analysis, Model, ModelPayload};
use tributary_slots::Slots;
use tributary_wire::link::{BlobKind, NodeName};

use device::CLOCK_HZ;
use flash::INPUTS;
use registers::{Counter, SampleTimer, TIMER_TICKED, UART_RECEIVED, UartRegisters};
use watchdog::Watchdog;

const AXES: usize = 3;
const LENGTH: usize = 512;
const HOP: usize = 256;
const BANDS: usize = if cfg!(feature = "bands") { 8 } else { 0 };
const RATE: u32 = 1000;
/// Readings that may wait while the main loop is busy: a quarter of a second.
const READINGS: usize = 256;
/// Bytes that may wait while the main loop is busy: a part of a blob and what is said beside it.
const RECEIVED: usize = 1024;
/// So often, in microseconds, it is kept over a restart how many records one would lose.
const NOTE_EVERY: u64 = 100_000;
/// The largest payload of a model.
const MODEL: usize = 4096;

const NAME: &str = match option_env!("NODE_NAME") {
    Some(name) => name,
    None => "mps2-1",
};
/// After how many samples the simulated bearing begins to wear.
const WEARS_AFTER: Option<&str> = option_env!("NODE_WEARS_AFTER");

type Sensors = Sampler<Adxl345<Parts>, Lm75<Parts, ic::Lm75>, AXES>;

/// What interrupts work with.
struct Interrupts {
    sensors: Sensors,
    readings: Producer<'static, Reading<AXES>>,
    received: Producer<'static, u8>,
}

static INTERRUPTS: Mutex<RefCell<Option<Interrupts>>> = Mutex::new(RefCell::new(None));

fn name(text: &'static str) -> NodeName<'static> {
    NodeName::new(text).expect("a name of [a-z0-9-]{1,63}")
}

fn sensors() -> Sensors {
    let wears_after = WEARS_AFTER.and_then(|samples| samples.parse().ok());
    // Two parts on two buses, because the simulation is not shared between them.
    let parts = Parts::new(Machine::new(2026, wears_after));
    Sampler::new(
        Adxl345::new(parts.clone(), Adxl345::<Parts>::ADDRESS),
        Lm75::new(parts, lm75::Address::default()),
        RATE,
    )
}

/// The model that came over the line, if one is there, else the one that the program was built with.
fn model(slots: &mut Slots<'static, RamFlash<'static>>) -> Option<Model<'static>> {
    #[cfg(feature = "model")]
    const BYTES: Option<&[u8]> = Some(include_bytes!("../model.bin"));
    #[cfg(not(feature = "model"))]
    const BYTES: Option<&[u8]> = None;
    let built_in = Model::read(BYTES?, INPUTS).expect("a model for these features");
    let mut came = || {
        let boot = slots.boot(BlobKind::Model).ok()??;
        let payload = cortex_m::singleton!(: [u8; MODEL] = [0; MODEL])?.get_mut(..boot.length as usize)?;
        slots.read(boot.at, payload).ok()?;
        // One for other features, of a program that was here before, is none for this one.
        Some(ModelPayload::read(payload, INPUTS).ok()?.model())
    };
    Some(came().unwrap_or(built_in))
}

#[entry]
fn main() -> ! {
    let start = remains::start();
    let (readings, mut samples) =
        cortex_m::singleton!(: Queue<Reading<AXES>, READINGS> = Queue::new()).expect("once").split();
    let (received, from_line) = cortex_m::singleton!(: Queue<u8, RECEIVED> = Queue::new()).expect("once").split();
    // SAFETY: the only call in this program.
    let memory = unsafe { waiting::memory() };
    let identity = Identity {
        name: name(NAME),
        kind: flash::TYPE,
        firmware: (0, 1, 0),
        count: <Adxl345<Parts> as Accelerometer<AXES>>::COUNT,
        ticks: CLOCK_HZ,
        starts: start.starts,
    };
    let analysis = Analysis::<BANDS>::even(LENGTH).expect("bands within the window");
    // SAFETY: the only call in this program.
    let mut slots = flash::slots(unsafe { flash::flash() });
    let model = model(&mut slots);
    let mut node = Node::<AXES, LENGTH, BANDS>::new(identity, RATE, HOP, analysis, model, memory, start.crash())
        .with_dropped(start.dropped)
        .with_updates(&mut slots);
    let mut uart = uart::Uart { received: from_line };

    interrupt::free(|section| {
        INTERRUPTS.borrow(section).replace(Some(Interrupts { sensors: sensors(), readings, received }));
    });
    Counter::start();
    UartRegisters::start();
    Watchdog::start();
    SampleTimer::start(RATE);
    enable(UART_RECEIVED);
    enable(TIMER_TICKED);

    let mut rate = RATE;
    let mut quiet = 0;
    let mut noted = (0, start.dropped);
    loop {
        let now = clock::now();
        let mut busy = false;
        // The watchdog watches the interrupt too: without readings it is not fed.
        while let Some(reading) = samples.dequeue() {
            node.take(reading, Counter::ticks);
            Watchdog::feed();
            quiet += 1;
            busy = true;
        }
        if quiet >= rate {
            quiet = 0;
            let (size, untouched) = remains::stack();
            node.note_stack(size, untouched);
        }
        if now.saturating_sub(noted.0) >= NOTE_EVERY && node.dropped() != noted.1 {
            noted = (now, node.dropped());
            remains::note_dropped(noted.1);
        }
        let Ok(moved) = serve(&mut uart, &mut node, now);
        match node.action(now) {
            Some(Action::SetRate(wanted)) => {
                rate = wanted;
                interrupt::free(|section| {
                    if let Some(interrupts) = INTERRUPTS.borrow(section).borrow_mut().as_mut() {
                        interrupts.sensors.set_rate(wanted);
                    }
                });
                SampleTimer::start(wanted);
            }
            Some(Action::Restart) => {
                remains::note_dropped(node.dropped());
                SCB::sys_reset()
            }
            None => {}
        }
        if !busy && !moved {
            cortex_m::asm::wfi();
        }
    }
}

fn enable(interrupt: i16) {
    #[derive(Clone, Copy)]
    struct Number(u16);
    // SAFETY: the number is the one that the machine's manual gives for the device.
    unsafe impl cortex_m::interrupt::InterruptNumber for Number {
        fn number(self) -> u16 {
            self.0
        }
    }
    // SAFETY: what the handler works with is in its place, behind a mutex.
    unsafe { cortex_m::peripheral::NVIC::unmask(Number(interrupt as u16)) }
}

/// All device interrupts: without a table of its own, the machine has them end here.
#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    interrupt::free(|section| {
        let mut interrupts = INTERRUPTS.borrow(section).borrow_mut();
        let Some(interrupts) = interrupts.as_mut() else { return };
        match interrupt {
            TIMER_TICKED => {
                SampleTimer::clear();
                interrupts.sensors.tick(clock::now(), &mut interrupts.readings);
            }
            UART_RECEIVED => {
                while let Some(byte) = UartRegisters::take() {
                    // A full queue loses the byte; the frame's checksum finds that.
                    let _ = interrupts.received.enqueue(byte);
                }
            }
            other => unreachable!("interrupt {other} was never enabled"),
        }
    });
}
