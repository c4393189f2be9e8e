//! What a group will change: which rows go into files, which numbers are answered for, what is kept aside and why.
//!
//! Reads the catalog, changes nothing: a plan that cannot be carried out is thrown away and made again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use cloud_hub_lake::{BatchKey, Portion, Rowless, SchemaConflict};
use tributary_wire::{DeviceId, Incarnation, Micros, SequenceNumber, Sha256, StreamName};

use super::collect::{Item, Origin, Work};
use super::decode::{BodyError, Content, digest, key, to_records};
use super::ledger::{Answer, Entry, Ledger, LedgerError};
use super::progress::Progress;
use super::{HUB_DEVICE, Parts, Replayed, SubmitError};
use crate::catalog::batches::{Numbering, State};
use crate::catalog::quarantine::Kept;

/// Where the numbering of every stream that was met stands.
pub(super) type Standings = HashMap<Numbering, Progress>;

/// What a receipt says of the messages that it answers.
#[derive(Default)]
pub(super) struct Receipt {
    /// Their numbers.
    pub(super) answered: Vec<SequenceNumber>,
    /// Of these, the ones kept aside.
    pub(super) quarantined: Vec<SequenceNumber>,
}

/// What a group will change.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) portions: BTreeMap<StreamName, Vec<Portion>>,
    /// What goes into the ledger, but for the files and how far streams are complete.
    pub(super) entry: Entry,
    /// The messages of `entry.kept`.
    pub(super) messages: Vec<Bytes>,
    /// Streams to acknowledge.
    pub(super) receipts: BTreeMap<Numbering, Receipt>,
    /// Orders that cannot be carried out: item → why.
    pub(super) refused: HashMap<usize, SubmitError>,
    pub(super) standings: Standings,
    pub(super) duplicates: u64,
    taken: HashMap<(Numbering, SequenceNumber), (Sha256, State)>,
    keeping: HashMap<DeviceId, u64>,
}

impl Plan {
    /// What is answered for without rows in its stream, for the footers of the lake's files: all that a lost catalog has
    /// to know again. What is in quarantine has a file of its own.
    pub(super) fn rowless(&self) -> BTreeMap<StreamName, Vec<Rowless>> {
        let with_rows: BTreeSet<&BatchKey> = self.portions.values().flatten().map(|portion| &portion.key).collect();
        let mut rowless: BTreeMap<StreamName, Vec<Rowless>> = BTreeMap::new();
        for answer in self.entry.answers.iter().filter(|answer| answer.state != State::Quarantined) {
            let Answer { of, sequence, last, hash, state, received, lost, .. } = answer.clone();
            if !with_rows.contains(&key(&of, sequence)) {
                let Numbering { device, incarnation, stream } = of;
                let gap = state == State::Gap;
                let found = Rowless { device, incarnation, sequence, last, hash, gap, lost, received };
                rowless.entry(stream).or_default().push(found);
            }
        }
        rowless
    }
}

/// Plans a group on what was known before it.
pub(super) struct Planner<'a, L> {
    pub(super) parts: &'a Parts<L>,
    pub(super) known: &'a Standings,
}

