//! The loop: an input to the lines, then their actions until none is left.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use edge_agent_core::lines::{Action, Believed, Input, Of, Remembered};
use edge_agent_core::updater::{self, Record};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{Generation, ReleaseRef, UpdaterState};

use super::fetch::{self, Fetcher, blocking};
use super::place::{Done, Work};
use super::{Message, UpdateError, Updates, stored};
use crate::words::in_words;

/// How often a package that is not on trial is looked at, for reports.
const IDLE_LOOK: Duration = Duration::from_secs(5);

impl Updates {
    /// Works until the signal is given.
    pub async fn run(mut self, shutdown: Shutdown) {
        let clock = self.parts.clock.clone();
        let mut looked = Duration::ZERO;
        loop {
            let now = self.now().monotonic;
            let trial = self.lines.updaters().any(|(_, updater)| updater.record().state() == UpdaterState::Trial);
            let look = looked + if trial { self.parts.config.look_every.0 } else { IDLE_LOOK };
            let wake = self.lines.next_wake().map_or(look, |wake| wake.min(look));
            tokio::select! {
                () = shutdown.given() => break,
                message = self.messages.recv() => match message {
                    Some(Message::Assigned(signed)) => {
                        let believed = self.believed();
                        self.tell(Input::Assigned { signed, believed }).await;
                    }
                    Some(Message::Refreshed(signed)) => {
                        let believed = self.believed();
                        self.tell(Input::Refreshed { signed, believed }).await;
                    }
                    Some(Message::Online(online)) => self.tell(Input::Online(online)).await,
                    None => break,
                },
                Some(done) = self.done.recv() => self.done(done).await,
                () = tokio::time::sleep(wake.saturating_sub(now)) => {
                    let now = Duration::from_micros(clock.monotonic());
                    if now >= look {
                        looked = now;
                        self.look().await;
                    }
                    self.tell(Input::Woken).await;
                }
            }
            self.show();
        }
        self.refreshing.take().inspect(|task| task.abort());
        self.places.values_mut().filter_map(|line| line.fetching.take()).for_each(|task| task.abort());
        self.tell(Input::Stopping).await;
    }

    /// Carries out the first orders, then takes in the assignment that was accepted before the restart.
    pub(super) async fn recover(&mut self, orders: Vec<Action>, remembered: &Remembered) {
        self.perform(orders).await;
        // Before anything is served.
        while self.places.values().any(|line| !line.slot.is_settled()) {
            let Some(done) = self.done.recv().await else { break };
            self.done(done).await;
        }
        for (of, release, snapshot, known) in self.postponed.take().into_iter().flatten() {
            self.fetch(of, release, snapshot, known);
        }
        let actions = self.lines.recall(self.now(), &self.believed(), remembered);
        self.perform(actions).await;
    }

    pub(super) fn believed(&self) -> Believed {
        self.parts.trust.believed()
    }

