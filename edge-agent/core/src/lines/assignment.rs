//! Takes in assignments: checked, stored, then told to every updater.

use tributary_release::{
    AssignmentError, Installed, KeyId, SignatureError, Standing, VerifyingKeys, open_assignment, verify_assignment,
};
use tributary_wire::{
    Assignment, AssignmentV1, AuditHead, Generation, LineName, Micros, PackageRef, Role, SignedAssignment,
};

use super::{Action, Believed, Lines, Of, Remembered};
use crate::updater::{Doubt, Input, Record, Updater, Wanted};
use crate::words::in_words;

/// Why an assignment changed nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it does not decode")]
    Undecodable(#[from] tributary_wire::DecodeError),
    #[error("it is not for this device now")]
    NotValid(#[from] AssignmentError),
    #[error("it names line {found}, this agent serves {serves:?}")]
    Line { found: LineName, serves: Vec<LineName> },
}

/// Shown while an assignment cannot be made durable.
const NOT_KEPT: &str = "assignment refused: it could not be stored";

/// Why the assignment that was stored counts no more.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Its bytes have changed on the disk.
    #[error("it cannot be read")]
    Undecodable(#[from] tributary_wire::DecodeError),
    /// Its key is trusted no more, or its bytes have changed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// One was accepted.
    #[error("it is gone")]
    Gone,
    /// A newer one was accepted.
    #[error("it is of generation {found}, and generation {accepted} was accepted")]
    Older {
        /// Of the stored one.
        found: Generation,
        /// Of the newest that was accepted.
        accepted: Generation,
    },
}

/// Opens the assignment that was stored, and names who signed it; `None` on a device that never accepted one.
pub fn open_remembered<'a>(
    keys: &VerifyingKeys,
    remembered: &Remembered,
    records: impl Iterator<Item = &'a Record>,
) -> Result<Option<(Assignment, KeyId)>, StoredError> {
    let accepted = highest_accepted(remembered, records);
    let Some(bytes) = &remembered.assignment else {
        return if accepted == Generation(0) { Ok(None) } else { Err(StoredError::Gone) };
    };
    let signed = SignedAssignment::decode(bytes)?;
    let opened = open_assignment(keys, &signed)?;
    let found = opened.desired().generation;
    if found < accepted {
        return Err(StoredError::Older { found, accepted });
    }
    Ok(Some((opened, KeyId(signed.key_id))))
}

/// The newest generation that is stored by itself, or that the records tell of. Those of an assignment without wishes
/// tell of none.
fn highest_accepted<'a>(remembered: &Remembered, records: impl Iterator<Item = &'a Record>) -> Generation {
    let told = records.flat_map(|record| {
        let wanted = record.wanted.as_ref().map(|wanted| wanted.generation);
        wanted.into_iter().chain(record.undone.as_ref().map(|undone| undone.generation))
    });
    told.chain(remembered.generation).max().unwrap_or_default()
}

impl Lines {
    /// The assignment that was accepted before the restart. One that cannot be read, or whose key is no longer trusted,
    /// counts no more, but its generation is not forgotten: nobody may go back behind it. The same generation, sent
    /// again or signed anew by another key, is welcome.
    pub(super) fn recall_assignment(&mut self, believed: &Believed, remembered: &Remembered) {
        let records = || self.updaters.iter().map(|(_, updater)| updater.record());
        match open_remembered(&believed.keys, remembered, records()) {
            Ok(None) => {}
            Ok(Some((opened, signer))) => self.take(opened, signer),
            Err(error) => {
                // What an older agent has stored has no number beside it. Of a revoked key: it was verified before it was
                // stored, so its own counts. What the disk has changed may say anything.
                let own = match (&error, &remembered.assignment) {
                    (StoredError::Signature(SignatureError::UnknownKey { .. }), Some(bytes)) => generation(bytes),
                    _ => None,
                };
                let known = own.unwrap_or_default().max(highest_accepted(remembered, records()));
                self.generation = Generation(known.0.saturating_sub(1));
                self.problem = Some(format!("stored assignment: {}; the hub is asked for it", in_words(&error)));
            }
        }
    }

