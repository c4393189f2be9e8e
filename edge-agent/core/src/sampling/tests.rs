//! The statistics against straightforward sums, over many devices with fixed names.

use proptest::prelude::*;
use tributary_wire::{Rare, Uncertain};

use super::*;
use crate::chance::Chance;

const DAY: i64 = Micros::DAY;

fn device(number: u64) -> DeviceId {
    DeviceId::new(&format!("edge-{number}")).unwrap()
}

fn sampler(number: u64) -> Sampler {
    Sampler::new(&device(number), Memory::default())
}

/// Evenly from [0, 1).
fn part(chance: &mut Chance) -> f64 {
    (chance.next() >> 11) as f64 / (1u64 << 53) as f64
}

fn scored(output: f32) -> Scored {
    Scored { version: 1, output, bounds: (0.0, 1.0), threshold: 0.5, decision: output >= 0.5 }
}

fn candidate(id: &str, output: f32, bytes: u64) -> Candidate<'_> {
    Candidate { id, scored: Some(scored(output)), observations: 1, bytes, with_event: false }
}

fn policy() -> SamplingPolicy {
    SamplingPolicy {
        random: 20_000,
        uncertain: Some(Uncertain { band: 50_000, share: 400_000 }),
        rare: Some(Rare { at_most: 5_000, share: 1_000_000 }),
        ..SamplingPolicy::EVERYTHING
    }
}

/// Outputs as a model of rare alarms gives them: most near 0, few above the threshold.
fn output(chance: &mut Chance) -> f32 {
    part(chance).powi(6) as f32
}

#[test]
fn a_coin_is_even_and_never_changes() {
    // Samples outlive builds, and the hub may throw a coin again: these numbers are part of the product.
    let seed = seed_of(&device(1));
    assert_eq!(seed, 1_548_161_327_523_129_132);
    assert_eq!(coin(seed, "e-1"), 0.464_267_134_597_674_44);
    let (mut counts, mut both) = ([0u32; 100], 0);
    let other = seed_of(&device(2));
    for number in 0..100_000 {
        let id = format!("e-{number}");
        let (first, second) = (coin(seed, &id), coin(other, &id));
        counts[(first * 100.0) as usize] += 1;
        both += u32::from(first < 0.1 && second < 0.1);
    }
    // Chi-squared with 99 degrees of freedom: beyond 160 less than once in ten thousand.
    let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 1_000.0).powi(2) / 1_000.0).sum();
    assert!(chi < 160.0, "{chi}");
    // Devices throw independent coins: a hundredth, give or take four standard deviations.
    assert!((874..1126).contains(&both), "{both}");
}

/// Estimates over `devices` devices, each the inverse-probability sum of the outputs of `events` events, without and
/// with weights; the truth; and the sum of those that nothing stands for.
struct Trial {
    weighted: Vec<f64>,
    naive: Vec<f64>,
    truth: f64,
}

fn trial(policy: &SamplingPolicy, devices: u64, events: u64, gap: i64) -> Trial {
    let mut trial = Trial { weighted: Vec::new(), naive: Vec::new(), truth: 0.0 };
    for number in 0..devices {
        let mut sampler = sampler(number);
        // The same events everywhere: only coins differ.
        let mut chance = Chance::new(7);
        let (mut weighted, mut kept, mut sum, mut truth) = (0.0, 0u32, 0.0, 0.0);
        for event in 0..events {
            let value = output(&mut chance);
            let id = format!("e-{event}");
            let now = Micros(event as i64 * gap);
            let sampled = sampler.decide(policy, now, &candidate(&id, value, 100));
            truth += f64::from(value);
            if sampled.kept {
                weighted += f64::from(value) / sampled.probability;
                sum += f64::from(value);
                kept += 1;
            } else if sampled.probability == 0.0 {
                weighted += f64::from(value);
            }
        }
        trial.weighted.push(weighted);
        trial.naive.push(sum / f64::from(kept.max(1)) * events as f64);
        trial.truth = truth;
    }
    trial
}

/// How many of its own standard errors the mean of estimates lies from the truth.
fn off(estimates: &[f64], truth: f64) -> f64 {
    let n = estimates.len() as f64;
    let mean = estimates.iter().sum::<f64>() / n;
    let variance = estimates.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean - truth) / (variance / n).sqrt()
}

#[test]
fn weights_undo_the_preference_for_close_and_rare_observations() {
    let found = trial(&policy(), 300, 3_000, 1_000_000);
    assert!(off(&found.weighted, found.truth).abs() < 4.0, "{}", off(&found.weighted, found.truth));
    assert!(off(&found.naive, found.truth) > 20.0, "without weights the mean is far too high");
}

#[test]
fn weights_stay_right_while_the_days_bytes_move_the_probability() {
    // 5 000 events of 100 bytes over 14 hours, of which a tenth fits.
    let policy = SamplingPolicy { day_bytes: Some(50_000), ..SamplingPolicy::EVERYTHING };
    let found = trial(&policy, 300, 5_000, 10_000_000);
    assert!(off(&found.weighted, found.truth).abs() < 4.0, "{}", off(&found.weighted, found.truth));
}

