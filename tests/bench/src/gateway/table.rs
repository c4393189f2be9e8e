//! The report as text: one table for each question, with ratios beside the peers over the same transport.

use super::servers::Peer;
use super::{CONNECTIONS, Figure, MESSAGES, Report, connecting, crowd, publishing, storm};
use crate::figures::{count, megabytes, seconds};

/// As tables.
pub fn table(report: &Report) -> String {
    let versions = report.versions.iter().map(|(peer, version)| format!("{} {version}", peer.name()));
    let mut text = format!("gateway: {}; load {:.2}\n", versions.collect::<Vec<_>>().join(", "), report.load);
    for peer in &report.missing {
        text += &format!("*** {} is not installed; its figures stay empty ***\n", peer.name());
    }
    text += &rates(report);
    text += &idle(report);
    text += &beside_a_crowd(report);
    text += &storms(report);
    text
}

fn row(figure: &Figure, cells: impl IntoIterator<Item = String>) -> String {
    let name = format!("{} {}", figure.peer.name(), figure.transport.name());
    let cells = cells.into_iter().map(|cell| format!(" {cell:>28}")).collect::<String>();
    format!("{name:<31}{cells}\n")
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values.get(middle).copied();
    }
    Some((values.get(middle)? + values.get(middle.checked_sub(1)?)?) / 2.0)
}

/// The median and the range.
fn spread(values: &[f64], show: impl Fn(f64) -> String) -> String {
    let (Some(median), least) = (median(values), values.iter().copied().fold(f64::INFINITY, f64::min)) else {
        return "-".to_owned();
    };
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{} ({}-{})", show(median), show(least), show(most))
}

/// Thousands, where more would be noise.
fn rounded(rate: f64) -> String {
    if rate < 10_000.0 { count(rate) } else { format!("{}k", count(rate / 1e3)) }
}

fn rates(report: &Report) -> String {
    let columns = ["1 client: messages/s", "10 clients: messages/s", "connects/s", "resumed connects/s"];
    let columns = columns.map(|name| format!(" {name:>28}")).join("");
    let mut text = format!(
        "\nacknowledged QoS 1 messages of {} bytes, {} in flight, {} a repetition; {} connections a repetition, {} at \
         once; medians and (ranges)\n{:<31}{columns}\n",
        publishing::PAYLOAD,
        publishing::IN_FLIGHT,
        count(MESSAGES as f64),
        count(CONNECTIONS as f64),
        connecting::AT_ONCE,
        "server"
    );
    for figure in &report.figures {
        let Figure { one, ten, connects, resumed, .. } = figure;
        text += &row(figure, [one, ten, connects, resumed].map(|values| spread(values, rounded)));
    }
    for (what, of) in [
        ("1 client", (|figure| &figure.one) as fn(&Figure) -> &Vec<f64>),
        ("10 clients", |figure| &figure.ten),
        ("connects", |figure| &figure.connects),
        ("resumed connects", |figure| &figure.resumed),
    ] {
        text += &ratios(report, what, |figure| median(of(figure)));
    }
    text
}

/// Ours over each peer's, for the transports that both have.
fn ratios(report: &Report, what: &str, of: impl Fn(&Figure) -> Option<f64>) -> String {
    let ours = report.figures.iter().filter(|figure| figure.peer == Peer::Tributary);
    let mut all = Vec::new();
    for ours in ours {
        for theirs in report.figures.iter().filter(|figure| figure.peer != Peer::Tributary) {
            if let (true, Some(own), Some(other)) = (theirs.transport == ours.transport, of(ours), of(theirs)) {
                let (transport, peer) = (ours.transport.name(), theirs.peer.name());
                all.push(format!("{transport} {:.2}x {peer}", own / other));
            }
        }
    }
    if all.is_empty() { String::new() } else { format!("  ours, {what}: {}\n", all.join(", ")) }
}

