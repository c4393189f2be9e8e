//! The loop: an input to an updater, then its actions until none is left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use edge_agent_core::updater::{Action, Input, Record, Updater};
use tributary_process::shutdown::Shutdown;
use tributary_wire::{Assignment, LineName, ReleaseRef, Role, UpdaterState};

use super::fetch::{Fetcher, blocking};
use super::line::{Done, Line, RECORDS, StoredRecord, Work};
use super::{Message, UpdateError, Updates};
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
            let trial = self.lines.iter().any(|line| line.updater.record().state() == UpdaterState::Trial);
            let look = looked + if trial { self.parts.config.look_every.0 } else { IDLE_LOOK };
            let wake =
                self.lines.iter().filter_map(|line| line.updater.next_wake()).min().map_or(look, |w| w.min(look));
            tokio::select! {
                () = shutdown.given() => break,
                message = self.messages.recv() => match message {
                    Some(Message::Assigned(bytes)) => self.assigned(bytes, true).await,
                    Some(Message::AssignedAnew(bytes)) => self.assigned(bytes, false).await,
                    Some(Message::Online(online)) => {
                        for index in 0..self.lines.len() {
                            self.tell(index, Input::Online(online)).await;
                        }
                        self.online = online;
                    }
                    None => break,
                },
                Some(done) = self.done.recv() => self.done(done).await,
                () = tokio::time::sleep(wake.saturating_sub(now)) => {
                    let now = Duration::from_micros(clock.monotonic());
                    if now >= look {
                        looked = now;
                        self.look().await;
                    }
                    for index in 0..self.lines.len() {
                        if self.lines[index].updater.next_wake().is_some_and(|wake| wake <= now) {
                            self.tell(index, Input::Woken).await;
                        }
                    }
                }
            }
            self.show();
        }
        self.refreshing.take().inspect(|task| task.abort());
        for index in 0..self.lines.len() {
            self.lines[index].fetching.take().inspect(|task| task.abort());
            self.tell(index, Input::Stopping).await;
        }
    }

    /// Reads the records and puts committed packages in place, each after all its checks.
    pub(super) async fn recover(&mut self) -> Result<(), UpdateError> {
        let store = self.parts.store.clone();
        let keys = blocking(move || store.blob_keys(RECORDS)).await??;
        let mut known: Vec<(LineName, Role)> = keys.iter().filter_map(|key| Line::parse(key)).collect();
        for line in &self.parts.lines {
            if !known.contains(&(line.clone(), Role::primary())) {
                known.push((line.clone(), Role::primary()));
            }
        }
        for (name, role) in known {
            if self.parts.lines.contains(&name) {
                self.start_line(name, role).await?;
            }
        }
        // Orders given so far are carried out before anything is served.
        while self.lines.iter().any(|line| line.order > line.carried_out) {
            let Some(done) = self.done.recv().await else { break };
            self.done(done).await;
        }
        self.recover_audit().await?;
        self.recover_assignment().await?;
        self.collect();
        self.show();
        Ok(())
    }

    async fn start_line(&mut self, name: LineName, role: Role) -> Result<usize, UpdateError> {
        let key = Line::key(&name, &role);
        let (store, stored_key) = (self.parts.store.clone(), key.clone());
        let record = match blocking(move || store.blob_get(&stored_key)).await?? {
            Some(bytes) => {
                let stored: StoredRecord =
                    postcard::from_bytes(&bytes).map_err(|source| UpdateError::Record { key, source })?;
                stored.into()
            }
            None => Record::default(),
        };
        let settings = self.parts.config.settings();
        let seed = self.parts.seed.wrapping_add(self.lines.len() as u64);
        let (updater, actions) = Updater::recover(name.clone(), role.clone(), settings, record, self.now(), seed);
        self.lines.push(Line::new(name, role, updater));
        let index = self.lines.len() - 1;
        self.perform(index, actions).await;
        if self.online {
            self.tell(index, Input::Online(true)).await;
        }
        Ok(index)
    }

    /// The line of this name and role; a new role begins with nothing.
    pub(super) async fn line(&mut self, name: &LineName, role: &Role) {
        if self.lines.iter().any(|line| line.is(name, role)) {
            return;
        }
        if let Err(error) = self.start_line(name.clone(), role.clone()).await {
            tracing::error!(line = %name, role = %role, error = %in_words(&error), "cannot begin a role");
        }
    }

    /// Ends a role for good.
    pub(super) async fn retire(&mut self, index: usize) {
        let mut line = self.lines.swap_remove(index);
        line.fetching.take().inspect(|task| task.abort());
        if let Err(error) = self.parts.serving.swap(&line.name, &line.role, None) {
            tracing::debug!(%error, "a retired role was not being served");
        }
        let (store, key) = (self.parts.store.clone(), Line::key(&line.name, &line.role));
        if let Ok(Err(error)) = blocking(move || store.blob_delete(&key)).await {
            tracing::warn!(error = %in_words(&error), "the record of a retired role stays");
        }
        self.collect();
    }

    /// Tells one updater what happened and carries out what it decides.
    pub(super) async fn tell(&mut self, index: usize, input: Input) {
        let now = self.now();
        let actions = self.lines[index].updater.handle(now, input);
        self.perform(index, actions).await;
    }

    async fn perform(&mut self, index: usize, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let input = match action {
                Action::Persist { ticket, record } => Some(self.persist(index, ticket, *record).await),
                Action::Fetch(release) => {
                    self.fetch(index, release);
                    None
                }
                Action::Serve(package) => self.serve(index, package),
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
                let now = self.now();
                actions.extend(self.lines[index].updater.handle(now, input));
            }
        }
        self.show();
    }

    async fn persist(&mut self, index: usize, ticket: u64, record: Record) -> Input {
        let line = &self.lines[index];
        let (store, key) = (self.parts.store.clone(), Line::key(&line.name, &line.role));
        tracing::info!(line = %line.name, role = %line.role, state = ?record.state(), "updater");
        let stored = blocking(move || {
            let bytes = postcard::to_allocvec(&StoredRecord::V2(record)).expect("plain data always serialises");
            store.blob_put(&key, &bytes)
        });
        match stored.await {
            Ok(Ok(())) => Input::Persisted(ticket),
            Ok(Err(error)) => {
                tracing::warn!(error = %in_words(&error), "the updater's record could not be stored; it is tried again");
                Input::PersistFailed
            }
            Err(_) => Input::PersistFailed,
        }
    }

    fn fetch(&mut self, index: usize, release: ReleaseRef) {
        let record = self.lines[index].updater.record();
        // Checked before it was committed, and its hash is in the durable record.
        let known = [&record.committed, &record.previous, &record.lost]
            .into_iter()
            .flatten()
            .any(|it| it.sha256 == release.sha256);
        let fetcher = Fetcher {
            origins: self.parts.origins.clone(),
            trust: self.parts.trust.clone(),
            capabilities: self.parts.capabilities.clone(),
            files: self.parts.files.clone(),
            snapshot: self.accepted.as_ref().map_or(0, Assignment::snapshot),
            known,
        };
        let done = self.done_sender.clone();
        let line = &mut self.lines[index];
        line.fetching.take().inspect(|task| task.abort());
        let (name, role) = (line.name.clone(), line.role.clone());
        let task = tokio::spawn(async move {
            let sha256 = release.sha256;
            let result = fetcher.fetch(name.clone(), release).await.map(Arc::new);
            let _ = done.send(Done { line: name, role, work: Work::Fetched(sha256, result) });
        });
        line.fetching = Some(task.abort_handle());
    }

    /// Shows every updater what its package has done.
    async fn look(&mut self) {
        for index in 0..self.lines.len() {
            let line = &self.lines[index];
            let Some(release) = line.updater.ordered().filter(|_| line.carried_out == line.order) else { continue };
            let sha256 = release.sha256;
            let evidence = self.parts.serving.statistics(&line.name, &line.role);
            self.tell(index, Input::Evidence { sha256, evidence }).await;
        }
    }

    pub(super) fn collect(&mut self) {
        self.lines.iter_mut().for_each(Line::release);
        let keep: Vec<_> = self.lines.iter().flat_map(|line| line.updater.references()).collect();
        match self.parts.files.collect(&keep) {
            Ok(0) => {}
            Ok(files) => tracing::debug!(files, "unreferenced package files removed"),
            Err(error) => tracing::warn!(%error, "package files could not be collected"),
        }
    }
}