#[test]
fn the_variance_is_that_of_independent_coins() {
    let policy = SamplingPolicy { random: 250_000, ..SamplingPolicy::EVERYTHING };
    let found = trial(&policy, 400, 1_000, 1);
    let mut chance = Chance::new(7);
    let expected: f64 = (0..1_000).map(|_| f64::from(output(&mut chance)).powi(2) * (1.0 / 0.25 - 1.0)).sum();
    let mean = found.weighted.iter().sum::<f64>() / 400.0;
    let variance = found.weighted.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / 399.0;
    // The standard error of a variance from 400 values is 7 %.
    assert!((variance / expected - 1.0).abs() < 0.28, "{variance} instead of {expected}");
}

#[test]
fn a_day_that_wants_too_much_spends_nearly_all_of_its_bytes_and_spreads_them() {
    let policy = SamplingPolicy { day_bytes: Some(1_000_000), ..SamplingPolicy::EVERYTHING };
    let mut sampler = sampler(1);
    // Three days of 86 400 events of 100 bytes: 8.6 times what fits.
    let mut halves = Vec::new();
    for half in 0..6 {
        let before = sampler.memory.kept;
        for second in 0..43_200 {
            let now = Micros((half * 43_200 + second) * 1_000_000);
            sampler.decide(&policy, now, &candidate(&format!("{half}-{second}"), 0.1, 100));
        }
        halves.push(sampler.memory.kept - before);
    }
    for day in halves.chunks(2) {
        let kept = day[0] + day[1];
        assert!((9_700..=10_001).contains(&kept), "{halves:?}");
        assert!((4_000..6_000).contains(&day[0]), "{halves:?}");
    }
    assert!(sampler.memory.uncovered < 800, "{} of 259200 without a chance", sampler.memory.uncovered);
}

#[test]
fn a_rush_at_the_start_does_not_take_the_day() {
    let policy = SamplingPolicy { day_bytes: Some(1_000_000), ..SamplingPolicy::EVERYTHING };
    let mut sampler = sampler(1);
    for number in 0..100_000 {
        sampler.decide(&policy, Micros(number * 1_000), &candidate(&number.to_string(), 0.1, 100));
    }
    let after = sampler.memory.kept;
    assert!(after < 9_000, "{after} of 10000 in the first two minutes");
    for hour in 2..24 {
        let id = format!("late-{hour}");
        sampler.decide(&policy, Micros(hour * Micros::HOUR), &candidate(&id, 0.1, 100));
    }
    assert!(sampler.memory.kept - after >= 15, "what comes hourly afterwards is kept");
}

#[test]
fn a_clock_that_goes_back_gives_no_bytes_again() {
    let policy = SamplingPolicy { day_bytes: Some(1_000), ..SamplingPolicy::EVERYTHING };
    let mut sampler = sampler(1);
    let mut number = 0;
    let mut spend = |at: i64| {
        let before = sampler.memory.kept;
        for _ in 0..3_000 {
            number += 1;
            sampler.decide(&policy, Micros(at), &candidate(&number.to_string(), 0.1, 100));
        }
        (sampler.memory.kept - before, sampler.report(&in_force(&policy, 1, None), Micros(at)).day_bytes)
    };
    let end = 10 * DAY - 1;
    spend(end);
    assert_eq!(spend(end), (0, 1_000));
    // A second past midnight, back over it, and a year back.
    let (kept, _) = spend(11 * DAY - 1);
    assert_eq!(kept, 10);
    assert_eq!(spend(10 * DAY - 1_000_000), (0, 1_000));
    assert_eq!(spend(-355 * DAY), (0, 1_000));
    assert_eq!(spend(-354 * DAY - 1), (0, 1_000));
    assert_eq!(spend(-353 * DAY - 1).0, 10, "the next day has its bytes");
}

#[test]
fn rare_kinds_are_those_that_hardly_came_and_another_version_begins_anew() {
    let policy = SamplingPolicy { random: 1, rare: policy().rare, ..SamplingPolicy::EVERYTHING };
    let mut sampler = sampler(1);
    let mut decide = |output: f32, version: u32| {
        let scored = Scored { version, ..scored(output) };
        let candidate = Candidate { scored: Some(scored), ..candidate("e", 0.0, 10) };
        sampler.decide(&policy, Micros(0), &candidate)
    };
    assert!(!decide(0.9, 1).remarkable, "nothing is known yet");
    for _ in 0..2_000 {
        assert!(!decide(0.1, 1).remarkable);
    }
    let rare = decide(0.9, 1);
    assert_eq!((rare.probability, rare.remarkable), (1.0, true));
    // Eleven in two thousand are more than 5 in a thousand.
    assert_eq!((0..20).filter(|_| decide(0.9, 1).remarkable).count(), 9);
    assert!(!decide(0.9, 2).remarkable);
    assert!(!decide(f32::NAN, 2).remarkable);
}