impl<L: Ledger> Planner<'_, L> {
    pub(super) async fn plan(&self, items: &[Item]) -> Result<Plan, LedgerError> {
        let mut plan = Plan::default();
        for (place, item) in items.iter().enumerate() {
            match self.item(&mut plan, item).await {
                Ok(()) => {}
                Err(Stop::Refused(error)) => drop(plan.refused.insert(place, error)),
                Err(Stop::Ledger(error)) => return Err(error),
            }
        }
        Ok(plan)
    }

    async fn item(&self, plan: &mut Plan, item: &Item) -> Result<(), Stop> {
        match (&item.work, &item.origin) {
            (Work::Own { stream, fields, columns, noted }, _) => {
                let (of, sequence) = self.own_number(plan, stream).await?;
                self.fit(plan, stream, fields)
                    .map_err(|source| SubmitError::Schema { stream: stream.clone(), source })?;
                let records = to_records(&of, sequence, item.received, fields, columns.clone())
                    .map_err(|error| SubmitError::Unusable { problem: error.to_string() })?;
                // The hub makes every number once, so there is no second body to tell it from.
                let hash = digest(&[]);
                self.store(plan, Stored { of, sequence, hash, records, received: item.received, replays: false });
                plan.entry.noted.extend(noted.clone());
                Ok(())
            }
            (Work::Message(content), Origin::Replay { kept, .. }) => self.replay(plan, item, content, kept).await,
            (Work::Message(content), Origin::Device(device)) => self.message(plan, item, device, content).await,
            // The hub's own records never travel as messages.
            (Work::Message(_), Origin::Hub(_)) => Ok(()),
        }
    }

    async fn message(&self, plan: &mut Plan, item: &Item, device: &DeviceId, content: &Content) -> Result<(), Stop> {
        let (of, sequence, hash) = match content {
            Content::Records { of, sequence, hash, .. }
            | Content::Gap { of, sequence, hash, .. }
            | Content::Broken { of, sequence, hash, .. } => (of, *sequence, *hash),
            Content::Unreadable { problem } => {
                let kept = self.keep(plan, item, device, None, "undecodable-header", problem.clone()).await?;
                tracing::warn!(%device, problem, kept, "a batch without a readable header");
                return Ok(());
            }
        };
        if let Some(before) = self.answered(plan, of, sequence).await? {
            let receipt = plan.receipts.entry(of.clone()).or_default();
            receipt.answered.push(sequence);
            match before {
                Before::Hash(known, state) if known == hash => {
                    if state == State::Quarantined {
                        receipt.quarantined.push(sequence);
                    }
                    plan.duplicates += 1;
                }
                // What it had sent before the device's own disk lost it is here.
                Before::Hash(..) if content.is_damaged_batch() => plan.duplicates += 1,
                Before::Hash(..) | Before::InGap => {
                    receipt.quarantined.push(sequence);
                    plan.entry.cloned.push((of.clone(), sequence));
                    let problem = match before {
                        Before::InGap => format!("number {sequence} was declared dropped before"),
                        Before::Hash(..) => format!("number {sequence} was taken by another body before"),
                    };
                    self.keep(plan, item, device, Some((of, sequence)), "conflict", problem).await?;
                }
            }
            return Ok(());
        }
        match content {
            Content::Records { fields, records, .. } => match self.fit(plan, &of.stream, fields) {
                Ok(()) => {
                    let (of, records, received) = (of.clone(), records.clone(), item.received);
                    self.store(plan, Stored { of, sequence, hash, records, received, replays: false });
                }
                Err(conflict) => self.set_aside(plan, item, of, sequence, hash, &conflict.into()).await?,
            },
            Content::Broken { problem, .. } => self.set_aside(plan, item, of, sequence, hash, problem).await?,
            Content::Gap { last, lost, .. } => {
                self.answer(plan, item.received, of, (sequence, *last), hash, 0, State::Gap);
                if let Some(answer) = plan.entry.answers.last_mut() {
                    answer.lost.clone_from(lost);
                }
            }
            Content::Unreadable { .. } => {}
        }
        Ok(())
    }

    async fn replay(&self, plan: &mut Plan, item: &Item, content: &Content, kept: &Replayed) -> Result<(), Stop> {
        let Replayed { id, stream: other, noted, .. } = kept;
        let other = other.as_ref();
        let settled = |problem: String| SubmitError::Settled { id: id.clone(), problem };
        let (of, sequence, hash, fields, records) = match content {
            Content::Records { of, sequence, hash, fields, records } => (of, *sequence, *hash, fields, records),
            Content::Gap { .. } => return Err(settled("it holds no records".to_owned()).into()),
            Content::Broken { problem, .. } => return Err(settled(problem.to_string()).into()),
            Content::Unreadable { problem } => return Err(settled(problem.clone()).into()),
        };
        let replays = match self.answered(plan, of, sequence).await? {
            None => false,
            Some(Before::Hash(known, State::Quarantined)) if known == hash => true,
            Some(Before::Hash(known, _)) if known == hash => {
                return Err(settled("its records are in the lake".to_owned()).into());
            }
            Some(_) => return Err(settled(format!("number {sequence} belongs to another body")).into()),
        };
        let stream = other.unwrap_or(&of.stream);
        self.fit(plan, stream, fields).map_err(|source| SubmitError::Schema { stream: stream.clone(), source })?;
        let (of, records, received) = (of.clone(), records.clone(), item.received);
        if let Some(other) = other.filter(|other| **other != of.stream) {
            // In the other stream the device may use the same number itself, so the hub's numbers stand there.
            let (own, number) = self.own_number(plan, other).await?;
            let rows = records.num_rows() as u64;
            self.store(plan, Stored { of: own, sequence: number, hash, records, received, replays: false });
            self.answer(plan, received, &of, (sequence, sequence), hash, rows, State::Stored);
            if let Some(answer) = plan.entry.answers.last_mut() {
                answer.replays = replays;
            }
        } else {
            self.store(plan, Stored { of, sequence, hash, records, received, replays });
        }
        plan.entry.replayed.push(id.clone());
        plan.entry.noted.push(noted.clone());
        Ok(())
    }

    /// Takes in the columns of a batch, or says what does not fit.
    fn fit(
        &self,
        plan: &mut Plan,
        stream: &StreamName,
        fields: &[tributary_wire::Field],
    ) -> Result<(), SchemaConflict> {
        let current = match plan.entry.schemas.get(stream) {
            Some((schema, _)) => schema.clone(),
            None => self.parts.lake.schema(stream),
        };
        let additions = current.additions(fields)?;
        if !additions.is_empty() {
            let had = current.columns.len();
            let entry = plan.entry.schemas.entry(stream.clone()).or_insert((current, had));
            entry.0.columns.extend(additions);
        }
        Ok(())
    }

    fn store(&self, plan: &mut Plan, stored: Stored) {
        let Stored { of, sequence, hash, records, received, replays } = stored;
        let rows = records.num_rows() as u64;
        if rows > 0 {
            let portion = Portion { key: key(&of, sequence), hash, ingest_time: received, records };
            plan.portions.entry(of.stream.clone()).or_default().push(portion);
        }
        self.answer(plan, received, &of, (sequence, sequence), hash, rows, State::Stored);
        if let Some(answer) = plan.entry.answers.last_mut() {
            answer.replays = replays;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one per column of the answer")]
    fn answer(
        &self,
        plan: &mut Plan,
        received: Micros,
        of: &Numbering,
        (sequence, last): (SequenceNumber, SequenceNumber),
        hash: Sha256,
        rows: u64,
        state: State,
    ) {
        if let Some(standing) = plan.standings.get_mut(of) {
            standing.add(sequence.0, last.0);
        }
        plan.taken.insert((of.clone(), sequence), (hash, state));
        if of.device.as_str() != HUB_DEVICE {
            plan.receipts.entry(of.clone()).or_default().answered.push(sequence);
        }
        let (of, lost) = (of.clone(), Vec::new());
        plan.entry.answers.push(Answer { of, sequence, last, hash, rows, state, received, lost, replays: false });
    }

    /// Keeps a named message and answers for it, unless the device's quarantine is full: then it is neither.
    async fn set_aside(
        &self,
        plan: &mut Plan,
        item: &Item,
        of: &Numbering,
        sequence: SequenceNumber,
        hash: Sha256,
        problem: &BodyError,
    ) -> Result<(), Stop> {
        tracing::warn!(device = %of.device, stream = %of.stream, %sequence, %problem, "a batch goes to quarantine");
        let named = Some((of, sequence));
        if self.keep(plan, item, &of.device, named, problem.reason(), problem.to_string()).await? {
            self.answer(plan, item.received, of, (sequence, sequence), hash, 0, State::Quarantined);
            plan.receipts.entry(of.clone()).or_default().quarantined.push(sequence);
        }
        Ok(())
    }

    /// Whether the message is or will be kept.
    async fn keep(
        &self,
        plan: &mut Plan,
        item: &Item,
        device: &DeviceId,
        named: Option<(&Numbering, SequenceNumber)>,
        reason: &'static str,
        detail: String,
    ) -> Result<bool, Stop> {
        let hash = digest(&item.message);
        let planned = plan.entry.kept.iter().any(|kept| kept.device == *device && kept.hash == hash);
        if planned || self.parts.catalog.is_kept(device, &hash).await? {
            plan.entry.again.push((device.clone(), hash));
            return Ok(true);
        }
        let bytes = item.message.len() as u64;
        let used = match plan.keeping.get(device) {
            Some(used) => *used,
            None => self.parts.catalog.kept_bytes(device).await?,
        };
        if used + bytes > self.parts.config.quarantine_bytes.0 {
            plan.entry.overfull.push(device.clone());
            return Ok(false);
        }
        plan.keeping.insert(device.clone(), used + bytes);
        let id = self.parts.lake.new_name().to_string();
        let path = format!("{device}/{id}.batch");
        let named = named.map(|(of, sequence)| (of.clone(), sequence.0));
        let kept = Kept { id, device: device.clone(), named, reason, detail, hash, bytes, path };
        plan.entry.kept.push(kept);
        plan.messages.push(item.message.clone());
        Ok(true)
    }

    async fn own_number(&self, plan: &mut Plan, stream: &StreamName) -> Result<(Numbering, SequenceNumber), Stop> {
        let device = DeviceId::new(HUB_DEVICE).map_err(|error| LedgerError::from(sqlx::Error::Decode(error.into())))?;
        let of = Numbering { device, incarnation: Incarnation(1), stream: stream.clone() };
        let next = self.standing(plan, &of).await?.through().0 + 1;
        Ok((of, SequenceNumber(next)))
    }

    /// How a number was answered for before, in the catalog or earlier in this group.
    async fn answered(
        &self,
        plan: &mut Plan,
        of: &Numbering,
        sequence: SequenceNumber,
    ) -> Result<Option<Before>, Stop> {
        if let Some((hash, state)) = plan.taken.get(&(of.clone(), sequence)) {
            return Ok(Some(Before::Hash(*hash, *state)));
        }
        if !self.standing(plan, of).await?.contains(sequence.0) {
            return Ok(None);
        }
        let known = self.parts.catalog.answered(of, sequence).await?;
        Ok(Some(known.map_or(Before::InGap, |(hash, state)| Before::Hash(hash, state))))
    }

    async fn standing<'p>(&self, plan: &'p mut Plan, of: &Numbering) -> Result<&'p Progress, Stop> {
        if !plan.standings.contains_key(of) {
            let standing = match self.known.get(of) {
                Some(standing) => standing.clone(),
                None => {
                    let (through, ranges) = self.parts.catalog.progress(of).await?;
                    Progress::new(through, ranges)
                }
            };
            plan.standings.insert(of.clone(), standing);
        }
        Ok(&plan.standings[of])
    }
}

struct Stored {
    of: Numbering,
    sequence: SequenceNumber,
    hash: Sha256,
    records: arrow::array::RecordBatch,
    received: Micros,
    replays: bool,
}

enum Before {
    Hash(Sha256, State),
    InGap,
}

/// Why an item was not planned.
enum Stop {
    /// The order is refused; the rest of the group goes on.
    Refused(SubmitError),
    /// The ledger failed; so does the plan.
    Ledger(LedgerError),
}

impl From<SubmitError> for Stop {
    fn from(error: SubmitError) -> Self {
        Self::Refused(error)
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}