    /// Tells the lines what happened and carries out what they decide.
    pub(super) async fn tell(&mut self, input: Input) {
        let now = self.now();
        let actions = self.lines.handle(now, input);
        self.perform(actions).await;
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let input = match action {
                Action::Persist { of, ticket, record } => Some(self.persist(of, ticket, *record).await),
                Action::Fetch { of, release, snapshot, known } => {
                    self.fetch(of, release, snapshot, known);
                    None
                }
                Action::Vouch { of, release } => {
                    self.vouch(of, release);
                    None
                }
                Action::Serve { of, package } => self.serve(of, package),
                Action::Keep { signed, generation } => Some(self.keep(signed, generation).await),
                Action::Refresh(signed) => {
                    self.refresh(signed);
                    None
                }
                Action::Raise(signed) => {
                    let trust = self.parts.trust.clone();
                    // It writes now and then; only a runtime that goes down does not run it.
                    let _ = blocking(move || trust.raise_time(signed)).await;
                    None
                }
                Action::KeepAudit(seen) => {
                    let store = self.parts.store.clone();
                    if let Ok(Err(error)) = blocking(move || stored::put_audit(&store, seen)).await {
                        tracing::warn!(error = %in_words(&error), "the audit head could not be stored");
                    }
                    None
                }
                Action::Begin(of) => self.begin(of).await,
                Action::Retire(of) => {
                    self.retire(of).await;
                    None
                }
                Action::Report => {
                    self.changed.send_modify(|count| *count += 1);
                    None
                }
                Action::Collect => {
                    self.collect();
                    None
                }
            };
            if let Some(input) = input {
                actions.extend(self.lines.handle(self.now(), input));
            }
        }
        self.show();
    }

    async fn persist(&mut self, of: Of, ticket: u64, record: Record) -> Input {
        let store = self.parts.store.clone();
        tracing::info!(line = %of.0, role = %of.1, state = ?record.state(), "updater");
        let place = of.clone();
        let input = match blocking(move || stored::put_record(&store, &place, record)).await {
            Ok(Ok(())) => updater::Input::Persisted(ticket),
            Ok(Err(error)) => {
                tracing::warn!(error = %in_words(&error), "the updater's record could not be stored; it is tried again");
                updater::Input::PersistFailed
            }
            Err(_) => updater::Input::PersistFailed,
        };
        Input::Line(of, input)
    }

    async fn keep(&mut self, signed: Vec<u8>, generation: Generation) -> Input {
        let store = self.parts.store.clone();
        let kept = blocking(move || stored::put_assignment(&store, &signed, generation)).await;
        match kept.map_err(UpdateError::from).and_then(|kept| kept.map_err(UpdateError::from)) {
            Ok(()) => Input::Kept,
            Err(error) => Input::NotKept { reason: in_words(&error) },
        }
    }

    /// Beside the loop: a slow repository must not keep a trial from being looked at. A newer assignment takes the place
    /// of one that waits.
    fn refresh(&mut self, signed: Vec<u8>) {
        self.refreshing.take().inspect(|task| task.abort());
        let (trust, again) = (self.parts.trust.clone(), self.again.clone());
        let asking = tokio::spawn(async move {
            if let Err(error) = trust.refresh().await {
                tracing::warn!(error = %in_words(&error), "an assignment speaks of metadata that could not be fetched");
            }
            // Nobody listens any more only when the agent stops.
            let _ = again.send(Message::Refreshed(signed));
        });
        self.refreshing = Some(asking.abort_handle());
    }

    async fn begin(&mut self, of: Of) -> Option<Input> {
        let (store, place) = (self.parts.store.clone(), of.clone());
        let read = blocking(move || stored::record(&store, &place)).await.map_err(UpdateError::from);
        match read.and_then(|record| record) {
            Ok(record) => Some(Input::Began(of, Box::new(record))),
            Err(error) => {
                tracing::error!(line = %of.0, role = %of.1, error = %in_words(&error), "cannot begin a role");
                None
            }
        }
    }

    /// Ends a role for good.
    async fn retire(&mut self, of: Of) {
        if let Some(mut line) = self.places.remove(&of) {
            line.fetching.take().inspect(|task| task.abort());
        }
        if let Err(error) = self.parts.serving.swap(&of.0, &of.1, None) {
            tracing::debug!(%error, "a retired role was not being served");
        }
        let store = self.parts.store.clone();
        if let Ok(Err(error)) = blocking(move || stored::delete_record(&store, &of)).await {
            tracing::warn!(error = %in_words(&error), "the record of a retired role stays");
        }
    }

    fn fetch(&mut self, of: Of, release: ReleaseRef, snapshot: u64, known: bool) {
        if let Some(postponed) = &mut self.postponed {
            // A later order of a place takes the earlier one's.
            postponed.retain(|(other, ..)| *other != of);
            return postponed.push((of, release, snapshot, known));
        }
        let beside = self.places.values().map(|line| line.slot.memory_beside(&release.sha256)).sum();
        let fetcher = Fetcher {
            origins: self.parts.origins.clone(),
            trust: self.parts.trust.clone(),
            capabilities: self.parts.capabilities.clone(),
            files: self.parts.files.clone(),
            snapshot,
            beside,
            known,
        };
        let done = self.done_sender.clone();
        let line = self.line(&of);
        line.fetching.take().inspect(|task| task.abort());
        let task = tokio::spawn(async move {
            let sha256 = release.sha256;
            let result = fetcher.fetch(of.0.clone(), release).await.map(Arc::new);
            let _ = done.send(Done { of, work: Work::Fetched(sha256, result) });
        });
        line.fetching = Some(task.abort_handle());
    }

    /// Beside the loop: a refresh that is under way has the chain until it ends.
    fn vouch(&mut self, of: Of, release: ReleaseRef) {
        let (trust, done) = (self.parts.trust.clone(), self.done_sender.clone());
        tokio::spawn(async move {
            let chain = fetch::vouch(&trust, &of.0, &release).await;
            let _ = done.send(Done { of, work: Work::Vouched(release.sha256, chain) });
        });
    }

    /// Shows every updater what its package has done.
    async fn look(&mut self) {
        let settled = self.places.iter().filter(|(_, line)| line.slot.is_settled()).map(|(of, _)| of.clone());
        for of in settled.collect::<Vec<_>>() {
            let Some(release) = self.lines.updater(&of).and_then(|updater| updater.ordered()) else { continue };
            let sha256 = release.sha256;
            let evidence = self.parts.serving.statistics(&of.0, &of.1);
            self.tell(Input::Line(of, updater::Input::Evidence { sha256, evidence })).await;
        }
    }

    fn collect(&mut self) {
        for (of, updater) in self.lines.updaters() {
            if let Some(line) = self.places.get_mut(of) {
                line.slot.release(updater.record());
            }
        }
        match self.parts.files.collect(&self.lines.references()) {
            Ok(0) => {}
            Ok(files) => tracing::debug!(files, "unreferenced package files removed"),
            Err(error) => tracing::warn!(%error, "package files could not be collected"),
        }
    }

    fn show(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.lines = self.lines.reports(|of| self.places.get(of).map_or("", |line| line.engine));
        shown.metadata = self.parts.trust.versions();
        shown.unfit = self.lines.unfit();
        shown.generation = self.lines.generation();
        shown.asks = self.lines.asks();
        shown.problem = self.lines.problem().map(str::to_owned);
        (shown.audit, shown.audit_problem) = (self.lines.audit(), self.lines.audit_problem());
        shown.flags = self.lines.flags();
        shown.reads = self.lines.hub_reads();
        self.parts.store.hub_reads(shown.reads);
        drop(shown);
        self.parts.serving.sample(self.lines.sampling());
        for line in &self.parts.lines {
            self.parts.serving.share_out(line, &self.lines.shares(line));
        }
    }
}
