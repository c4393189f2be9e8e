//! What one device is told to run, under which generation, and when it is told again.

use std::cmp::Ordering;
use std::time::Duration;

use tributary_release::MAX_GENERATION_STEP;
use tributary_wire::{
    Assignment, AssignmentV1, AssignmentV2, AssignmentV3, AuditHead, ChallengerShare, DeviceId, Generation,
    LineAssignment, LineName, LineReport, Micros, PackageRef, ReleaseRef, Report, Role, SamplingPolicy,
};

use super::fleet::release_of;
use super::{Assign, Rollout, Taken, Target};

/// How long an assignment may begin an installation. Devices that sleep longer get a fresh one when they wake.
pub const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// All predictions of a line.
pub const WHOLE: u64 = 10_000;

/// What a device should run of a line and role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which line.
    pub line: LineName,
    /// In which role.
    pub role: Role,
    /// Which release.
    pub release: ReleaseRef,
    /// Whether a version lower than the committed one is meant.
    pub allow_lower: bool,
    /// The rollout that says so.
    pub rollout: i64,
    /// Of how many entities in 10 000 a challenger answers.
    pub share: u16,
}

impl Wish {
    /// What follows from a planner's decision; `None`: nothing is wished any more.
    pub fn of(rollout: &Rollout, assign: &Assign) -> Option<Self> {
        let (release, allow_lower) = match &assign.target {
            Target::Install { .. } => (&rollout.target, false),
            Target::Rollback { to } => (to.as_ref()?, true),
        };
        Some(Self {
            line: rollout.line.clone(),
            role: rollout.role.clone(),
            release: release.clone(),
            allow_lower,
            rollout: rollout.id,
            share: rollout.share,
        })
    }
}

/// What concerns one device now, beside reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The highest version of messages that it reads; 1 before its first report.
    pub reads: u8,
    /// Everything that is wished for it, by line and role.
    pub wishes: Vec<Wish>,
    /// Flags for the application beside its agent.
    pub flags: Vec<(String, String)>,
    /// What it sends of its raw observations; without one its own configuration decides.
    pub sampling: Option<SamplingPolicy>,
    /// When keys or releases were last taken back. What was signed before speaks of older metadata, and a device asks for
    /// newer metadata only at long intervals, unless an assignment speaks of it.
    pub taken_back: Micros,
}

impl Desired {
    /// What may be said to a device now. Where a wish's rollout may not install (`may_install` of its number), and the
    /// device does not `have` its release for good, it is told what it [had]: so the way back of one role can be signed
    /// while another role's rollout is paused, and brings nothing of that one along.
    #[must_use]
    pub fn sayable(
        &self,
        has: &[LineReport],
        may_install: impl Fn(i64) -> bool,
        had: impl Fn(&Wish, Option<PackageRef>) -> Option<ReleaseRef>,
    ) -> Self {
        let said = |wish: &Wish| {
            let own = has.iter().find(|of| (&of.line, &of.role) == (&wish.line, &wish.role));
            let committed = own.and_then(|of| of.committed);
            let has = committed.is_some_and(|package| package.sha256 == wish.release.sha256);
            match wish.allow_lower || may_install(wish.rollout) || has {
                true => Some(wish.clone()),
                false => Some(Wish { release: had(wish, committed)?, ..wish.clone() }),
            }
        };
        Self { wishes: self.wishes.iter().filter_map(said).collect(), ..self.clone() }
    }

    /// What is wished, and what challengers answer.
    pub fn lines(&self) -> (Vec<LineAssignment>, Vec<ChallengerShare>) {
        let mut lines = Vec::with_capacity(self.wishes.len());
        let mut shares: Vec<ChallengerShare> = Vec::new();
        for Wish { line, role, release, allow_lower, share, .. } in &self.wishes {
            // Rollouts see to it that shares fit. A device whose labels changed may be meant by more of them than were
            // looked at together; it would refuse the whole, so the last ones get what is left.
            let given: u64 = shares.iter().filter(|it| it.line == *line).map(|it| u64::from(it.per_10_000)).sum();
            let per_10_000 = u64::from(*share).min(WHOLE.saturating_sub(given)) as u16;
            if per_10_000 > 0 && role.is_challenger() {
                shares.push(ChallengerShare { line: line.clone(), role: role.clone(), per_10_000 });
            }
            let (line, role, release) = (line.clone(), role.clone(), release.clone());
            lines.push(LineAssignment { line, role, release, allow_lower: *allow_lower });
        }
        (lines, shares)
    }

    /// The assignment to sign, in the newest form that the device reads. The head of the audit log goes out to the whole
    /// fleet: who cuts the log's end cannot cut it there.
    pub fn assignment(
        &self,
        device: &DeviceId,
        generation: Generation,
        (audit, snapshot): (AuditHead, u64),
        now: Micros,
    ) -> Assignment {
        let (lines, shares) = self.lines();
        let (device, flags, expires) = (device.clone(), self.flags.clone(), now + LIFETIME);
        let desired = AssignmentV1 { device, generation, issued: now, expires, lines, flags };
        match form(self.reads) {
            1 => Assignment::V1(desired),
            2 => Assignment::V2(AssignmentV2 { desired, audit }),
            _ => Assignment::V3(AssignmentV3 { desired, audit, snapshot, shares, sampling: self.sampling.clone() }),
        }
    }
}

/// What a device had before the rollout of a wish: what it has `committed` if that is one of the line's releases, else
/// what it was assigned before. `None`: nothing that the hub could name.
pub fn had(
    wish: &Wish,
    committed: Option<PackageRef>,
    taken: Option<&Taken>,
    releases: &[ReleaseRef],
) -> Option<ReleaseRef> {
    let known = committed.and_then(|package| release_of(releases, &package));
    let had = known.or_else(|| taken?.before.as_ref())?;
    (had.sha256 != wish.release.sha256).then(|| had.clone())
}

