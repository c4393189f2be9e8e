//! Takes in assignments: checked, stored, then told to every updater.

use edge_agent_core::updater::{Input, Wanted};
use tributary_release::{AssignmentError, Installed, SignatureError, Standing, open_assignment, verify_assignment};
use tributary_wire::{
    Assignment, AssignmentV1, AuditHead, Generation, LineName, Micros, PackageRef, Role, SignedAssignment,
};

use super::fetch::blocking;
use super::{Message, UpdateError, Updates};
use crate::words::in_words;

const ASSIGNMENT: &str = "update/assignment";

/// Why an assignment changed nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it does not decode")]
    Undecodable(#[from] tributary_wire::DecodeError),
    #[error("it is not for this device now")]
    NotValid(#[from] AssignmentError),
    #[error("it names line {found}, this agent serves {serves:?}")]
    Line { found: LineName, serves: Vec<LineName> },
    #[error("it could not be stored")]
    Store(#[from] UpdateError),
}

impl Updates {
    /// The assignment that was accepted before the restart. One whose key is no longer trusted counts no more, but
    /// its generation is not forgotten: nobody may go back behind it.
    pub(super) async fn recover_assignment(&mut self) -> Result<(), UpdateError> {
        let store = self.parts.store.clone();
        let Some(bytes) = blocking(move || store.blob_get(ASSIGNMENT)).await?? else { return Ok(()) };
        let Ok(signed) = SignedAssignment::decode(&bytes) else { return Ok(()) };
        match open_assignment(&self.parts.trust.assignment_keys(), &signed) {
            Ok(opened) => {
                self.take(&opened).await;
                self.tell_all(opened.desired()).await;
            }
            Err(error) => {
                self.problem = Some(format!("stored assignment: {}", in_words(&error)));
                // It was verified before it was stored. The same generation, signed anew by another key, is welcome.
                if let Ok(known) = Assignment::decode(&signed.payload) {
                    self.generation = Generation(known.desired().generation.0.saturating_sub(1));
                }
            }
        }
        Ok(())
    }

    /// An assignment arrived. Whatever is wrong with it is shown in the report, and nothing changes.
    /// Keys or releases that are not known yet may stand in newer metadata, which is asked for once.
    pub(super) async fn assigned(&mut self, bytes: Vec<u8>, may_ask: bool) {
        if may_ask && self.is_behind(&bytes) {
            return self.ask_for_metadata(bytes);
        }
        let problem = match self.accept(bytes).await {
            Ok(()) => None,
            Err(Refused::NotValid(AssignmentError::Generation { accepted, found })) if found < accepted => {
                // A late one of the network's; no reason to alarm anybody.
                tracing::debug!(%found, %accepted, "an older assignment arrived late");
                return;
            }
            Err(refused) => {
                let words = in_words(&refused);
                tracing::warn!(problem = %words, "assignment refused");
                Some(format!("assignment refused: {words}"))
            }
        };
        if self.problem != problem {
            self.problem = problem;
            self.show();
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Whether an assignment is signed by a key that this device does not know, or speaks of newer metadata than it has.
    fn is_behind(&self, bytes: &[u8]) -> bool {
        let Ok(signed) = SignedAssignment::decode(bytes) else { return false };
        match open_assignment(&self.parts.trust.assignment_keys(), &signed) {
            Err(SignatureError::UnknownKey { .. }) => true,
            Err(_) => false,
            Ok(opened) => opened.snapshot() > self.parts.trust.versions().map_or(0, |versions| versions.snapshot),
        }
    }

    /// Beside the loop: a slow repository must not keep a trial from being looked at. A newer assignment takes the place
    /// of one that waits.
    fn ask_for_metadata(&mut self, bytes: Vec<u8>) {
        self.refreshing.take().inspect(|task| task.abort());
        let (trust, again) = (self.parts.trust.clone(), self.again.clone());
        let asking = tokio::spawn(async move {
            if let Err(error) = trust.refresh().await {
                tracing::warn!(error = %in_words(&error), "an assignment speaks of metadata that could not be fetched");
            }
            // Nobody listens any more only when the agent stops.
            let _ = again.send(Message::AssignedAnew(bytes));
        });
        self.refreshing = Some(asking.abort_handle());
    }

    async fn accept(&mut self, bytes: Vec<u8>) -> Result<(), Refused> {
        let signed = SignedAssignment::decode(&bytes)?;
        if let Some(again) = self.again(&signed) {
            // The hub's answer to a question. It may have been signed later than the first.
            self.witness(again.desired().issued, again.audit()).await;
            let expires = again.desired().expires;
            for index in 0..self.lines.len() {
                self.tell(index, Input::Confirmed { generation: self.generation, expires }).await;
            }
            return Ok(());
        }
        let installed: Vec<_> = self.lines.iter().filter_map(installed).collect();
        let standing = Standing {
            device: &self.parts.device,
            generation: self.generation,
            installed: &installed,
            now: self.now().wall,
        };
        let opened = verify_assignment(&self.parts.trust.assignment_keys(), &standing, &signed)?;
        let assignment = opened.desired();
        if let Some(wish) = assignment.lines.iter().find(|wish| !self.parts.lines.contains(&wish.line)) {
            return Err(Refused::Line { found: wish.line.clone(), serves: self.parts.lines.clone() });
        }
        let store = self.parts.store.clone();
        blocking(move || store.blob_put(ASSIGNMENT, &bytes))
            .await
            .map_err(UpdateError::from)?
            .map_err(UpdateError::from)?;
        tracing::info!(generation = %assignment.generation, "assignment accepted");
        self.take(&opened).await;
        self.witness(assignment.issued, opened.audit()).await;
        self.tell_all(assignment).await;
        Ok(())
    }

    /// The accepted assignment if it came again, perhaps signed anew: same generation, same wishes.
    fn again(&self, signed: &SignedAssignment) -> Option<Assignment> {
        let accepted = self.accepted.as_ref()?.desired();
        let opened = open_assignment(&self.parts.trust.assignment_keys(), signed).ok()?;
        let again = opened.desired();
        let same =
            (&again.device, again.generation, &again.lines) == (&accepted.device, accepted.generation, &accepted.lines);
        same.then_some(opened)
    }

    async fn take(&mut self, assignment: &Assignment) {
        self.generation = assignment.desired().generation;
        self.accepted = Some(assignment.clone());
        self.raise(assignment.desired().issued).await;
    }

    /// Time never runs before what somebody trusted has signed, whatever the system clock says.
    /// A device without a clock has nothing to hold an assignment's time against but the signed metadata: a time after
    /// its end is not taken.
    async fn raise(&self, issued: Micros) {
        let time = self.parts.time.clone();
        if time.is_unset() && self.parts.trust.expires().is_none_or(|expires| issued > expires) {
            return;
        }
        // It writes now and then; only a runtime that goes down does not run it.
        let _ = blocking(move || time.raise(issued)).await;
    }

    /// What a verified assignment tells beside its wishes.
    async fn witness(&mut self, issued: Micros, audit: Option<AuditHead>) {
        self.raise(issued).await;
        if let Some(head) = audit {
            self.audited(issued, head).await;
        }
    }

    async fn tell_all(&mut self, assignment: &AssignmentV1) {
        for wish in &assignment.lines {
            self.line(&wish.line, &wish.role).await;
        }
        for index in 0..self.lines.len() {
            let wish = assignment.lines.iter().find(|wish| self.lines[index].is(&wish.line, &wish.role));
            let input = match wish {
                Some(wish) => Input::Assigned(Wanted {
                    generation: assignment.generation,
                    expires: assignment.expires,
                    release: wish.release.clone(),
                    allow_lower: wish.allow_lower,
                }),
                None => Input::Unassigned(assignment.generation),
            };
            self.tell(index, input).await;
        }
        // A role that nobody wants any more is scored no more; the primary stays, to answer with the fallback.
        let unwanted = |line: &super::Line| {
            line.role != Role::primary() && !assignment.lines.iter().any(|wish| line.is(&wish.line, &wish.role))
        };
        while let Some(index) = self.lines.iter().position(unwanted) {
            self.retire(index).await;
        }
        self.show();
        self.changed.send_modify(|count| *count += 1);
    }
}

fn installed(line: &super::Line) -> Option<Installed> {
    let committed = line.updater.record().committed.as_ref()?;
    Some(Installed {
        line: line.name.clone(),
        role: line.role.clone(),
        package: PackageRef { version: committed.version, sha256: committed.sha256 },
    })
}
