use proptest::prelude::*;

use super::*;

const SETTINGS: TransportSettings = TransportSettings {
    probe: Duration::from_secs(30),
    probe_cap: Duration::from_secs(3600),
    holds: Duration::from_secs(120),
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn both() -> Choice {
    Choice::new(true, true, SETTINGS, 1)
}

#[test]
fn quic_comes_first_and_tls_at_once_when_it_fails() {
    let mut choice = both();
    assert_eq!(choice.next(seconds(0)), Transport::Quic);
    assert_eq!(choice.failed(Transport::Quic, Failure::Network), Next::AtOnce);
    assert_eq!(choice.next(seconds(3)), Transport::Tls);
    choice.connected(seconds(3), Transport::Tls);
    let probe = choice.next_probe().unwrap();
    assert!((seconds(33)..seconds(49)).contains(&probe), "{probe:?}");
    // It fails, and the next one comes later.
    choice.probing();
    assert_eq!(choice.next_probe(), None, "one probe at a time");
    choice.probed(probe, false);
    let later = choice.next_probe().unwrap();
    assert!((seconds(60)..seconds(90)).contains(&(later - probe)), "{later:?}");
    // It works: whoever leaves the connection now goes over QUIC.
    choice.probing();
    choice.probed(later, true);
    assert_eq!(choice.ended(later, End::Closed), Next::Wait);
    assert_eq!(choice.next(later), Transport::Quic);
}

#[test]
fn a_hub_that_is_away_says_nothing_of_udp() {
    let mut choice = both();
    for round in 0..50 {
        assert_eq!(choice.next(seconds(round)), Transport::Quic);
        assert_eq!(choice.failed(Transport::Quic, Failure::Network), Next::AtOnce);
        assert_eq!(choice.next(seconds(round)), Transport::Tls);
        assert_eq!(choice.failed(Transport::Tls, Failure::Network), Next::Wait);
    }
    // Nor does a hub that says no.
    assert_eq!(choice.failed(Transport::Quic, Failure::Refused), Next::Wait);
    assert_eq!(choice.next(seconds(60)), Transport::Quic);
}

#[test]
fn where_only_udp_is_left_it_is_found_although_it_was_avoided() {
    let mut choice = both();
    choice.failed(Transport::Quic, Failure::Network);
    choice.connected(seconds(3), Transport::Tls);
    choice.ended(seconds(5), End::Lost);
    assert_eq!(choice.next(seconds(5)), Transport::Tls, "still avoided");
    assert_eq!(choice.failed(Transport::Tls, Failure::Network), Next::AtOnce);
    assert_eq!(choice.next(seconds(5)), Transport::Quic);
    choice.connected(seconds(6), Transport::Quic);
    assert_eq!(choice.next(seconds(7)), Transport::Quic);
}

#[test]
fn what_is_not_offered_is_never_chosen() {
    let mut quic = Choice::new(true, false, SETTINGS, 1);
    assert_eq!(quic.failed(Transport::Quic, Failure::Network), Next::Wait);
    quic.connected(seconds(0), Transport::Quic);
    assert_eq!(quic.ended(seconds(1), End::Lost), Next::Wait);
    assert_eq!(quic.next(seconds(1)), Transport::Quic);
    let mut tls = Choice::new(false, true, SETTINGS, 1);
    assert_eq!(tls.next(seconds(0)), Transport::Tls);
    tls.connected(seconds(0), Transport::Tls);
    assert_eq!(tls.next_probe(), None);
    tls.offered(true, true);
    assert_eq!(tls.next(seconds(0)), Transport::Quic);
}

#[test]
fn a_connection_that_held_long_enough_wins_trust_back() {
    let mut choice = both();
    for _ in 0..3 {
        choice.connected(seconds(0), Transport::Quic);
        assert_eq!(choice.ended(seconds(20), End::Lost), Next::AtOnce);
    }
    assert_eq!(choice.level, 3);
    choice.connected(seconds(0), Transport::Quic);
    choice.ended(seconds(119), End::Closed);
    assert_eq!(choice.level, 3, "closed by the hub: neither for nor against the network");
    choice.connected(seconds(0), Transport::Quic);
    assert_eq!(choice.ended(seconds(121), End::Lost), Next::Wait);
    assert_eq!(choice.level, 0);
}

/// A network as a device sees it for one day.
#[derive(Debug, Clone)]
struct Network {
    /// Handshakes over UDP go through.
    udp: bool,
    /// Connections over UDP are killed after so many seconds.
    killed_after: Option<u64>,
    tcp: bool,
}

/// What the shell does, second by second; how often a QUIC connection was made, and what is in use in the end.
fn day(choice: &mut Choice, network: &Network, from: u64, to: u64) -> (u32, Option<Transport>) {
    let (mut made, mut silent_since) = (0, None);
    let mut now = from;
    while now < to {
        let at = seconds(now);
        match choice.in_use() {
            None => {
                let transport = choice.next(at);
                let works = if transport == Transport::Quic { network.udp } else { network.tcp };
                if works {
                    choice.connected(at, transport);
                    made += u32::from(transport == Transport::Quic);
                    silent_since = network.killed_after.map(|after| now + after);
                } else if choice.failed(transport, Failure::Network) == Next::AtOnce {
                    continue;
                }
            }
            Some((Transport::Quic, _)) => {
                let killed = silent_since.is_some_and(|since| now >= since + 20);
                if killed || !network.udp {
                    choice.ended(at, End::Lost);
                    continue;
                }
            }
            Some((Transport::Tls, _)) => {
                if !network.tcp {
                    choice.ended(at, End::Lost);
                    continue;
                }
                if choice.next_probe().is_some_and(|due| due <= at) {
                    choice.probing();
                    choice.probed(at, network.udp);
                    if network.udp {
                        choice.ended(at, End::Closed);
                        continue;
                    }
                }
            }
        }
        now += 1;
    }
    (made, choice.in_use().map(|(transport, _)| transport))
}

proptest! {
    #[test]
    fn a_network_that_kills_quic_soon_is_left_alone_ever_longer(seed: u64, killed_after in 0u64..90) {
        let mut choice = Choice::new(true, true, SETTINGS, seed);
        let network = Network { udp: true, killed_after: Some(killed_after), tcp: true };
        let (made, _) = day(&mut choice, &network, 0, 86_400);
        // Seven doublings from half a minute to an hour, then once an hour at most.
        prop_assert!(made <= 8 + 24, "{made} connections over QUIC in a day");
        prop_assert!(made >= 16, "it is still tried: {made}");
    }

    #[test]
    fn every_network_that_lets_anything_through_ends_connected_and_udp_wins_in_the_end(
        seed: u64,
        days in prop::collection::vec((any::<bool>(), prop::option::of(0u64..200), any::<bool>(), 1u64..20_000), 0..6),
        tcp: bool,
    ) {
        let mut choice = Choice::new(true, true, SETTINGS, seed);
        let mut now = 0;
        for (udp, killed_after, tcp, lasts) in days {
            let network = Network { udp, killed_after, tcp };
            let (_, used) = day(&mut choice, &network, now, now + lasts);
            now += lasts;
            if lasts > 1 && killed_after.is_none() && (udp || tcp) {
                prop_assert!(used.is_some(), "{network:?} leaves the device alone");
            }
        }
        // Healthy again: after the longest while of all it is back on QUIC.
        let healthy = Network { udp: true, killed_after: None, tcp };
        let (_, used) = day(&mut choice, &healthy, now, now + 5500);
        prop_assert_eq!(used, Some(Transport::Quic));
    }
}
