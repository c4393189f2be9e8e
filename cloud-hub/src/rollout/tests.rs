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
use super::roles::{self, Order};
use super::{RolloutError, assignments, flags, store};
use crate::{audit, patches};

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
    patches: patches::Config,
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
        // Nobody makes any here.
        let patches = patches::Config { enabled: false, ..patches::Config::default() };
        let mut fleet =
            Self { pool, key, keys, line, now, reads: 1, accepted: BTreeMap::new(), reports: BTreeMap::new(), patches };
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
        let order = Order::primary(&self.line, VersionNumber(version), None, "test");
        let policy = Policy { percent: percent.to_vec(), ..Policy::default() };
        let id = begin(&mut tx, &order, policy, self.now).await?.rollout.id;
        tx.commit().await.unwrap();
        Ok(id)
    }

    async fn advance(&mut self, id: i64) -> Vec<Outgoing> {
        self.now = Micros(self.now.0 + Micros::SECOND);
        let mut tx = self.pool.begin().await.unwrap();
        let changed = advance(&mut tx, (&self.key, &self.patches), id, self.now).await.unwrap();
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
        assignments::respond(catalog, &self.key, device, (generation, asks), self.now).await.unwrap()
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
async fn what_was_accepted_and_not_carried_out_is_signed_anew_before_it_ends() {
    let mut fleet = Fleet::new(1).await;
    let id = fleet.begin(1, &[100]).await.unwrap();
    let outgoing = fleet.advance(id).await;
    fleet.receive(&outgoing).await;
    let accepted = outgoing[0].generation;
    fleet.now = Micros(fleet.now.0 + 40 * Micros::DAY);
    assert_eq!(fleet.answer(&device(0), accepted, false).await, None, "it runs what it was told");
    // Its package was fetched when the rollout was paused, and waits.
    let report = fleet.reports.get_mut(&device(0)).unwrap();
    (report.committed, report.candidate, report.state) = (None, Some(package(1)), UpdaterState::Staged);
    fleet.say(&device(0)).await;
    fleet.command(id, Command::Pause).await.unwrap();
    assert_eq!(fleet.answer(&device(0), accepted, false).await, None, "held");
    fleet.command(id, Command::Resume).await.unwrap();
    let fresh = fleet.answer(&device(0), accepted, false).await.unwrap();
    assert!(fresh.generation > accepted && opened(&fresh).desired().expires > fleet.now, "{fresh:?}");
    assert_eq!(fleet.answer(&device(0), fresh.generation, false).await, None, "once");
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
    let (plan, _, evidence) = outlook(&mut connection, &fleet.patches, &stored, fleet.now).await.unwrap();
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

fn challenger(name: &str) -> Role {
    Role::new(&format!("challenger-{name}")).unwrap()
}

impl Fleet {
    async fn order(&mut self, order: &Order) -> Result<i64, RolloutError> {
        let mut tx = self.pool.begin().await.unwrap();
        let policy = Policy { percent: vec![100], ..Policy::default() };
        let id = begin(&mut tx, order, policy, self.now).await?.rollout.id;
        tx.commit().await.unwrap();
        Ok(id)
    }

    fn challenge(&self, name: &str, share: u16, selector: &str) -> Order {
        let (role, selector) = (challenger(name), selector.parse().unwrap());
        Order { role, share, selector, ..Order::primary(&self.line, VersionNumber(2), None, "an experiment") }
    }

    async fn reads(&mut self, reads: u8) {
        self.reads = reads;
        for number in 0..self.reports.len() {
            self.say(&device(number)).await;
        }
    }

    async fn share(&mut self, id: i64, share: u16) -> Result<(), RolloutError> {
        let mut tx = self.pool.begin().await.unwrap();
        roles::change_share(&mut tx, id, share, "because", self.now).await?;
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn label(&self, number: usize, labels: &str) {
        let query = "update devices set labels = $1 where id = $2";
        sqlx::query(query).bind(labels).bind(device(number).as_str()).execute(&self.pool).await.unwrap();
    }

    async fn flag(&self, target: flags::Target, key: &str, value: Option<&str>) -> Result<bool, RolloutError> {
        flags::set(&mut *self.connection().await, &target, key, value, self.now).await
    }
}

fn opened(outgoing: &Outgoing) -> Assignment {
    Assignment::decode(&outgoing.signed.payload).unwrap()
}

fn shares(assignment: &Assignment) -> Vec<(&str, u16)> {
    assignment.shares().iter().map(|share| (share.role.as_str(), share.per_10_000)).collect()
}

#[tokio::test]
async fn a_challenger_comes_beside_the_primary_with_its_share_which_changes_and_ends_by_newer_assignments() {
    let mut fleet = Fleet::new(2).await;
    fleet.reads(3).await;
    let first = fleet.begin(1, &[100]).await.unwrap();
    fleet.settle(first).await;
    let order = fleet.challenge("b", 500, "");
    let id = fleet.order(&order).await.unwrap();
    let outgoing = fleet.advance(id).await;
    let assignment = opened(&outgoing[0]);
    let roles: Vec<_> =
        assignment.desired().lines.iter().map(|wish| (wish.role.as_str(), wish.release.version.0)).collect();
    assert_eq!(roles, [("challenger-b", 2), ("primary", 1)]);
    assert_eq!(shares(&assignment), [("challenger-b", 500)]);
    assert_eq!(outgoing.len(), 2);
    fleet.share(id, 900).await.unwrap();
    let newest = outgoing[0].generation;
    let changed = fleet.answer(&device(0), newest, false).await.unwrap();
    assert!(changed.generation > newest);
    assert_eq!(shares(&opened(&changed)), [("challenger-b", 900)]);
    assert_eq!(fleet.answer(&device(0), changed.generation, false).await, None, "once");
    fleet.command(id, Command::End).await.unwrap();
    let ended = fleet.advance(id).await;
    let assignment = opened(&ended[0]);
    assert_eq!((assignment.desired().lines.len(), assignment.shares().len()), (1, 0));
    assert!(matches!(fleet.share(id, 1).await, Err(RolloutError::Command(_))));
    assert!(matches!(fleet.command(first, Command::End).await, Err(RolloutError::Primary { .. })));
}

#[tokio::test]
async fn shares_of_challengers_that_may_meet_on_a_device_fit_together() {
    let mut fleet = Fleet::new(2).await;
    fleet.label(0, r#"{"site":"lyon"}"#).await;
    fleet.label(1, r#"{"site":"paris"}"#).await;
    let lyon = fleet.challenge("a", 6_000, "site=lyon");
    let first = fleet.order(&lyon).await.unwrap();
    assert_eq!(fleet.advance(first).await.len(), 1, "only the device in lyon");
    let everywhere = fleet.challenge("b", 4_001, "");
    let refused = fleet.order(&everywhere).await.unwrap_err();
    assert!(matches!(refused, RolloutError::Shares { others: 6_000, .. }), "{refused}");
    let paris = fleet.challenge("c", 10_000, "site=paris");
    let third = fleet.order(&paris).await.unwrap();
    assert_eq!(fleet.settle(third).await, "running", "nobody reports it");
    let too_much = fleet.share(first, 10_001).await.unwrap_err();
    assert!(too_much.to_string().contains("10001 in 10000"), "{too_much}");
    assert!(fleet.share(first, 10_000).await.is_ok());
    // The rollout in lyon is over, its package stays: it counts where it is.
    fleet.command(first, Command::Abort).await.unwrap();
    let again = fleet.challenge("b", 1, "site=paris");
    assert!(matches!(fleet.order(&again).await, Err(RolloutError::Shares { .. })));
    for (role, share) in [("shadow", 1), ("primary", 1), ("observer", 0), ("challenger-", 0)] {
        let role = Role::new(role).unwrap();
        let order = Order { role: role.clone(), share, ..fleet.challenge("x", 0, "") };
        let refused = fleet.order(&order).await.unwrap_err();
        assert!(matches!(refused, RolloutError::NoShare { .. } | RolloutError::Role { .. }), "{role}: {refused}");
    }
    let shadow = Order { role: Role::shadow(), ..fleet.challenge("x", 0, "") };
    assert!(fleet.order(&shadow).await.is_ok());
}

#[tokio::test]
async fn every_device_gets_the_newest_form_that_its_agent_reads() {
    let mut fleet = Fleet::new(1).await;
    let id = fleet.begin(1, &[100]).await.unwrap();
    let outgoing = fleet.advance(id).await;
    assert!(matches!(opened(&outgoing[0]), Assignment::V1(_)));
    fleet.receive(&outgoing).await;
    let query =
        "insert into metadata (role, version, bytes, sha256, expires, stored) values ('snapshot', 7, x'', '', 0, 0)";
    sqlx::query(query).execute(&fleet.pool).await.unwrap();
    fleet.reads(3).await;
    let newer = fleet.answer(&device(0), outgoing[0].generation, false).await.unwrap();
    let Assignment::V3(third) = opened(&newer) else { panic!("{:?}", opened(&newer)) };
    assert_eq!((third.snapshot, third.desired.generation), (7, newer.generation));
    assert_eq!(fleet.answer(&device(0), newer.generation, false).await, None);
    fleet.reads(2).await;
    let older = fleet.answer(&device(0), newer.generation, false).await.unwrap();
    assert!(matches!(opened(&older), Assignment::V2(_)), "its agent was set back");
    assert!(older.generation > newer.generation);
    fleet.reads(9).await;
    let newest = fleet.answer(&device(0), older.generation, false).await.unwrap();
    assert!(matches!(opened(&newest), Assignment::V3(_)), "the newest that there is");
    fleet.key = SigningKey::generate([8; 32]);
    let signed_anew = fleet.answer(&device(0), newest.generation, false).await.unwrap();
    assert_eq!(signed_anew.signed.key_id, fleet.key.id().0, "the key was changed");
}

#[tokio::test]
async fn nothing_is_assigned_that_signed_metadata_does_not_name() {
    let mut fleet = Fleet::new(1).await;
    for (state, says) in [("waiting", "not yet in signed metadata"), ("withdrawn", "was withdrawn")] {
        let query = "update releases set state = $1 where version = 2";
        sqlx::query(query).bind(state).execute(&fleet.pool).await.unwrap();
        let refused = fleet.begin(2, &[100]).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[tokio::test]
async fn a_device_gets_the_flag_of_the_narrowest_target_in_a_newer_assignment() {
    use flags::Target::{Device, Labels};
    let mut fleet = Fleet::new(2).await;
    fleet.label(1, r#"{"site":"lyon"}"#).await;
    let labels = |text: &str| Labels(text.parse().unwrap());
    assert!(fleet.flag(labels(""), "new-form", Some("off")).await.unwrap());
    assert!(!fleet.flag(labels(""), "new-form", Some("off")).await.unwrap(), "nothing new");
    let id = fleet.begin(1, &[100]).await.unwrap();
    let outgoing = fleet.advance(id).await;
    let flags = |outgoing: &Outgoing| opened(outgoing).desired().flags.clone();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert!(outgoing.iter().all(|outgoing| flags(outgoing) == [pair("new-form", "off")]));
    fleet.flag(labels("site=lyon"), "new-form", Some("on")).await.unwrap();
    assert_eq!(fleet.answer(&device(0), outgoing[0].generation, false).await, None, "it is not in lyon");
    let lyon = fleet.answer(&device(1), outgoing[1].generation, false).await.unwrap();
    assert_eq!(flags(&lyon), [pair("new-form", "on")]);
    fleet.flag(Device(device(1)), "new-form", Some("maybe")).await.unwrap();
    fleet.flag(Device(device(1)), "beta", Some("")).await.unwrap();
    let own = fleet.answer(&device(1), lyon.generation, false).await.unwrap();
    assert_eq!(flags(&own), [pair("beta", ""), pair("new-form", "maybe")]);
    fleet.flag(Device(device(1)), "new-form", None).await.unwrap();
    let back = fleet.answer(&device(1), own.generation, false).await.unwrap();
    assert_eq!(flags(&back), [pair("beta", ""), pair("new-form", "on")]);
    let mut connection = fleet.connection().await;
    let newest = audit::store::list(&mut connection, &audit::store::Filter::default(), i64::MAX, 2).await.unwrap();
    assert_eq!((&*newest[1].draft.action, &*newest[0].draft.action), ("flag.clear", "assignment.renew"));
}

#[tokio::test]
async fn flags_have_limits_that_an_assignment_can_carry() {
    use flags::{FlagError, Target};
    let fleet = Fleet::new(1).await;
    let all = || Target::Labels("".parse().unwrap());
    let refused = async |target, key: &str, value: &str| match fleet.flag(target, key, Some(value)).await {
        Err(RolloutError::Flag(error)) => error,
        other => panic!("{key}: {other:?}"),
    };
    for key in ["", "New", "a b", &"x".repeat(64)] {
        assert!(matches!(refused(all(), key, "").await, FlagError::Key { .. }), "{key}");
    }
    assert!(matches!(refused(all(), "a", &"x".repeat(257)).await, FlagError::Value { found: 257, .. }));
    assert!(matches!(refused(all(), "a", "a\u{1b}b").await, FlagError::Value { .. }));
    assert!(matches!(refused(Target::Device(device(9)), "a", "").await, FlagError::NoDevice { .. }));
    for number in 0..64 {
        fleet.flag(all(), &format!("flag-{number}"), Some(&"v".repeat(256))).await.unwrap();
    }
    assert_eq!(refused(all(), "one-more", "").await, FlagError::TooMany { key: "one-more".into() });
    fleet.flag(Target::Device(device(0)), "flag-7", Some("other")).await.unwrap();
}