/// A generation above all that the hub signed and the device reported: after a restored backup the hub must not fall
/// behind its own devices.
pub fn next_generation(last: Generation, reported: Generation) -> Generation {
    // A device that reports a number that no backup explains would only use up the numbers, and refuse the next one.
    let credible = reported.0 <= last.0.saturating_add(MAX_GENERATION_STEP / 2);
    let reported = if credible { reported.0 } else { 0 };
    Generation(last.0.max(reported).saturating_add(1))
}

/// The highest form of an assignment that a device reads, of those that there are.
pub fn form(reads: u8) -> u8 {
    reads.clamp(1, 3)
}

/// Whether any installation that is wished comes from a rollout that may not install now (`may_install` of its
/// number): nothing that would begin or go on with it is signed or sent meanwhile. The way back is never held.
pub fn is_held(desired: &Desired, may_install: impl Fn(i64) -> bool) -> bool {
    desired.wishes.iter().any(|wish| !wish.allow_lower && !may_install(wish.rollout))
}

/// The newest assignment that was signed for a device.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// What it says.
    pub assignment: &'a Assignment,
    /// Whether the key that signs now signed it.
    pub by_present_key: bool,
}

/// What a device's report says about its assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The newest generation that it has accepted.
    pub generation: Generation,
    /// Whether it waits for the hub's word.
    pub asks: bool,
    /// Whether it has still to [carry out](is_unfinished) what it has accepted.
    pub unfinished: bool,
}

/// Whether a device has still to carry out an assignment, by its report: of some role it has neither committed the
/// release nor given it up. What it cannot run it has not given up: a newer agent, or one with more memory, looks again,
/// and may begin only while the assignment is good. A release that must not follow the committed one is refused under
/// every assignment.
pub fn is_unfinished(assignment: &Assignment, report: &Report) -> bool {
    assignment.desired().lines.iter().any(|wish| {
        let is = |package: &PackageRef| package.sha256 == wish.release.sha256;
        let own = report.base().lines.iter().find(|of| (&of.line, &of.role) == (&wish.line, &wish.role));
        let done = own.and_then(|of| of.committed).is_some_and(|committed| {
            let order = committed.version.cmp(&wish.release.version);
            is(&committed) || order == Ordering::Equal || (order == Ordering::Greater && !wish.allow_lower)
        });
        let gave_up = own.and_then(|of| of.undone.as_ref()).is_some_and(|(package, _)| is(package));
        let mut unfit = report.unfit().iter().filter(|of| (&of.line, &of.role) == (&wish.line, &wish.role));
        !done && (!gave_up || unfit.any(|of| is(&of.package)))
    })
}

/// How to answer a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is up to date, or must wait.
    Nothing,
    /// Its assignment, once more.
    Again,
    /// What is wished for it, signed anew, for this reason.
    Renew(&'static str),
}

/// What to answer to a device's report: its assignment when it has an older one or asks to go ahead, a newer one when
/// something has changed for it or its own ends before it has carried it out, nothing when it is up to date or
/// [held](is_held). A way back that was signed while it is held, with no more than is [sayable](Desired::sayable), is said
/// again until it has arrived.
pub fn answer(
    (desired, sayable): (&Desired, &Desired),
    signed: Signed<'_>,
    said: Said,
    may_install: impl Fn(i64) -> bool,
    now: Micros,
) -> Answer {
    let (generation, expires) = (signed.assignment.desired().generation, signed.assignment.desired().expires);
    let lacks = said.generation != generation || said.asks;
    let open = lacks || said.unfinished;
    let reason = if said.generation > generation {
        Some("the device reports a higher generation")
    } else if open && expires <= now {
        Some("it had expired")
    } else if open && expires <= now + LIFETIME / 3 {
        // Nobody who is still on the way to what it says is to see it end.
        Some("it ends soon")
    } else {
        stale(desired, signed)
    };
    let says_no_more = signed.assignment.desired().lines == sayable.lines().0;
    match reason {
        _ if is_held(desired, may_install) => match said.generation < generation && !said.asks && says_no_more {
            true => Answer::Again,
            false => Answer::Nothing,
        },
        Some(reason) => Answer::Renew(reason),
        None if lacks => Answer::Again,
        None => Answer::Nothing,
    }
}

/// What has changed for a device since its assignment was signed, though nobody rolls anything out.
fn stale(desired: &Desired, signed: Signed<'_>) -> Option<&'static str> {
    let found = match signed.assignment {
        Assignment::V1(_) => 1,
        Assignment::V2(_) => 2,
        Assignment::V3(_) => 3,
    };
    match found.cmp(&form(desired.reads)) {
        Ordering::Greater => return Some("the device went back to an older agent"),
        Ordering::Less => return Some("the device reads a newer form"),
        Ordering::Equal => {}
    }
    if !signed.by_present_key {
        return Some("the key that signs assignments was changed");
    }
    // Older forms have no place for the number of the metadata.
    if found >= 3 && signed.assignment.desired().issued < desired.taken_back {
        return Some("keys or releases were taken back");
    }
    if signed.assignment.desired().flags != desired.flags {
        return Some("its flags were changed");
    }
    // What was wished while another rollout of the device was paused is signed when it goes on.
    if signed.assignment.desired().lines != desired.lines().0 {
        return Some("what it should run was changed");
    }
    if found >= 3 && signed.assignment.shares() != desired.lines().1 {
        return Some("shares of challengers were changed");
    }
    (found >= 3 && signed.assignment.sampling() != desired.sampling.as_ref()).then_some("what it samples was changed")
}

#[cfg(test)]
mod tests;
