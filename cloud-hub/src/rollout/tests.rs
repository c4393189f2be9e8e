//! A fleet in a catalog in memory: the real store, planner and signatures, no network.

use std::collections::BTreeMap;

use cloud_hub_core::rollout::Policy;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{SqliteConnection, SqlitePool};
use tributary_release::{Installed, SigningKey, Standing, VerifyingKeys, verify_assignment};
use tributary_wire::{
    Assignment, AssignmentV1, ClockState, DeviceId, Generation, Health, Incarnation, LineName, LineReport, Micros,
    PackageRef, Report, ReportV1, Resources, Role, Sha256, Stamp, TrialReport, UpdaterState, VersionNumber,
};

use super::assignments::Outgoing;
use super::engine::{Command, advance, begin, carry_out, outlook};
use super::{RolloutError, assignments, store};
use crate::audit;

struct Fleet {
    pool: SqlitePool,
    key: SigningKey,
    keys: VerifyingKeys,
    line: LineName,
    now: Micros,
    /// The highest version of messages that its agents read.
    reads: u8,
    accepted: BTreeMap<DeviceId, AssignmentV1>,
    reports: BTreeMap<DeviceId, LineReport>,
}

fn sha256(version: u32) -> Sha256 {
    Sha256([version as u8; 32])
}

fn package(version: u32) -> PackageRef {
    PackageRef { version: VersionNumber(version), sha256: sha256(version) }
}

fn device(number: usize) -> DeviceId {
    DeviceId::new(&format!("edge-{number}")).unwrap()
}

impl Fleet {
    async fn new(size: usize) -> Self {
        // One connection: every other would see a memory of its own.
        let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("./migrations").run(&pool).await.unwrap();
        let key = SigningKey::generate([7; 32]);
        let keys = VerifyingKeys::new([key.verifying_key()]);
        let (line, now) = (LineName::new("card-fraud").unwrap(), Micros(1_000 * Micros::SECOND));
        let mut fleet =
            Self { pool, key, keys, line, now, reads: 1, accepted: BTreeMap::new(), reports: BTreeMap::new() };
        fleet.publish(1).await;
        fleet.publish(2).await;
        for number in 0..size {
            fleet.reports.insert(device(number), fleet.report(None));
            let query = "insert into devices (id, first_seen, last_seen) values ($1, 0, 0)";
            sqlx::query(query).bind(device(number).as_str()).execute(&fleet.pool).await.unwrap();
            fleet.say(&device(number)).await;
        }
        fleet
    }

    async fn publish(&self, version: u32) {
        let query = "insert into versions (line, version, sha256, length, origin, manifest_json, result_json, created)
                     values ('card-fraud', $1, $2, 9, 'uploaded', '{}', 'null', 0)";
        sqlx::query(query).bind(version).bind(sha256(version).to_string()).execute(&self.pool).await.unwrap();
        let query = "insert into releases (line, version, sha256, length, signed, key_id, published)
                     values ('card-fraud', $1, $2, 9, x'', '', 0)";
        sqlx::query(query).bind(version).bind(sha256(version).to_string()).execute(&self.pool).await.unwrap();
    }

    fn report(&self, committed: Option<u32>) -> LineReport {
        LineReport {
            line: self.line.clone(),
            role: Role::primary(),
            state: UpdaterState::Idle,
            committed: committed.map(package),
            previous: None,
            candidate: None,
            undone: None,
            error: None,
            engine: "tract".to_owned(),
            trial: TrialReport { predictions: 10_000, ..TrialReport::default() },
        }
    }

    /// The device reports, as the hub stores it.
    async fn say(&self, device: &DeviceId) {
        let report = Report::V1(ReportV1 {
            number: 1,
            incarnation: Incarnation(1),
            stamp: Stamp { boot: 1, monotonic: 0, wall: self.now, clock: ClockState::Synchronised },
            reads: self.reads,
            agent: "test".to_owned(),
            labels: Vec::new(),
            generation: self.generation(device),
            asks: false,
            lines: vec![self.reports[device].clone()],
            snapshot: None,
            health: Health::default(),
            resources: Resources::default(),
        });
        let query = "update devices set report = $1, report_at = $2, last_seen = $2 where id = $3";
        let bytes = report.encode();
        sqlx::query(query).bind(bytes).bind(self.now.0).bind(device.as_str()).execute(&self.pool).await.unwrap();
    }

