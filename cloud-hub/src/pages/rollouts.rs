//! Rollouts at a glance, and what devices say they run or cannot run.

use cloud_hub_core::rollout::RolloutState;
use tributary_wire::{NodeReport, Report, Role, Withheld};

use super::html::Html;
use crate::rollout::Stored;

/// The newest rollouts.
pub(super) fn table(html: &mut Html, rollouts: &[Stored]) {
    html.raw("<h2>Rollouts</h2>\n<div class=\"card table\"><table><thead><tr><th>No.</th><th>Line</th><th>Role</th>");
    html.raw("<th>Version</th><th>Share</th><th>For</th><th>State</th><th>Devices</th><th>Why</th></tr></thead>\n");
    html.raw("<tbody>\n");
    for stored in rollouts {
        let rollout = &stored.rollout;
        html.raw("<tr><td>").text(rollout.id).raw("</td><td>").text(&rollout.line).raw("</td><td>").text(&rollout.role);
        html.raw("</td><td>").text(rollout.target.version).raw("</td><td>");
        match rollout.role.is_challenger() {
            true => html.text(f64::from(rollout.share) / 100.0).raw(" %"),
            false => html.raw("–"),
        };
        html.raw("</td><td class=\"free\">");
        match rollout.selector.is_everyone() {
            true => html.raw("all devices"),
            false => html.text(&rollout.selector),
        };
        html.raw("</td><td>").text(rollout.state.name()).raw("</td><td>").text(rollout.taken.len());
        html.raw("</td><td class=\"free\">").text(why(stored)).raw("</td></tr>\n");
    }
    if rollouts.is_empty() {
        html.raw("<tr><td class=\"none\" colspan=\"9\">Nothing was rolled out yet.</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

fn why(stored: &Stored) -> &str {
    match &stored.rollout.state {
        RolloutState::Paused { reason, .. }
        | RolloutState::Stopping { reason, .. }
        | RolloutState::Stopped { reason, .. } => reason,
        RolloutState::Running { .. } | RolloutState::Completed { .. } => &stored.reason,
    }
}

/// Two cells of a device: the version of its metadata, and what it runs, with what it lacks for what it cannot run.
pub(super) fn runs(html: &mut Html, report: Option<&[u8]>) {
    let Some(report) = report.and_then(|bytes| Report::decode(bytes).ok()) else {
        html.raw("–</td><td>–");
        return;
    };
    match report.metadata() {
        Some(metadata) => html.text(metadata.snapshot),
        None => html.raw("–"),
    };
    html.raw("</td><td class=\"free\">");
    for line in &report.base().lines {
        html.text(&line.line);
        if line.role != Role::primary() {
            html.raw(" as ").text(&line.role);
        }
        match line.committed {
            Some(package) => html.raw(" v").text(package.version).raw(" "),
            None => html.raw(" – "),
        };
    }
    for unfit in report.unfit() {
        html.raw("<br><span class=\"past\">cannot run ").text(&unfit.line);
        if unfit.role != Role::primary() {
            html.raw(" as ").text(&unfit.role);
        }
        html.raw(" v").text(unfit.package.version).raw(": ").text(unfit.reasons.join("; ")).raw("</span>");
    }
    if let Some(withheld) = report.withheld() {
        withholds(html, withheld);
    }
    for node in report.nodes() {
        sensor(html, node);
    }
}

/// A sensor node beside a device: what it is, and what is wrong with it.
fn sensor(html: &mut Html, NodeReport { node, kind, firmware, model, trouble, .. }: &NodeReport) {
    html.raw("<br>node ").text(node).raw(": ");
    match kind.as_ref().zip(firmware.as_ref()) {
        Some((kind, firmware)) => html.text(kind).raw(" ").text(firmware),
        None => html.raw("never heard"),
    };
    if let Some(model) = model.filter(|model| model.version > 0) {
        html.raw(", model v").text(model.version);
    }
    if let Some(trouble) = trouble {
        html.raw(", <span class=\"past\">").text(trouble).raw("</span>");
    }
}

/// What a device keeps back by a policy of the hub, and what it lost.
fn withholds(html: &mut Html, Withheld { sampling, dropped, problem }: &Withheld) {
    if sampling.number > 0 {
        html.raw("<br>samples by policy change ").text(sampling.number);
        if sampling.limited {
            html.raw(" within its own limits");
        }
    }
    if sampling.left_out + sampling.uncovered > 0 {
        html.raw("<br>").text(sampling.kept).raw(" observations kept, ").text(sampling.left_out).raw(" left out");
    }
    if sampling.uncovered > 0 {
        html.raw(", ").text(sampling.uncovered).raw(" more because the day's bytes were used up");
    }
    for lost in dropped {
        html.raw("<br><span class=\"past\">").text(lost.records).raw(" of ").text(&lost.stream);
        html.raw(" given up: ").text(lost.reason.name()).raw("</span>");
    }
    if let Some(problem) = problem {
        html.raw("<br><span class=\"past\">its sampling policy does not hold: ").text(problem).raw("</span>");
    }
}

#[cfg(test)]
mod tests {
    use tributary_wire::{
        ClockState, DroppedRecords, Health, Incarnation, LineName, LossReason, MetadataVersions, Micros, PackageRef,
        ReportV1, ReportV2, Resources, SamplingReport, Sha256, Stamp, StreamName, Unfit, VersionNumber,
    };

    use super::*;

    #[test]
    fn a_device_shows_its_metadata_and_why_it_cannot_run_a_release() {
        let base = ReportV1 {
            number: 1,
            incarnation: Incarnation(1),
            stamp: Stamp { boot: 1, monotonic: 0, wall: Micros(0), clock: ClockState::Unsynchronised },
            reads: 3,
            agent: "0.1.0".to_owned(),
            labels: Vec::new(),
            generation: tributary_wire::Generation(1),
            asks: false,
            lines: Vec::new(),
            snapshot: None,
            health: Health::default(),
            resources: Resources::default(),
        };
        let unfit = Unfit {
            line: LineName::new("card-fraud").unwrap(),
            role: Role::shadow(),
            package: PackageRef { version: VersionNumber(4), sha256: Sha256([4; 32]) },
            reasons: vec!["it needs <64> MiB".to_owned(), "it needs engine gpu".to_owned()],
        };
        let metadata = MetadataVersions { root: 1, timestamp: 9, snapshot: 7, targets: 2 };
        let sampling = SamplingReport { number: 3, kept: 40, left_out: 60, ..SamplingReport::default() };
        let stream = StreamName::new("observations").unwrap();
        let dropped = vec![DroppedRecords { stream, reason: LossReason::Age, records: 7 }];
        let withheld = Withheld { sampling, dropped, problem: None };
        let node = NodeReport {
            node: "pump-1".to_owned(),
            kind: Some("mps2".to_owned()),
            firmware: Some("0.1.0".to_owned()),
            trouble: Some("node pump-1 is silent".to_owned()),
            ..NodeReport::default()
        };
        let report = Report::V2(ReportV2 {
            base,
            metadata: Some(metadata),
            unfit: vec![unfit],
            withheld,
            held: Vec::new(),
            audit: None,
            nodes: vec![node],
        });
        let mut html = Html::default();
        runs(&mut html, Some(&report.encode()));
        let expected = "7</td><td class=\"free\"><br><span class=\"past\">cannot run card-fraud as shadow v4: \
                        it needs &lt;64&gt; MiB; it needs engine gpu</span><br>samples by policy change 3\
                        <br>40 observations kept, 60 left out<br><span class=\"past\">7 of observations given up: \
                        age</span><br>node pump-1: mps2 0.1.0, <span class=\"past\">node pump-1 is silent</span>";
        assert_eq!(html.finish(), expected);
        let mut html = Html::default();
        runs(&mut html, None);
        assert_eq!(html.finish(), "–</td><td>–");
    }
}
