//! The power is cut after every single operation of a whole story, and each time the device must come up with a model
//! that works and go on to the story's end.
//!
//! The story runs once, with the real updates, the real state and real packages on one simulated disk that keeps a
//! journal. Then the disk is rebuilt as it was after each operation, the power is cut there (a seed decides what is
//! left of what was not synced), and the next life begins on it.

use std::time::Instant;

use tributary_process::disk::SimDisk;
use tributary_wire::LineReport;

use super::*;
use crate::state::{Store, StoreOptions, simdisk};

/// What decides what is left after a cut. There is one cut after every operation, with the seeds by turns; with
/// `POWER_CUTS=all` one for each seed.
const SEEDS: usize = 3;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A few predictions are enough for the story.
const QUICK: Probation = Probation { min_predictions: 3, ..PROBATION };

/// What the hub wants, and what is to come of it.
#[derive(Clone, Copy)]
struct Chapter {
    /// Version for the primary role, and whether a lower one is meant.
    primary: u32,
    lower: bool,
    /// Version for a challenger beside it.
    challenger: Option<u32>,
    /// How it ends: the primary role's state, and the version that it has committed to.
    end: (UpdaterState, u32),
}

const fn chapter(primary: u32, lower: bool, challenger: Option<u32>, end: (UpdaterState, u32)) -> Chapter {
    Chapter { primary, lower, challenger, end }
}

/// One after the other. The second comes by a patch from the first.
const STORY: [Chapter; 6] = [
    chapter(1, false, None, (UpdaterState::Committed, 1)),
    chapter(2, false, None, (UpdaterState::Committed, 2)),
    // It fails its probation.
    chapter(3, false, None, (UpdaterState::RolledBack, 2)),
    chapter(1, true, None, (UpdaterState::Committed, 1)),
    chapter(1, false, Some(4), (UpdaterState::Committed, 1)),
    chapter(1, false, None, (UpdaterState::Committed, 1)),
];

/// The hub of the story: what it has published, and what it wants at present.
struct Story {
    hub: hub::Hub,
    releases: Vec<ReleaseRef>,
    chapter: usize,
    /// A chapter whose release a power cut brought down is ordered anew.
    attempt: u64,
}

impl Story {
    fn new() -> Self {
        let hub = hub::Hub::start();
        let failing = Probation { output_mean_low: 0.9, ..QUICK };
        let files: Vec<_> =
            (1..).zip([QUICK, QUICK, failing, QUICK]).map(|(version, it)| package(version, it)).collect();
        assert!(hub.offer_patch(&files[0], &files[1]) < files[1].len() as u64);
        let releases = (1..).zip(files).map(|(version, file)| hub.publish(version, file)).collect();
        Self { hub, releases, chapter: 0, attempt: 0 }
    }

    fn wanted(&self) -> SignedAssignment {
        let Chapter { primary, lower, challenger, .. } = STORY[self.chapter];
        let release = |version: u32| self.releases[version as usize - 1].clone();
        match challenger {
            None => assignment(self.generation(), release(primary), lower),
            Some(other) => third(self.generation(), release(primary), Some(release(other)), 5_000),
        }
    }

    fn generation(&self) -> u64 {
        self.chapter as u64 * 1000 + self.attempt + 1
    }

    /// Reads a report as a person at the hub does, and goes on with the story.
    fn hears(&mut self, lines: &[LineReport], generation: u64) {
        if generation != self.generation() {
            return;
        }
        let Chapter { challenger, end: (state, committed), .. } = STORY[self.chapter];
        let has = |line: &LineReport| line.committed.map(|package| package.version.0);
        let as_wanted = lines.iter().all(|line| match line.role == Role::primary() {
            true => (line.state, has(line)) == (state, Some(committed)),
            false => line.state == UpdaterState::Committed && has(line) == challenger,
        });
        if as_wanted && lines.len() == 1 + usize::from(challenger.is_some()) {
            self.chapter += 1;
            self.attempt = 0;
        } else if lines.iter().any(|line| line.state == UpdaterState::RolledBack) {
            self.attempt += 1;
        }
    }
}