    fn generation(&self, device: &DeviceId) -> Generation {
        self.accepted.get(device).map_or(Generation(0), |assignment| assignment.generation)
    }

    /// The device checks what it got as a real one does, and takes over what it is assigned.
    async fn receive(&mut self, outgoing: &[Outgoing]) {
        for message in outgoing {
            let committed = self.reports[&message.device].committed;
            let installed: Vec<Installed> = committed
                .map(|package| Installed { line: self.line.clone(), role: Role::primary(), package })
                .into_iter()
                .collect();
            let generation = self.generation(&message.device);
            let standing = Standing { device: &message.device, generation, installed: &installed, now: self.now };
            let assignment = verify_assignment(&self.keys, &standing, &message.signed).unwrap().desired().clone();
            let report = self.reports.get_mut(&message.device).unwrap();
            report.undone = None;
            if let Some(wish) = assignment.lines.first() {
                report.committed = Some(package(wish.release.version.0));
            }
            self.accepted.insert(message.device.clone(), assignment);
            self.say(&message.device).await;
        }
    }

    async fn begin(&mut self, version: u32, percent: &[u8]) -> Result<i64, RolloutError> {
        let mut tx = self.pool.begin().await.unwrap();
        let policy = Policy { percent: percent.to_vec(), ..Policy::default() };
        let line = (&self.line, &Role::primary());
        let id = begin(&mut tx, line, VersionNumber(version), policy, "test", self.now).await?.rollout.id;
        tx.commit().await.unwrap();
        Ok(id)
    }

    async fn advance(&mut self, id: i64) -> Vec<Outgoing> {
        self.now = Micros(self.now.0 + Micros::SECOND);
        let mut tx = self.pool.begin().await.unwrap();
        let changed = advance(&mut tx, &self.key, id, self.now).await.unwrap();
        tx.commit().await.unwrap();
        changed.outgoing
    }

    async fn command(&mut self, id: i64, command: Command) -> Result<(), RolloutError> {
        let mut tx = self.pool.begin().await.unwrap();
        carry_out(&mut tx, id, command, "because", self.now).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn settle(&mut self, id: i64) -> &'static str {
        for _ in 0..12 {
            let outgoing = self.advance(id).await;
            self.receive(&outgoing).await;
        }
        self.state(id).await
    }

    async fn state(&self, id: i64) -> &'static str {
        store::get(&mut *self.connection().await, id).await.unwrap().rollout.state.name()
    }

    async fn connection(&self) -> sqlx::pool::PoolConnection<sqlx::Sqlite> {
        self.pool.acquire().await.unwrap()
    }

    async fn answer(&self, device: &DeviceId, generation: Generation, asks: bool) -> Option<Outgoing> {
        let mut connection = self.connection().await;
        let catalog: &mut SqliteConnection = &mut connection;
        assignments::answer(catalog, &self.key, device, (generation, asks), self.now).await.unwrap()
    }

    fn versions(&self) -> Vec<u32> {
        self.reports.values().map(|report| report.committed.map_or(0, |package| package.version.0)).collect()
    }
}

#[tokio::test]
async fn a_rollout_reaches_every_device_with_valid_signatures_and_growing_generations() {
    let mut fleet = Fleet::new(5).await;
    let first = fleet.begin(1, &[40, 100]).await.unwrap();
    assert_eq!(fleet.settle(first).await, "completed");
    assert_eq!(fleet.versions(), [1; 5]);
    let second = fleet.begin(2, &[40, 100]).await.unwrap();
    assert_eq!(fleet.settle(second).await, "completed");
    assert_eq!(fleet.versions(), [2; 5]);
    assert!(fleet.accepted.values().all(|assignment| assignment.generation == Generation(2)));
    let steps = store::steps(&mut *fleet.connection().await, second).await.unwrap();
    assert!(steps.iter().any(|step| step.message.starts_with("wave 1 passed")), "{steps:?}");
}