    /// An assignment arrived. Whatever is wrong with it is shown in the report, and nothing changes.
    /// Keys or releases that are not known yet may stand in newer metadata, which is asked for once.
    pub(super) fn assigned(&mut self, bytes: Vec<u8>, believed: &Believed, may_ask: bool) {
        if self.keeping.is_some() {
            self.waiting = Some((bytes, believed.clone()));
            return;
        }
        if may_ask && is_behind(believed, &bytes) {
            self.out.push(Action::Refresh(bytes));
            return;
        }
        match self.accept(bytes, believed) {
            Ok(()) => {
                if self.keeping.is_none() {
                    self.show_problem(None);
                }
            }
            // A late one of the network's; no reason to alarm anybody.
            Err(Refused::NotValid(AssignmentError::Generation { accepted, found })) if found < accepted => {}
            Err(refused) => self.show_problem(Some(format!("assignment refused: {}", in_words(&refused)))),
        }
    }

    fn show_problem(&mut self, problem: Option<String>) {
        if self.problem != problem {
            self.problem = problem;
            self.out.push(Action::Report);
        }
    }

    fn accept(&mut self, bytes: Vec<u8>, believed: &Believed) -> Result<(), Refused> {
        let signed = SignedAssignment::decode(&bytes)?;
        if let Some(again) = self.again(&signed, believed) {
            // The hub's answer to a question. It may have been signed later than the first, and by a newer key.
            self.signer = Some(KeyId(signed.key_id));
            self.witness(again.desired().issued, again.audit());
            let (generation, expires) = (self.generation, again.desired().expires);
            self.tell_each(|_| Some(Input::Confirmed { generation, expires }));
            return Ok(());
        }
        let installed: Vec<_> = self.updaters.iter().filter_map(installed).collect();
        let standing = Standing {
            device: &self.settings.device,
            generation: self.generation,
            installed: &installed,
            now: self.now.wall,
        };
        let opened = verify_assignment(&believed.keys, &standing, &signed)?;
        let serves = &self.settings.lines;
        if let Some(wish) = opened.desired().lines.iter().find(|wish| !serves.contains(&wish.line)) {
            return Err(Refused::Line { found: wish.line.clone(), serves: serves.clone() });
        }
        let generation = opened.desired().generation;
        self.keeping = Some((opened, KeyId(signed.key_id)));
        self.out.push(Action::Keep { signed: bytes, generation });
        Ok(())
    }

    /// The accepted assignment if it came again, perhaps signed anew: same generation, same wishes.
    fn again(&self, signed: &SignedAssignment, believed: &Believed) -> Option<Assignment> {
        let accepted = self.accepted.as_ref()?.desired();
        let opened = open_assignment(&believed.keys, signed).ok()?;
        let again = opened.desired();
        let same =
            (&again.device, again.generation, &again.lines) == (&accepted.device, accepted.generation, &accepted.lines);
        same.then_some(opened)
    }

    pub(super) fn kept(&mut self) {
        let Some((opened, signer)) = self.keeping.take() else { return };
        let (issued, audit) = (opened.desired().issued, opened.audit());
        self.take(opened, signer);
        self.witness(issued, audit);
        self.show_problem(None);
        self.go_on();
    }

