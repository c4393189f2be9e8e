//! A node on a simulated machine, and the agent's side of the link as a test plays it.

use std::cell::RefCell;
use std::rc::Rc;

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, Operation};
use heapless::spsc::{Consumer, Queue};
use lm75::{Lm75, ic};
use tributary_node::{Adxl345, Identity, Node, Reading, Sampler, Updates};
use tributary_node_simulation::{Fault, Machine, Parts};
use tributary_signal::{Analysis, Model};
use tributary_wire::link::{
    BlobStep, Crash, Deframer, Down, DownV1, Holds, MAX_FRAME, NodeName, Receiver, Reception, Record, Up, UpV1, encode,
};

pub const LENGTH: usize = 512;
pub const RATE: u32 = 1000;
pub type TestNode = Node<'static, 3, LENGTH, 8>;

/// Parts that a test can break while the sampler holds them.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Parts>>);

impl ErrorType for Shared {
    type Error = ErrorKind;
}

impl I2c for Shared {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        self.0.borrow_mut().transaction(address, operations)
    }
}

pub struct Bench {
    pub node: TestNode,
    parts: Shared,
    sampler: Sampler<Adxl345<Shared>, Lm75<Shared, ic::Lm75>, 3>,
    producer: heapless::spsc::Producer<'static, Reading<3>>,
    consumer: Consumer<'static, Reading<3>>,
    pub now: u64,
    rate: u32,
}

fn name(text: &'static str) -> NodeName<'static> {
    NodeName::new(text).unwrap()
}

impl Bench {
    pub fn new(wears_after: Option<u32>, memory: usize, crash: Option<Crash<'_>>) -> Self {
        let model = Model::read(include_bytes!("../../../boards/mps2/model.bin"), 12).unwrap();
        Self::of(wears_after, memory, crash, model, None)
    }

    pub fn of(
        wears_after: Option<u32>,
        memory: usize,
        crash: Option<Crash<'_>>,
        model: Model<'static>,
        updates: Option<&'static mut dyn Updates>,
    ) -> Self {
        let parts = Shared(Rc::new(RefCell::new(Parts::new(Machine::new(5, wears_after)))));
        let queue = Box::leak(Box::new(Queue::<Reading<3>, 64>::new()));
        let (producer, consumer) = queue.split();
        let identity = Identity {
            name: name("bench-1"),
            kind: name("bench"),
            firmware: (1, 2, 3),
            count: 38_245_935,
            ticks: 1,
            starts: 1,
        };
        let analysis = Analysis::even(LENGTH).unwrap();
        let memory = Box::leak(vec![0; memory].into_boxed_slice());
        let node = Node::new(identity, RATE, 256, analysis, Some(model), memory, crash);
        let node = match updates {
            Some(updates) => node.with_updates(updates),
            None => node,
        };
        let sampler = Sampler::new(
            Adxl345::new(parts.clone(), Adxl345::<Shared>::ADDRESS),
            Lm75::new(parts.clone(), lm75::Address::default()),
            RATE,
        );
        Self { node, parts, sampler, producer, consumer, now: 0, rate: RATE }
    }

    /// The next life of this node, with nothing of it but what a board keeps.
    pub fn restarted(self) -> Self {
        let dropped = self.node.dropped();
        let new = Self::new(None, 4096, None);
        Self { node: new.node.with_dropped(dropped), ..new }
    }

    /// What a board does about `Action::SetRate`.
    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.sampler.set_rate(rate);
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.parts.0.borrow_mut().fault = fault;
    }

    /// One tick of the timer, and the main loop behind it.
    pub fn tick(&mut self) {
        self.tick_without_main_loop();
        self.main_loop();
    }

    pub fn tick_without_main_loop(&mut self) {
        self.now += 1_000_000 / u64::from(self.rate);
        self.sampler.tick(self.now, &mut self.producer);
    }

    pub fn main_loop(&mut self) {
        while let Some(reading) = self.consumer.dequeue() {
            self.node.take(reading, || 0);
        }
    }

    /// Everything that the node wants to say now.
    pub fn say(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let waiting = self.node.outgoing(self.now).to_vec();
            if waiting.is_empty() {
                return bytes;
            }
            self.node.sent(waiting.len());
            bytes.extend(waiting);
        }
    }

    pub fn hear(&mut self, message: Down<'_>) {
        let mut frame = [0; MAX_FRAME];
        let length = encode(&message, &mut frame).unwrap();
        frame[..length].iter().for_each(|byte| self.node.receive(self.now, *byte));
    }
}

/// An agent that stores what comes as text.
#[derive(Default)]
pub struct Agent {
    line: Deframer,
    pub session: u32,
    pub receiver: Receiver,
    pub stored: Vec<(u32, u64, String)>,
    pub raw: Vec<(u32, u8, u8, Vec<i16>)>,
    pub features: Vec<tributary_wire::link::Features>,
    pub times: Vec<(i64, u64)>,
    pub holds: Vec<Holds>,
    pub steps: Vec<BlobStep>,
}

impl Agent {
    /// What an agent has heard of a node that just started.
    pub fn default_after(bench: &mut Bench) -> Self {
        let mut agent = Self::default();
        for _ in 0..10 {
            bench.tick();
            agent.turn(bench);
        }
        agent
    }

    /// Reads the line and answers at once.
    pub fn turn(&mut self, bench: &mut Bench) {
        let mut answers: Vec<Down<'static>> = Vec::new();
        for byte in bench.say() {
            let Some(Ok(message)) = self.line.push(byte) else { continue };
            match Up::decode(message).unwrap() {
                Up::Hello { session, .. } => {
                    self.session = if session == 0 { 41 } else { session };
                    answers.push(Down::Welcome { version: 1, session: self.session });
                }
                Up::V1(UpV1::Time { asked, uptime }) => self.times.push((asked, uptime)),
                Up::V1(UpV1::Record { number, behind, uptime, record, .. }) => {
                    if self.receiver.take(number, behind) == Reception::New {
                        match record {
                            Record::Raw(raw) => {
                                self.raw.push((raw.window, raw.axis, raw.part, raw.samples().collect()))
                            }
                            Record::Features(features) => self.features.push(features),
                            _ => {}
                        }
                        self.stored.push((number, uptime, format!("{record:?}")));
                        self.receiver.store(number);
                    }
                }
                Up::V1(UpV1::Blob { step, .. }) => self.steps.push(step),
                Up::V1(UpV1::Holds(holds)) => self.holds.push(holds),
            }
        }
        let (through, scattered) = self.receiver.acknowledged();
        answers.push(Down::V1(DownV1::Ack { session: self.session, through, scattered }));
        for answer in answers {
            bench.hear(answer);
        }
    }

    pub fn heard(&self, text: &str) -> usize {
        self.stored.iter().filter(|(_, _, record)| record.contains(text)).count()
    }
}
