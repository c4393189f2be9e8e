//! The loop: one command after the other, each remembered before it is done and after.

use std::sync::Arc;
use std::time::Duration;

use tributary_process::shutdown::Shutdown;
use tributary_wire::{CommandId, CommandResult, CommandResultV1, CommandV1, MAX_RESULT_BYTES, Micros, Order, Outcome};

use super::memory::{MemoryError, State};
use super::{Allowed, Parts, Worker, bundle};
use crate::words::in_words;

/// A command that takes longer is given up.
const TIME_OUT: Duration = Duration::from_secs(60);
/// A connection that held so long after an answer has brought it to the hub.
const ARRIVES: Duration = Duration::from_secs(60);
/// A deadline further away is a mistake: the device would have to remember the command until then.
const FURTHEST: i64 = 31 * Micros::DAY;

/// Does what the hub asks until the signal.
pub async fn run(mut worker: Worker, shutdown: Shutdown) {
    if let Err(error) = worker.wake_up().await {
        tracing::error!(error = in_words(&error), "commands begun before the start could not be answered");
    }
    // Answers that were given on the present connection: they have arrived when it holds for a while.
    let mut given: Vec<CommandId> = Vec::new();
    let mut arrived = tokio::time::Instant::now();
    loop {
        let worked = tokio::select! {
            // A new connection comes before its commands: answered first, they would be offered again at once.
            biased;
            () = shutdown.given() => return,
            changed = worker.link.changed() => match changed {
                Ok(()) if *worker.link.borrow_and_update() => {
                    given = worker.offer_again();
                    arrived = tokio::time::Instant::now() + ARRIVES;
                    Ok(())
                }
                Ok(()) => {
                    given.clear();
                    Ok(())
                }
                Err(_) => return,
            },
            () = tokio::time::sleep_until(arrived), if !given.is_empty() => worker.sure(std::mem::take(&mut given)).await,
            Some(command) = worker.heard.recv() => {
                let id = command.id.clone();
                let Some(worked) = shutdown.unless_given(worker.command(command)).await else { return };
                if *worker.link.borrow() {
                    given.push(id);
                    arrived = tokio::time::Instant::now() + ARRIVES;
                }
                worked
            }
        };
        if let Err(error) = worked {
            tracing::error!(error = in_words(&error), "a command's state could not be stored");
        }
    }
}

impl Worker {
    fn now(&self) -> Micros {
        Micros(self.parts.clock.wall())
    }

    /// Answers what a former life of the process had begun.
    async fn wake_up(&mut self) -> Result<(), MemoryError> {
        let begun = self.memory.iter().filter(|remembered| remembered.state == State::Begun);
        let begun: Vec<CommandV1> = begun.map(|remembered| remembered.command.clone()).collect();
        for command in begun {
            let outcome = match command.order {
                // The restart is what ended that life.
                Order::Restart => done_text(format!("started again, version {}\n", crate::VERSION)),
                _ => Outcome::Failed("the agent ended while it was doing it".to_owned()),
            };
            self.answer(command, outcome).await?;
        }
        Ok(())
    }

    /// Puts every answer that may not have arrived on its way again.
    fn offer_again(&self) -> Vec<CommandId> {
        let mut offered = Vec::new();
        for remembered in self.memory.iter() {
            if let State::Answered { result, sure: false } = &remembered.state {
                self.answers.add(&result.id, CommandResult::V1(result.clone()).encode());
                offered.push(result.id.clone());
            }
        }
        offered
    }

    async fn command(&mut self, command: CommandV1) -> Result<(), MemoryError> {
        let (id, order) = (command.id.clone(), command.order.clone());
        match self.memory.get(&id).map(|remembered| &remembered.state) {
            Some(State::Answered { result, .. }) => {
                tracing::info!(command = %id, %order, "the hub asks again; it gets the answer that it had");
                self.answers.add(&id, CommandResult::V1(result.clone()).encode());
                return Ok(());
            }
            // On its way: the process is about to end.
            Some(State::Begun) => return Ok(()),
            None => {}
        }
        let now = self.now();
        if let Some(refusal) = self.refusal(&command, now) {
            tracing::warn!(command = %id, %order, outcome = ?refusal, "a command of the hub is not carried out");
            return self.answer(command, refusal).await;
        }
        let begun = command.clone();
        if let Err(error) = tokio::task::block_in_place(|| self.memory.begin(begun, now)) {
            // It may be tried again, when the disk takes something: nothing was done.
            tracing::error!(command = %id, %order, error = in_words(&error), "a command cannot be remembered, so it is not done");
            return Ok(());
        }
        tracing::info!(command = %id, %order, "a command of the hub is carried out");
        if order == Order::Restart {
            // Answered by the next life.
            (self.parts.restart)();
            return Ok(());
        }
        let left = Duration::from_micros(command.deadline.0.saturating_sub(now.0).max(0) as u64);
        let limit = left.min(TIME_OUT);
        let outcome = match tokio::time::timeout(limit, carry_out(self.parts.clone(), &order)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(problem)) => Outcome::Failed(problem),
            Err(_) => Outcome::Failed(format!("it was not done within {} s", limit.as_secs())),
        };
        self.answer(command, outcome).await
    }

    fn refusal(&self, command: &CommandV1, now: Micros) -> Option<Outcome> {
        let (order, deadline) = (&command.order, command.deadline);
        if deadline < now {
            return Some(Outcome::Expired);
        }
        if deadline.0 - now.0 > FURTHEST {
            return Some(Outcome::Failed(format!("its deadline {deadline} is more than 31 days away")));
        }
        let allowed = &self.parts.config.allow;
        (!allowed.contains(&Allowed::of(order)))
            .then(|| Outcome::Refused(format!("the device's setting commands.allow does not name {order}")))
    }

    async fn answer(&mut self, command: CommandV1, mut outcome: Outcome) -> Result<(), MemoryError> {
        if let Outcome::Done { body, .. } = &outcome
            && body.len() > MAX_RESULT_BYTES
        {
            outcome = Outcome::Failed(format!("the answer has {} bytes; at most {MAX_RESULT_BYTES} fit", body.len()));
        }
        let result = CommandResultV1 { id: command.id.clone(), finished: self.now(), outcome };
        let kept = result.clone();
        // Answered even when it cannot be remembered: the command stays begun, and is not done again.
        let stored = tokio::task::block_in_place(|| self.memory.answer(command, kept));
        self.answers.add(&result.id.clone(), CommandResult::V1(result).encode());
        stored
    }

    async fn sure(&mut self, ids: Vec<CommandId>) -> Result<(), MemoryError> {
        tokio::task::block_in_place(|| self.memory.sure(ids))
    }
}

fn done_text(text: String) -> Outcome {
    Outcome::Done { media: "text/plain; charset=utf-8".to_owned(), body: text.into_bytes() }
}

async fn carry_out(parts: Arc<Parts>, order: &Order) -> Result<Outcome, String> {
    match order {
        Order::Logs { lines } => {
            let text = parts.log.last(*lines as usize, MAX_RESULT_BYTES);
            Ok(done_text(text))
        }
        Order::Diagnostics => {
            let body = tokio::task::spawn_blocking(move || bundle::make(&parts)).await;
            let body = body.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok(Outcome::Done { media: bundle::MEDIA.to_owned(), body })
        }
        Order::RotateKey => (parts.rotate_key)().await.map(|what| done_text(format!("{what}\n"))),
        Order::Restart => Ok(done_text(String::new())),
    }
}
