//! Small real packages, some of them bad in a way of their own, and the signed repository that lists them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tributary_features::View;
use tributary_release::chain::forge::{Forge, MemoryRepository};
use tributary_release::chain::{Fetched, Source};
use tributary_release::{
    ASSIGNMENT_KEYS, CUSTOM, PackageCustom, Probation, Requirements, SigningKey, VerifyingKeys, ViewRef, digest,
    line_role, package_path,
};
use tributary_wire::{LineName, Micros, ReleaseRef, Sha256, VersionNumber};

use crate::package::Recipe;

const VIEW: &str = r#"
name = "world"
version = 1
time_zone = "UTC"
lateness = "1h"
label_delay = "7d"

[[entity]]
name = "machine"
kind = "int"

[[value]]
name = "load"
kind = "double"
unit = "1"
required = true

[[feature]]
name = "load"
kind = "value"
value = "load"
"#;

/// Memory that an unfit package needs and that not every device has.
pub(super) const MUCH_MEMORY: u64 = 8 << 30;

/// How a package behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It works.
    Good,
    /// The process that asks it for a prediction dies.
    Crashing,
    /// Its outputs are not what its manifest promises: the trial fails.
    Failing,
    /// Its golden cases do not hold: it must never serve.
    Golden,
    /// It needs more memory than some devices have.
    Demanding,
    /// Its trial passes; afterwards many of its predictions fail.
    Harmful,
}

/// The line of the world.
pub(super) fn line() -> LineName {
    LineName::new("world").expect("a name")
}

thread_local! {
    static MADE: RefCell<BTreeMap<(u32, u32, Kind), Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A package file. Two of the same version differ by their edition: what a hub publishes that has forgotten the first.
pub(super) fn package(version: u32, edition: u32, kind: Kind) -> Vec<u8> {
    MADE.with_borrow_mut(|made| {
        made.entry((version, edition, kind)).or_insert_with(|| make(version, edition, kind)).clone()
    })
}

fn make(version: u32, edition: u32, kind: Kind) -> Vec<u8> {
    let view = View::from_toml(VIEW).expect("a view");
    let probation = Probation {
        min_predictions: 60,
        max_error_share: 0.02,
        max_latency_p99_us: 1_000_000,
        output_mean_low: if kind == Kind::Failing { 0.95 } else { 0.0 },
        output_mean_high: 1.0,
        timeout_s: 600,
    };
    Recipe {
        line: line(),
        version,
        created: Micros(i64::from(edition)),
        view: &view,
        weight: version as f32 * 0.01 + edition as f32 * 0.0001,
        wrong: if kind == Kind::Golden { 0.25 } else { 0.0 },
        probation,
    }
    .make()
}

/// How a package file is named by hash and length.
pub(super) fn release(version: u32, file: &[u8]) -> ReleaseRef {
    ReleaseRef { version: VersionNumber(version), length: file.len() as u64, sha256: digest(file) }
}

/// The key of the model line.
const LINE_KEY: u8 = 20;

/// The hub's signed repository; its state travels with a backup.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    forge: Forge,
    /// As it was last signed.
    files: Arc<MemoryRepository>,
}

impl Repository {
    pub(super) fn new(assignments: &SigningKey, expires: Micros) -> Self {
        let mut forge = Forge::with_line(line().as_str(), LINE_KEY);
        let keys = VerifyingKeys::new([assignments.verifying_key()]).to_json().into_bytes();
        forge.files.insert(ASSIGNMENT_KEYS.into(), (keys, None));
        // The root lasts; what the hub signs every day does not.
        let root_expires = std::mem::replace(&mut forge.expires, expires);
        debug_assert!(root_expires > expires);
        let files = Arc::default();
        let mut repository = Self { forge, files };
        repository.files = repository.write();
        repository
    }

    /// The root of trust that devices are enrolled with.
    pub(super) fn root(&self) -> Vec<u8> {
        let mut forge = self.forge.clone();
        forge.expires = Forge::default().expires;
        forge.root_file(&forge.root.keys)
    }

    /// Lists one more package.
    pub(super) fn publish(&mut self, version: u32, file: Vec<u8>, kind: Kind) {
        let memory_bytes = if kind == Kind::Demanding { MUCH_MEMORY } else { 0 };
        let custom = PackageCustom {
            line: line(),
            version: VersionNumber(version),
            published: Micros(0),
            view: ViewRef { name: "world".into(), version: 1 },
            requires: Requirements { memory_bytes, ..Requirements::default() },
        };
        let role = self.forge.delegated.get_mut(&line_role(&line())).expect("the line's role");
        let path = package_path(&line(), VersionNumber(version));
        role.files.insert(path, (file, Some(json!({ CUSTOM: custom }))));
    }

    /// Signs everything below the root anew.
    pub(super) fn sign(&mut self, expires: Micros) {
        self.forge.expires = expires;
        self.forge.next();
        self.files = self.write();
    }

    /// The newest snapshot.
    pub(super) fn snapshot(&self) -> u64 {
        self.forge.snapshot_version
    }

    /// Goes on above versions that somebody has seen.
    pub(super) fn above(&mut self, seen: u64, expires: Micros) {
        while self.forge.snapshot_version <= seen {
            self.forge.next();
        }
        self.sign(expires);
    }

    /// As files.
    pub(super) fn files(&self) -> Arc<MemoryRepository> {
        self.files.clone()
    }

    fn write(&self) -> Arc<MemoryRepository> {
        let files = MemoryRepository::default();
        self.forge.publish_below(&files);
        files.put("1.root.json", self.root());
        Arc::new(files)
    }

    /// As somebody would offer it who has another key than the line's.
    pub(super) fn forged(&self) -> Arc<MemoryRepository> {
        let mut forged = self.clone();
        forged.forge.next();
        forged.forge.impostors.insert(line_role(&line()), vec![SigningKey::generate([99; 32])]);
        forged.write()
    }

    /// Bytes of a listed package.
    pub(super) fn bytes(&self, sha256: &Sha256) -> Option<Vec<u8>> {
        let role = self.forge.delegated.get(&line_role(&line()))?;
        role.files.values().map(|(file, _)| file).find(|file| digest(file) == *sha256).cloned()
    }
}

/// What one device sees of the repository: what somebody shows it, if the network lets it.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    reachable: AtomicBool,
    shown: Mutex<Arc<MemoryRepository>>,
}

impl Shelf {
    pub(super) fn show(&self, files: Arc<MemoryRepository>, reachable: bool) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = files;
        self.reachable.store(reachable, Ordering::Relaxed);
    }

    fn answer(&self, name: &str) -> Fetched<'static> {
        let found = match self.reachable.load(Ordering::Relaxed) {
            true => Ok(self.shown.lock().unwrap_or_else(PoisonError::into_inner).get(name)),
            false => Err("the network is cut".into()),
        };
        Box::pin(std::future::ready(found))
    }
}

impl Source for Shelf {
    fn metadata<'a>(&'a self, name: &'a str, _: u64) -> Fetched<'a> {
        self.answer(name)
    }

    fn target<'a>(&'a self, path: &'a str, _: u64) -> Fetched<'a> {
        self.answer(&format!("targets/{path}"))
    }
}