#[tokio::test]
async fn a_device_that_undoes_the_release_takes_everyone_back_by_a_newer_assignment() {
    let mut fleet = Fleet::new(4).await;
    let first = fleet.begin(1, &[100]).await.unwrap();
    fleet.settle(first).await;
    let second = fleet.begin(2, &[50, 100]).await.unwrap();
    let outgoing = fleet.advance(second).await;
    assert_eq!(outgoing.len(), 2);
    fleet.receive(&outgoing).await;
    let failing = outgoing[0].device.clone();
    let report = fleet.reports.get_mut(&failing).unwrap();
    report.committed = Some(package(1));
    report.undone = Some((package(2), "outputs out of bounds".to_owned()));
    fleet.say(&failing).await;
    let back = fleet.advance(second).await;
    assert_eq!(back.len(), 2, "also the one that was content goes back");
    fleet.receive(&back).await;
    assert!(fleet.accepted.values().all(|a| a.lines[0].release.version == VersionNumber(1)));
    assert!(back.iter().all(|b| fleet.accepted[&b.device].lines[0].allow_lower));
    assert_eq!(fleet.settle(second).await, "stopped");
    assert_eq!(fleet.versions(), [1; 4]);
    let steps = store::steps(&mut *fleet.connection().await, second).await.unwrap();
    assert!(steps.iter().any(|step| step.message.contains("outputs out of bounds")), "{steps:?}");
}

#[tokio::test]
async fn a_lost_assignment_is_sent_again_and_a_question_is_answered_with_the_same_one() {
    let mut fleet = Fleet::new(1).await;
    let id = fleet.begin(1, &[100]).await.unwrap();
    let lost = fleet.advance(id).await.remove(0);
    let again = fleet.answer(&device(0), Generation(0), false).await.unwrap();
    assert_eq!(again, lost);
    assert_eq!(fleet.answer(&device(0), lost.generation, true).await, Some(lost.clone()), "the word to go ahead");
    assert_eq!(fleet.answer(&device(0), lost.generation, false).await, None);
    let ahead = fleet.answer(&device(0), Generation(9), false).await.unwrap();
    assert_eq!(ahead.generation, Generation(10), "a hub restored from a backup does not fall behind its devices");
    fleet.now = Micros(fleet.now.0 + 40 * Micros::DAY);
    let fresh = fleet.answer(&device(0), Generation(3), false).await.unwrap();
    assert_eq!(fresh.generation, Generation(11), "an expired one is signed anew");
}

#[tokio::test]
async fn while_paused_nobody_gets_the_release_and_after_a_stop_nothing_of_it_is_signed() {
    let mut fleet = Fleet::new(4).await;
    let first = fleet.begin(1, &[100]).await.unwrap();
    fleet.settle(first).await;
    let second = fleet.begin(2, &[25, 100]).await.unwrap();
    let lost = fleet.advance(second).await.remove(0);
    fleet.command(second, Command::Pause).await.unwrap();
    assert_eq!(fleet.answer(&lost.device, Generation(1), false).await, None, "held");
    assert_eq!(fleet.answer(&lost.device, lost.generation, true).await, None, "no word to begin the trial");
    assert!(fleet.advance(second).await.is_empty());
    fleet.command(second, Command::Resume).await.unwrap();
    assert_eq!(fleet.answer(&lost.device, lost.generation, true).await.as_ref(), Some(&lost));
    fleet.command(second, Command::Abort).await.unwrap();
    let back = fleet.advance(second).await;
    assert_eq!(back.len(), 1);
    let corrected = fleet.answer(&lost.device, lost.generation, true).await.unwrap();
    assert_eq!(corrected, back[0], "the older assignment is corrected, not confirmed");
    fleet.receive(&back).await;
    assert_eq!(fleet.settle(second).await, "stopped");
    assert_eq!(fleet.versions(), [1; 4]);
    assert!(matches!(fleet.command(second, Command::Resume).await, Err(RolloutError::Command(_))));
}

#[tokio::test]
async fn only_one_rollout_of_a_line_is_under_way_and_only_of_published_versions() {
    let mut fleet = Fleet::new(2).await;
    let id = fleet.begin(1, &[50, 100]).await.unwrap();
    assert!(matches!(fleet.begin(2, &[100]).await, Err(RolloutError::UnderWay { rollout, .. }) if rollout == id));
    fleet.command(id, Command::Abort).await.unwrap();
    assert!(matches!(fleet.begin(9, &[100]).await, Err(RolloutError::NotPublished { .. })));
    assert!(matches!(fleet.begin(2, &[0]).await, Err(RolloutError::Policy(_))));
    let next = fleet.begin(2, &[100]).await.unwrap();
    assert_eq!(fleet.state(id).await, "stopped", "superseded");
    assert_eq!(fleet.settle(next).await, "completed");
}