fn idle(report: &Report) -> String {
    let columns = ["1 000: each", "1 000: resident", "5 000: each", "5 000: resident"];
    let columns = columns.map(|name| format!(" {name:>28}")).join("");
    let mut text = format!("\nresident memory of the server with idle connections\n{:<31}{columns}\n", "server");
    for figure in report.figures.iter().filter(|figure| !figure.idle.is_empty()) {
        let cells = figure.idle.iter().flat_map(|memory| {
            let kilobytes = format!("{:.1} kB", memory.each / 1e3);
            [kilobytes, megabytes(memory.resident)]
        });
        text += &row(figure, cells);
    }
    text + &ratios(report, "memory of each of 5 000", |figure| figure.idle.last().map(|memory| memory.each))
}

fn beside_a_crowd(report: &Report) -> String {
    let columns = ["p50 alone", "p50 crowded", "p99 alone", "p99 crowded", "p99 ratio", "hanging"];
    let columns = columns.map(|name| format!(" {name:>28}")).join("");
    let mut text = format!(
        "\nacknowledgements of {} devices beside {} half-open connections from {} addresses (TCP: silent; TLS: half a \
         ClientHello; QUIC: first datagrams only); medians and (ranges)\n{:<31}{columns}\n",
        crowd::DEVICES,
        count(crowd::CROWD as f64),
        crowd::ADDRESSES,
        "server"
    );
    for figure in report.figures.iter().filter(|figure| !figure.crowd.is_empty()) {
        let of = |get: fn(&crowd::Times) -> f64| figure.crowd.iter().map(get).collect::<Vec<_>>();
        let times = [
            of(|times| times.alone.p50),
            of(|times| times.crowded.p50),
            of(|times| times.alone.p99),
            of(|times| times.crowded.p99),
        ];
        let ratio = spread(&of(crowd::Times::ratio), |ratio| format!("{ratio:.2}"));
        let hanging = spread(&of(|times| times.hanging as f64), count);
        text += &row(figure, times.map(|times| spread(&times, seconds)).into_iter().chain([ratio, hanging]));
    }
    text
}

fn storms(report: &Report) -> String {
    let mut text = format!(
        "\n{} devices lose the hub at one instant and come back with an agent's waits; the hub is killed and started again\n",
        count(storm::DEVICES as f64)
    );
    for (transport, back) in &report.storms {
        let storm::Return { hub, devices, all, failed } = back;
        let times = [*hub, devices.p50, devices.p99, *all].map(seconds);
        let [hub, half, most, all] = times;
        text += &format!(
            "  {:<5} hub answers after {hub}; devices back: half {half}, 99 % {most}, all {all}; {failed} attempts failed\n",
            transport.name()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Spread;
    use crate::gateway::link::Transport;

    fn figure(peer: Peer, rate: f64) -> Figure {
        let spread = Spread::of([0.001]).unwrap();
        let crowded = Spread { p99: 0.0015, ..spread };
        Figure {
            peer,
            transport: Transport::Plain,
            one: vec![rate, 2.0 * rate, 3.0 * rate],
            ten: vec![rate],
            connects: vec![rate],
            resumed: Vec::new(),
            idle: vec![super::super::idle::Memory { connections: 5_000, resident: 1, each: rate }],
            crowd: vec![crowd::Times { alone: spread, crowded, hanging: 5_000 }],
        }
    }

    #[test]
    fn a_report_has_medians_ranges_and_ratios_and_names_who_is_missing() {
        let report = Report {
            load: 0.0,
            versions: vec![(Peer::Tributary, "1".into())],
            figures: vec![figure(Peer::Tributary, 40_000.0), figure(Peer::Rumqttd, 20_000.0)],
            storms: Vec::new(),
            missing: vec![Peer::Mosquitto],
        };
        let table = table(&report);
        for expected in
            ["mosquitto is not installed", "80k (40k-120k)", "1 client: plain 2.00x rumqttd", "1.50 (1.50-1.50)"]
        {
            assert!(table.contains(expected), "{expected} is not in\n{table}");
        }
    }

    #[test]
    fn a_median_is_the_middle_or_between_both() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 3.0]), median(&[])), (Some(2.0), Some(2.0), None));
    }
}