/// One life of a device on such a disk.
struct Powered {
    running: Running,
    handle: Handle,
    task: JoinHandle<()>,
    disk: SimDisk,
    events: u64,
}

impl Powered {
    /// Starts, or says what kept it from starting.
    fn start(rig: &Rig, disk: &SimDisk, hub: &hub::Hub, events: u64) -> Result<Self, String> {
        let bound = disk.until_crash();
        let backend = bound.clone();
        let store = Store::open_with(move || simdisk::backend(&backend), StoreOptions::default());
        let store = Arc::new(store.map_err(|error| crate::words::in_words(&error))?);
        let files = PackageFiles::open_on(Arc::new(bound), "/packages".into(), None).map_err(|it| it.to_string())?;
        let running = rig.start_on(store);
        let mut parts = Parts { files, ..parts(rig, &running, hub.endpoint()) };
        let root = hub.root();
        let opened = trust(Some(&root), &parts.origins, &running, parts.time.clone());
        parts.trust = running.runtime.block_on(opened);
        match running.runtime.block_on(Updates::build(parts)) {
            Ok((updates, handle)) => {
                let task = running.runtime.spawn(updates.run(Shutdown::new()));
                Ok(Self { running, handle, task, disk: disk.clone(), events })
            }
            Err(error) => {
                running.stop();
                Err(crate::words::in_words(&error))
            }
        }
    }

    /// Where the role stands that answers.
    fn line(&self) -> LineReport {
        self.handle.lines().into_iter().find(|line| line.role == Role::primary()).unwrap()
    }

    fn committed(&self) -> Option<u32> {
        self.line().committed.map(|package| package.version.0)
    }

    fn serving(&self) -> Option<u32> {
        self.running.serving.current().map(|package| package.reference.version.0)
    }

    /// A model answers at once: the one that is committed, else the declared fallback.
    fn answers(&mut self, what: &str) {
        let line = self.line();
        let ordered_back = line.candidate.filter(|_| line.state == UpdaterState::Trial);
        let expected = ordered_back.or(line.committed).map(|package| package.version.0);
        assert_eq!(self.serving(), expected, "{what}: {line:?}");
        let outcomes = self.event().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(matches!(outcomes[..], [Outcome::Accepted { .. }]), "{what}: {outcomes:?}");
    }

    fn event(&mut self) -> Result<Vec<Outcome>, crate::serve::SubmitError> {
        self.events += 1;
        self.running.submit(vec![testing::event(self.events)])
    }

    /// Goes on with the story up to a chapter, or until the power fails.
    fn tell(&mut self, story: &mut Story, chapter: usize, what: &str, seen: &mut dyn FnMut(&Story)) {
        let began = Instant::now();
        let mut told = 0;
        while story.chapter < chapter && !self.disk.has_failed() {
            assert!(began.elapsed() < PATIENCE, "{what}: chapter {} of {:?}", story.chapter, self.handle.lines());
            self.handle.online(true);
            if told != story.generation() || self.handle.asks() {
                told = story.generation();
                self.handle.assigned(story.wanted().encode());
            }
            if self.handle.lines().iter().any(|line| line.state == UpdaterState::Trial) {
                // What a failing disk does to events is another test's matter.
                let _ = self.event();
            }
            self.rest();
            story.hears(&self.handle.lines(), self.handle.generation().0);
            seen(story);
        }
    }

    /// Lets the tasks of this life work.
    fn rest(&self) {
        self.running.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
    }

    fn cut(self, seed: Option<u64>) {
        self.disk.crash(seed);
        self.task.abort();
        self.running.stop();
    }
}

fn rig() -> Rig {
    Rig { windows: false, ..Rig::new() }
}