    pub(super) fn not_kept(&mut self, reason: &str) {
        self.keeping = None;
        // A disk that fails says so in many ways, and the hub answers a report with the same assignment: were each way
        // shown, they would go on at it without a pause.
        if self.problem.as_ref().is_none_or(|shown| !shown.starts_with(NOT_KEPT)) {
            self.show_problem(Some(format!("{NOT_KEPT}: {reason}")));
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        if let Some((bytes, believed)) = self.waiting.take() {
            self.assigned(bytes, &believed, true);
        }
    }

    /// It is durable: from now on it counts.
    fn take(&mut self, assignment: Assignment, signer: KeyId) {
        let desired = assignment.desired().clone();
        self.generation = desired.generation;
        (self.accepted, self.signer) = (Some(assignment), Some(signer));
        self.out.push(Action::Raise(desired.issued));
        for (of, _) in wishes(&desired) {
            if self.index(&of).is_none() {
                self.out.push(Action::Begin(of));
            }
        }
        for index in 0..self.updaters.len() {
            let of = self.updaters[index].0.clone();
            if let Some(input) = input(&desired, &of) {
                self.tell(index, input);
            }
        }
        // A role that nobody wants any more is scored no more; the primary stays, to answer with the fallback.
        let unwanted = |(of, _): &(Of, Updater)| of.1 != Role::primary() && wishes(&desired).all(|(it, _)| it != *of);
        let before = self.updaters.len();
        while let Some(index) = self.updaters.iter().position(unwanted) {
            let (of, _) = self.updaters.swap_remove(index);
            self.out.push(Action::Retire(of));
        }
        // No file is collected while a record on the disk still names it.
        if self.updaters.len() < before {
            self.out.push(Action::Collect);
        }
        self.out.push(Action::Report);
    }

    /// A role that was not there before begins with what is stored of it, and hears what is wanted.
    pub(super) fn began(&mut self, of: Of, record: Record) {
        if self.index(&of).is_some() {
            return;
        }
        // A newer assignment may want nothing of it any more.
        let input = self.accepted.as_ref().and_then(|accepted| input(accepted.desired(), &of));
        if let Some(wanted @ Input::Assigned(_)) = input {
            self.begin(of, record);
            self.tell(self.updaters.len() - 1, wanted);
            self.out.push(Action::Report);
        }
    }

    /// Whether what was ordered is still ordered: the key that signed it may have been taken back since.
    pub(super) fn still_orders(&self, believed: &Believed) -> Result<(), Doubt> {
        let doubt = match self.signer {
            Some(signer) if believed.keys.get(signer).is_some() => return Ok(()),
            Some(signer) => format!("the assignment was signed by key {signer}, which is trusted no more"),
            None => "no assignment that this device trusts orders it".to_owned(),
        };
        Err(Doubt::Unordered(doubt))
    }

    /// What a verified assignment tells beside its wishes. Nothing is refused for a head of the audit log: a device is
    /// no judge of its hub, but it says what it has seen.
    fn witness(&mut self, issued: Micros, head: Option<AuditHead>) {
        self.out.push(Action::Raise(issued));
        let Some(head) = head else { return };
        let before = self.audit.problem();
        let seen = self.audit.witness(issued, head);
        if self.audit.problem() != before {
            self.out.push(Action::Report);
        }
        self.out.extend(seen.map(Action::KeepAudit));
    }
}

/// Whether an assignment is signed by a key that this device does not know, or speaks of newer metadata than it has.
fn is_behind(believed: &Believed, bytes: &[u8]) -> bool {
    let Ok(signed) = SignedAssignment::decode(bytes) else { return false };
    match open_assignment(&believed.keys, &signed) {
        Err(SignatureError::UnknownKey { .. }) => true,
        Err(_) => false,
        Ok(opened) => opened.snapshot() > believed.snapshot,
    }
}

/// What an assignment says of itself, whoever signed it.
fn generation(bytes: &[u8]) -> Option<Generation> {
    let signed = SignedAssignment::decode(bytes).ok()?;
    Some(Assignment::decode(&signed.payload).ok()?.desired().generation)
}

fn wishes(desired: &AssignmentV1) -> impl Iterator<Item = (Of, Wanted)> + '_ {
    desired.lines.iter().map(|wish| {
        let wanted = Wanted {
            generation: desired.generation,
            expires: desired.expires,
            release: wish.release.clone(),
            allow_lower: wish.allow_lower,
        };
        ((wish.line.clone(), wish.role.clone()), wanted)
    })
}

/// What an assignment means for one updater; `None`: it is to end.
fn input(desired: &AssignmentV1, of: &Of) -> Option<Input> {
    let wanted = wishes(desired).find(|(it, _)| it == of).map(|(_, wanted)| Input::Assigned(wanted));
    let nothing = (of.1 == Role::primary()).then_some(Input::Unassigned(desired.generation));
    wanted.or(nothing)
}

fn installed((of, updater): &(Of, Updater)) -> Option<Installed> {
    let committed = updater.record().committed.as_ref()?;
    Some(Installed {
        line: of.0.clone(),
        role: of.1.clone(),
        package: PackageRef { version: committed.version, sha256: committed.sha256 },
    })
}
