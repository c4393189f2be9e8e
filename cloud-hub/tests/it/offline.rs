//! What people hold: root and targets keys, and those of attended lines. Signs metadata as they would.

use cloud_hub::Hub;
use cloud_hub::publish::roles::{
    self, Delegation, PublicKey, RoleName, RootContent, Signers, Target, TargetsContent, build_root, build_targets,
};
use cloud_hub::publish::{Applied, ApplyError, Applying, Keys, Purpose, apply};
use tributary_release::{SigningKey, line_role};
use tributary_wire::{
    ClockState, Generation, Health, Incarnation, LineName, MetadataVersions, Micros, Report, ReportV1, ReportV2,
    Resources, Stamp,
};

/// The keys, and the files as they were signed last.
pub struct Offline {
    pub root_keys: Vec<SigningKey>,
    pub targets_key: SigningKey,
    pub root: RootContent,
    pub targets: TargetsContent,
}

fn signers(keys: &[SigningKey], threshold: u64) -> Signers {
    let keys = keys.iter().map(|key| PublicKey::new(key.verifying_key(), ""));
    Signers { threshold, ..Signers::any_of(keys) }
}

/// A year from now.
pub fn in_a_year() -> Micros {
    Micros(cloud_hub::catalog::now().0 / Micros::SECOND * Micros::SECOND + 365 * Micros::DAY)
}

impl Offline {
    /// Root keys 2 of 3, a targets key, and no line yet.
    pub fn new(keys: &Keys) -> Self {
        let root_keys: Vec<_> = (1..=3).map(|seed| SigningKey::generate([seed; 32])).collect();
        let targets_key = SigningKey::generate([9; 32]);
        let (version, expires) = (1, in_a_year());
        let root = RootContent {
            version,
            expires,
            root: signers(&root_keys, 2),
            targets: signers(std::slice::from_ref(&targets_key), 1),
            snapshot: signers(&keys.of(&Purpose::Snapshot), 1),
            timestamp: signers(&keys.of(&Purpose::Timestamp), 1),
        };
        let assignment = PublicKey::new(keys.assignment().verifying_key(), "hub");
        let targets = vec![Target::assignment_keys(&[assignment]).0];
        let targets = TargetsContent { version, expires, targets, delegations: Vec::new() };
        Self { root_keys, targets_key, root, targets }
    }

    /// Delegates a line to these keys.
    pub fn delegate(&mut self, line: &str, keys: &[SigningKey]) {
        let role = line_role(&LineName::new(line).unwrap());
        self.targets.delegations.retain(|found| found.role != role);
        self.targets.delegations.push(Delegation { role, signers: signers(keys, 1) });
    }

    /// Root as it stands, signed by two of its keys.
    pub fn signed_root(&self) -> Vec<u8> {
        roles::sign(&build_root(&self.root).unwrap(), &self.root_keys[..2]).unwrap()
    }

    /// The top-level targets as they stand, signed.
    pub fn signed_targets(&self) -> Vec<u8> {
        let built = build_targets(&RoleName::Targets, &self.targets).unwrap();
        roles::sign(&built, std::slice::from_ref(&self.targets_key)).unwrap()
    }

    /// Root and targets of a hub that has neither.
    pub async fn begin(&self, hub: &Hub) -> Applied {
        apply(hub, &[self.signed_targets(), self.signed_root()], Applying::default()).await.unwrap()
    }

    /// The next version of targets.
    pub async fn apply_targets(&mut self, hub: &Hub, applying: Applying) -> Result<Applied, ApplyError> {
        self.targets.version += 1;
        apply(hub, &[self.signed_targets()], applying).await
    }
}

/// A repository in which this line is unattended.
pub async fn unattended(hub: &Hub, line: &str) -> Offline {
    let mut offline = Offline::new(&hub.keys);
    let key = hub.keys.get_or_make(&Purpose::Line(LineName::new(line).unwrap())).unwrap();
    offline.delegate(line, &[key]);
    offline.begin(hub).await;
    offline
}

/// A report of a device that trusts this metadata and runs nothing.
pub fn report(trusted: MetadataVersions) -> Vec<u8> {
    let base = ReportV1 {
        number: 1,
        incarnation: Incarnation(1),
        stamp: Stamp { boot: 1, monotonic: 0, wall: Micros(0), clock: ClockState::Unsynchronised },
        reads: 3,
        agent: "test".to_owned(),
        labels: Vec::new(),
        generation: Generation(0),
        asks: false,
        lines: Vec::new(),
        snapshot: None,
        health: Health { ok: true, ..Health::default() },
        resources: Resources::default(),
    };
    Report::V2(ReportV2 {
        base,
        metadata: Some(trusted),
        unfit: Vec::new(),
        withheld: Default::default(),
        held: Vec::new(),
        audit: None,
        nodes: Vec::new(),
    })
    .encode()
}