#[test]
fn the_power_is_cut_after_every_operation_and_a_model_that_works_serves_at_once_and_the_story_ends_well() {
    let rig = rig();
    let (mut story, end) = (Story::new(), STORY.len());
    let disk = SimDisk::new();
    disk.keep_journal();
    let mut life = Powered::start(&rig, &disk, &story.hub, 0).unwrap();
    // Which chapter the hub was in after how many operations.
    let mut chapters = vec![(0, 0)];
    life.tell(&mut story, end, "the story", &mut |story| {
        if chapters.last().is_some_and(|(_, chapter)| *chapter != story.chapter) {
            chapters.push((disk.journal_length(), story.chapter));
        }
    });
    assert_eq!(story.chapter, end);
    assert_eq!(story.hub.starts().len(), 3, "the second comes by its patch, and the first is still there");
    life.cut(None);
    let operations = disk.journal_length();
    let (mut replay, mut cuts, mut twice, mut fallbacks) = (disk.replay(), 0, 0, 0);
    let all = std::env::var("POWER_CUTS").is_ok_and(|cuts| cuts == "all");
    let points = (0..operations * SEEDS).filter(|point| all || point % SEEDS == point / SEEDS % SEEDS);
    let began = Instant::now();
    for point in points {
        let (operation, seed) = (point / SEEDS, point as u64);
        let what = format!("cut after operation {operation} of {operations}, seed {seed}");
        let chapter = chapters.iter().rev().find(|(from, _)| *from <= operation).map_or(0, |(_, chapter)| *chapter);
        (story.chapter, story.attempt) = (chapter.min(end - 1), 0);
        let disk = replay.after(operation);
        disk.crash(Some(seed));
        if point % SEEDS == 1 {
            // The power fails again while the device comes up or goes on.
            disk.fail_after(seed * 7 % 80);
            match Powered::start(&rig, &disk, &story.hub, 500) {
                Ok(mut life) => {
                    life.tell(&mut story, end, &what, &mut |_| ());
                    life.cut(Some(seed + 1));
                }
                Err(_) => disk.crash(Some(seed + 1)),
            }
            twice += 1;
            story.chapter = story.chapter.min(end - 1);
        }
        let mut life = Powered::start(&rig, &disk, &story.hub, 1000)
            .unwrap_or_else(|error| panic!("{what}: does not start: {error}"));
        life.answers(&what);
        // A version is there for good once its chapter has ended.
        assert!(life.serving().is_some() || chapter == 0, "{what}: nothing committed is left");
        fallbacks += usize::from(life.serving().is_none());
        life.tell(&mut story, end, &what, &mut |_| ());
        life.answers(&what);
        assert_eq!(life.serving(), Some(1), "{what}");
        life.cut(None);
        cuts += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{cuts} power cuts over {operations} operations, {twice} of them followed by another; {seconds:.1} s");
    println!("{fallbacks} were before the first commit, and the fallback answered");
}

#[test]
fn a_bit_that_flips_in_the_committed_package_brings_the_previous_one_back_until_it_is_fetched_again() {
    let rig = rig();
    let mut story = Story::new();
    let disk = SimDisk::new();
    let mut life = Powered::start(&rig, &disk, &story.hub, 0).unwrap();
    life.tell(&mut story, 2, "the first chapters", &mut |_| ());
    assert_eq!(life.committed(), Some(2));
    life.cut(None);
    let files = PackageFiles::open_on(Arc::new(disk.clone()), "/packages".into(), None).unwrap();
    disk.rot(&files.path(&story.releases[1].sha256), 4000).unwrap();

    // At once the previous one answers, and the report says why; the hub gives nothing at first.
    story.hub.busy(true);
    let mut life = Powered::start(&rig, &disk, &story.hub, 500).unwrap();
    life.answers("after the bit flipped");
    assert_eq!((life.serving(), life.committed()), (Some(1), Some(1)));
    assert!(life.line().error.is_some(), "{:?}", life.line());
    story.hub.busy(false);
    let began = Instant::now();
    while life.committed() != Some(2) {
        assert!(began.elapsed() < PATIENCE, "{:?}", life.line());
        life.rest();
    }
    life.answers("after it was fetched again");
    assert_eq!(life.line().previous.map(|package| package.version.0), Some(1));
    life.cut(None);
}