#[tokio::test]
async fn a_step_decided_on_an_old_epoch_changes_nothing() {
    let mut fleet = Fleet::new(2).await;
    let id = fleet.begin(1, &[100]).await.unwrap();
    let mut connection = fleet.connection().await;
    let mut stale = store::get(&mut connection, id).await.unwrap();
    let mut fresh = stale.clone();
    store::update(&mut connection, &mut fresh, fleet.now).await.unwrap();
    let lost = store::update(&mut connection, &mut stale, fleet.now).await;
    assert!(matches!(lost, Err(RolloutError::Fenced { .. })));
}

#[tokio::test]
async fn evidence_counts_from_the_beginning_of_the_wave_with_and_without_the_release() {
    let mut fleet = Fleet::new(2).await;
    let first = fleet.begin(1, &[100]).await.unwrap();
    fleet.settle(first).await;
    let second = fleet.begin(2, &[50, 100]).await.unwrap();
    let outgoing = fleet.advance(second).await;
    fleet.receive(&outgoing).await;
    let canary = outgoing[0].device.clone();
    for (device, report) in &mut fleet.reports {
        let (predictions, errors) = if *device == canary { (120, 3) } else { (10_500, 7) };
        report.trial = TrialReport { predictions, errors, ..TrialReport::default() };
    }
    for number in 0..2 {
        fleet.say(&device(number)).await;
    }
    let mut connection = fleet.connection().await;
    let stored = store::get(&mut connection, second).await.unwrap();
    let (plan, _, evidence) = outlook(&mut connection, &stored, fleet.now).await.unwrap();
    assert_eq!((evidence.canary.trials, evidence.canary.failures), (120, 3));
    assert_eq!((evidence.control.trials, evidence.control.failures), (500, 7));
    assert!(plan.reasons.iter().any(|reason| reason.contains("120 of 500")), "{:?}", plan.reasons);
}

#[tokio::test]
async fn the_head_of_the_audit_log_goes_out_with_every_assignment_to_those_who_can_read_it() {
    let mut fleet = Fleet::new(2).await;
    fleet.reads = 2;
    fleet.say(&device(0)).await;
    let id = fleet.begin(1, &[100]).await.unwrap();
    let outgoing = fleet.advance(id).await;
    let signed = |device: &DeviceId, outgoing: &[Outgoing]| {
        let message = outgoing.iter().find(|message| message.device == *device).unwrap();
        Assignment::decode(&message.signed.payload).unwrap()
    };
    assert_eq!(signed(&device(1), &outgoing).audit(), None, "its agent reads version 1");
    let head = signed(&device(0), &outgoing).audit().unwrap();
    let mut connection = fleet.connection().await;
    assert_eq!(head, audit::head(&mut connection).await.unwrap());
    // What the assignment carries out is already under the head that it carries.
    let newest = audit::store::list(&mut connection, &audit::store::Filter::default(), i64::MAX, 1).await.unwrap();
    assert_eq!((&*newest[0].draft.action, newest[0].hash), ("rollout.step", head.hash));
    assert!(newest[0].draft.to.contains("\"edge-0\":\"install\""), "{}", newest[0].draft.to);
    drop(connection);
    fleet.receive(&outgoing).await;
    // An agent that was set back to an older one gets its assignment in the older form.
    fleet.reads = 1;
    fleet.say(&device(0)).await;
    let again = fleet.answer(&device(0), Generation(0), false).await.unwrap();
    assert_eq!(signed(&device(0), std::slice::from_ref(&again)).audit(), None);
    assert!(again.generation > fleet.generation(&device(0)));
    let mut connection = fleet.connection().await;
    let newest = audit::store::list(&mut connection, &audit::store::Filter::default(), i64::MAX, 1).await.unwrap();
    assert_eq!(newest[0].draft.action, "assignment.renew");
}