#[test]
fn the_fallback_is_neither_close_nor_rare() {
    let mut sampler = sampler(1);
    let fallback = Candidate { scored: None, ..candidate("e", 0.5, 10) };
    let sampled = sampler.decide(&policy(), Micros(0), &fallback);
    assert_eq!((sampled.probability, sampled.remarkable), (0.02, false));
}

#[test]
fn the_devices_own_limits_hold_against_the_hub() {
    let own = SamplingPolicy { random: 500_000, day_bytes: Some(100), ..SamplingPolicy::EVERYTHING };
    let alone = in_force(&own, 4_096, None);
    assert_eq!((alone.policy.random, alone.policy.outbox_bytes, alone.limited), (500_000, Some(4_096), false));
    let hub = SamplingPolicy {
        number: 3,
        random: 7,
        day_bytes: Some(1_000),
        keep_seconds: Some(60),
        outbox_bytes: Some(1 << 20),
        ..SamplingPolicy::EVERYTHING
    };
    let found = in_force(&own, 4_096, Some(&hub));
    let expected = SamplingPolicy { day_bytes: Some(100), outbox_bytes: Some(4_096), ..hub.clone() };
    assert_eq!(found, InForce { policy: expected, limited: true, problem: None });
    let narrower = SamplingPolicy { day_bytes: Some(10), outbox_bytes: None, ..hub.clone() };
    let found = in_force(&own, 4_096, Some(&narrower));
    assert_eq!((found.policy.day_bytes, found.policy.outbox_bytes, found.limited), (Some(10), Some(4_096), false));
    let bad = in_force(&own, 4_096, Some(&SamplingPolicy { random: 0, ..hub }));
    assert_eq!((bad.policy.number, bad.policy.random, bad.limited), (0, 500_000, false));
    assert!(bad.problem.unwrap().contains("`random` is 0"));
}

fn shares() -> impl Strategy<Value = SamplingPolicy> {
    let share = || 1..=WHOLE_PPM;
    let uncertain = prop::option::of((1..500_000u32, share()).prop_map(|(band, share)| Uncertain { band, share }));
    let rare = prop::option::of((1..500_000u32, share()).prop_map(|(at_most, share)| Rare { at_most, share }));
    (share(), uncertain, rare).prop_map(|(random, uncertain, rare)| SamplingPolicy {
        random,
        uncertain,
        rare,
        ..SamplingPolicy::EVERYTHING
    })
}

proptest! {
    /// Whatever comes when: over the budget by one record at most, and what is remembered is enough to go on alike.
    #[test]
    fn a_day_never_spends_more_than_its_bytes_and_one_record(
        budget in 1u64..20_000,
        events in prop::collection::vec((1u64..2_000, 0i64..7_200_000_000, 0.0f32..1.0), 1..400),
    ) {
        let policy = SamplingPolicy { day_bytes: Some(budget), ..policy() };
        let mut sampler = sampler(budget);
        let (mut now, mut day, mut spent) = (0, 0, 0);
        for (number, (bytes, pause, output)) in events.into_iter().enumerate() {
            now += pause;
            if now / DAY > day {
                (day, spent) = (now / DAY, 0);
            }
            let id = number.to_string();
            let memory = postcard::to_allocvec(sampler.memory()).unwrap();
            let sampled = sampler.decide(&policy, Micros(now), &candidate(&id, output, bytes));
            let mut again = Sampler::new(&device(budget), postcard::from_bytes(&memory).unwrap());
            prop_assert_eq!(again.decide(&policy, Micros(now), &candidate(&id, output, bytes)), sampled);
            prop_assert!((0.0..=1.0).contains(&sampled.probability));
            prop_assert_eq!(sampled.kept, coin(seed_of(&device(budget)), &id) < sampled.probability);
            if sampled.kept {
                prop_assert!(spent < budget, "{spent} of {budget} were spent");
                spent += bytes;
            }
        }
    }

    /// A policy that wants at least as much of everything keeps at least the same observations.
    #[test]
    fn whoever_wants_more_loses_nothing(
        policy in shares(), more in (0..WHOLE_PPM, 0..WHOLE_PPM, 0..WHOLE_PPM), seed in any::<u64>(),
    ) {
        let wider = SamplingPolicy {
            random: (policy.random + more.0).min(WHOLE_PPM),
            uncertain: policy.uncertain.map(|it| {
                Uncertain { band: it.band + more.1, share: (it.share + more.1).min(WHOLE_PPM) }
            }),
            rare: policy.rare.map(|it| Rare { share: (it.share + more.2).min(WHOLE_PPM), ..it }),
            ..policy.clone()
        };
        let (mut first, mut second) = (sampler(seed), sampler(seed));
        let mut chance = Chance::new(seed);
        for number in 0..1_500 {
            let (id, output) = (number.to_string(), output(&mut chance));
            let before = first.decide(&policy, Micros(0), &candidate(&id, output, 10));
            let after = second.decide(&wider, Micros(0), &candidate(&id, output, 10));
            prop_assert!(after.probability >= before.probability);
            prop_assert!(after.kept || !before.kept);
        }
    }
}
