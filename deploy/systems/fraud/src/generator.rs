//! Payments day by day: customers with habits, terminals within reach, and thieves.
//!
//! | scenario | what happens |
//! |---|---|
//! | 1 | a payment over 220 is a fraud |
//! | 2 | a terminal is compromised: for 28 days most payments there are frauds |
//! | 3 | a card's details are stolen: for 14 days a third of the payments are five times as high, and frauds |
//! | 4 | after the change, instead of 2 and 3: a stolen card is used for many ordinary payments a night, anywhere |

use serde::{Deserialize, Serialize};
use tributary_features::Micros;

use crate::chance::Chance;
use crate::transaction::Transaction;

/// What the generator makes; the defaults suit the demo: about 600 payments a day, 2 % frauds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Decides everything.
    pub seed: u64,
    /// How many customers.
    pub customers: usize,
    /// How many terminals.
    pub terminals: usize,
    /// First midnight, UTC.
    pub start: Micros,
    /// How many days.
    pub days: u32,
    /// From this day on (0 is the first) frauds follow another pattern.
    pub change_day: Option<u32>,
    /// How many days after a payment its label becomes known.
    pub label_delay_days: u32,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            customers: 300,
            terminals: 100,
            // 2026-01-05, a Monday.
            start: Micros(1_767_571_200_000_000),
            days: 90,
            change_day: None,
            label_delay_days: 7,
        }
    }
}

impl GeneratorConfig {
    /// Microseconds after a payment at which its label becomes known.
    pub fn label_delay(&self) -> i64 {
        i64::from(self.label_delay_days) * Micros::DAY
    }
}

/// Side of the square on which customers and terminals lie.
const SIDE: f64 = 100.0;
/// How many terminals a customer has within reach on average.
const WITHIN_REACH: f64 = 12.0;

/// Share of terminals that become compromised on a day.
const COMPROMISED_TERMINALS: f64 = 0.0002;
const COMPROMISED_DAYS: u32 = 28;
/// Share of customers whose card details are stolen on a day, and for how long.
const STOLEN_CARDS: f64 = 0.0035;
const STOLEN_DAYS: u32 = 14;
/// The same for scenario 4.
const STOLEN_CARDS_AFTER: f64 = 0.0035;
const STOLEN_DAYS_AFTER: u32 = 5;
/// How many payments a thief makes a night in scenario 4.
const PAYMENTS_A_NIGHT: f64 = 7.0;

/// Days before the first on which thieves were at work already: frauds are as frequent on the first day as later.
const DAYS_BEFORE: u32 = COMPROMISED_DAYS;

/// Streams of chance, apart from each other: what one draws does not move what another draws.
#[derive(Clone, Copy)]
enum Stream {
    Customer = 1,
    Terminal,
    Habit,
    Compromise,
    Theft,
    ThiefNight,
}

struct Customer {
    x: f64,
    y: f64,
    amount_mean: f64,
    payments_a_day: f64,
    /// Places of terminals within reach.
    terminals: Vec<usize>,
}

/// Payments in time order, day by day; holds one day at a time.
///
/// Every day of every customer has its own stream of chance: two configurations that differ only in `change_day` give
/// the same payments up to that day.
pub struct Generator {
    config: GeneratorConfig,
    customers: Vec<Customer>,
    /// Until which day each terminal is compromised.
    compromised: Vec<u32>,
    /// Until which day each card is in the hands of a thief.
    stolen: Vec<u32>,
    stolen_after: Vec<u32>,
    /// Counts from [`DAYS_BEFORE`] days before the first.
    day: u32,
    next_id: i64,
    today: std::vec::IntoIter<Transaction>,
}

impl Generator {
    /// Draws customers and terminals; the same configuration always gives the same payments.
    pub fn new(config: GeneratorConfig) -> Self {
        let place = |stream: Stream, number: usize| Chance::new(&[config.seed, stream as u64, number as u64]);
        let terminals: Vec<_> = (0..config.terminals)
            .map(|number| {
                let mut chance = place(Stream::Terminal, number);
                (chance.between(0.0, SIDE), chance.between(0.0, SIDE))
            })
            .collect();
        let customers = (0..config.customers).map(|number| {
            let mut chance = place(Stream::Customer, number);
            let mut customer = Customer {
                x: chance.between(0.0, SIDE),
                y: chance.between(0.0, SIDE),
                amount_mean: chance.between(5.0, 100.0),
                payments_a_day: chance.between(0.0, 4.0),
                terminals: Vec::new(),
            };
            customer.terminals = within_reach(&customer, &terminals);
            customer
        });
        let customers = customers.collect();
        let (compromised, stolen) = (vec![0; config.terminals], vec![0; config.customers]);
        let stolen_after = stolen.clone();
        let today = Vec::new().into_iter();
        let mut generator = Self { config, customers, compromised, stolen, stolen_after, day: 0, next_id: 0, today };
        for _ in 0..DAYS_BEFORE {
            generator.fall_to_thieves();
            generator.day += 1;
        }
        generator
    }

    /// What it was made from.
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    fn chance(&self, stream: Stream, number: usize) -> Chance {
        Chance::new(&[self.config.seed, stream as u64, u64::from(self.day), number as u64])
    }

    fn has_changed(&self) -> bool {
        self.config.change_day.is_some_and(|change| self.day >= DAYS_BEFORE.saturating_add(change))
    }

    /// Decides which terminals and cards fall to thieves today.
    fn fall_to_thieves(&mut self) {
        let day = self.day;
        let changed = self.has_changed();
        for terminal in 0..self.compromised.len() {
            let falls = self.chance(Stream::Compromise, terminal).unit() < COMPROMISED_TERMINALS;
            if changed {
                self.compromised[terminal] = 0;
            } else if falls && self.compromised[terminal] <= day {
                self.compromised[terminal] = day + COMPROMISED_DAYS;
            }
        }
        for customer in 0..self.stolen.len() {
            let draw = self.chance(Stream::Theft, customer).unit();
            if changed {
                self.stolen[customer] = 0;
                if draw < STOLEN_CARDS_AFTER && self.stolen_after[customer] <= day {
                    self.stolen_after[customer] = day + STOLEN_DAYS_AFTER;
                }
            } else if draw < STOLEN_CARDS && self.stolen[customer] <= day {
                self.stolen[customer] = day + STOLEN_DAYS;
            }
        }
    }

    fn make_day(&mut self) {
        self.fall_to_thieves();
        let mut payments = Vec::new();
        for number in 0..self.customers.len() {
            self.pay(number, &mut payments);
            if self.stolen_after[number] > self.day {
                self.steal_at_night(number, &mut payments);
            }
        }
        payments.sort_by_key(|payment| (payment.time, payment.customer_id));
        for payment in &mut payments {
            payment.id = self.next_id;
            self.next_id += 1;
        }
        self.today = payments.into_iter();
        self.day += 1;
    }

    /// A customer's own day, with what thieves make of it.
    fn pay(&self, number: usize, payments: &mut Vec<Transaction>) {
        let customer = &self.customers[number];
        let mut chance = self.chance(Stream::Habit, number);
        if customer.terminals.is_empty() {
            return;
        }
        for _ in 0..chance.count(customer.payments_a_day) {
            // Around noon; what would fall on another day is drawn again.
            let seconds = loop {
                let seconds = 43_200.0 + 20_000.0 * chance.normal();
                if (0.0..86_400.0).contains(&seconds) {
                    break seconds;
                }
            };
            let drawn = customer.amount_mean * (1.0 + 0.5 * chance.normal());
            let other = chance.between(0.0, 2.0 * customer.amount_mean);
            let mut amount = if drawn > 0.0 { drawn } else { other };
            let terminal = customer.terminals[chance.index(customer.terminals.len())];
            // Drawn for every payment, so that a theft does not move what follows.
            let (thief, skims) = (chance.unit(), chance.unit());
            let mut scenario = 0;
            if self.compromised[terminal] > self.day && skims < 0.9 {
                scenario = 2;
            }
            if self.stolen[number] > self.day && thief < 1.0 / 3.0 {
                amount *= 5.0;
                scenario = 3;
            }
            if amount > 220.0 && scenario == 0 {
                scenario = 1;
            }
            payments.push(self.payment(number, terminal, seconds, amount, scenario));
        }
    }

    /// Scenario 4: a thief uses a card at night, wherever there is a terminal, with amounts like the customer's own.
    fn steal_at_night(&self, number: usize, payments: &mut Vec<Transaction>) {
        let mut chance = self.chance(Stream::ThiefNight, number);
        if self.config.terminals == 0 {
            return;
        }
        for _ in 0..chance.count(PAYMENTS_A_NIGHT) {
            let seconds = chance.between(0.0, 5.5 * 3_600.0);
            let amount = self.customers[number].amount_mean * chance.between(0.4, 1.6);
            let terminal = chance.index(self.config.terminals);
            payments.push(self.payment(number, terminal, seconds, amount, 4));
        }
    }

    fn payment(&self, customer: usize, terminal: usize, seconds: f64, amount: f64, scenario: u8) -> Transaction {
        let midnight = self.config.start.0 + i64::from(self.day - DAYS_BEFORE) * Micros::DAY;
        Transaction {
            id: 0,
            time: Micros(midnight + seconds as i64 * Micros::SECOND),
            customer_id: customer as i64,
            terminal_id: terminal as i64,
            // Whole cents, so that every reader and writer of text agrees on the number.
            amount: (amount * 100.0).round().max(1.0) / 100.0,
            fraud: scenario > 0,
            scenario,
        }
    }
}

fn within_reach(customer: &Customer, terminals: &[(f64, f64)]) -> Vec<usize> {
    // The circle that holds WITHIN_REACH of them when they are spread evenly.
    let square = SIDE * SIDE * WITHIN_REACH / (terminals.len().max(1) as f64 * std::f64::consts::PI);
    let distance = |(x, y): (f64, f64)| (x - customer.x) * (x - customer.x) + (y - customer.y) * (y - customer.y);
    let near: Vec<_> = (0..terminals.len()).filter(|at| distance(terminals[*at]) < square).collect();
    if !near.is_empty() {
        return near;
    }
    // A lonely customer goes to the nearest.
    let nearest = (0..terminals.len()).min_by(|a, b| distance(terminals[*a]).total_cmp(&distance(terminals[*b])));
    nearest.into_iter().collect()
}

impl Iterator for Generator {
    type Item = Transaction;

    fn next(&mut self) -> Option<Transaction> {
        loop {
            if let Some(payment) = self.today.next() {
                return Some(payment);
            }
            if self.day - DAYS_BEFORE >= self.config.days {
                return None;
            }
            self.make_day();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GeneratorConfig {
        GeneratorConfig { days: 40, ..GeneratorConfig::default() }
    }

    #[test]
    fn a_seed_decides_everything_and_a_change_only_what_comes_after_it() {
        let payments: Vec<_> = Generator::new(config()).collect();
        assert_eq!(payments, Generator::new(config()).collect::<Vec<_>>());
        assert_ne!(payments, Generator::new(GeneratorConfig { seed: 2, ..config() }).collect::<Vec<_>>());
        let changed: Vec<_> = Generator::new(GeneratorConfig { change_day: Some(25), ..config() }).collect();
        let change = Micros(config().start.0 + 25 * Micros::DAY);
        let before = |payments: &[Transaction]| payments.partition_point(|payment| payment.time < change);
        assert_eq!(payments[..before(&payments)], changed[..before(&changed)]);
        assert!(changed[before(&changed)..].iter().all(|payment| matches!(payment.scenario, 0 | 1 | 4)));
    }

    #[test]
    fn the_defaults_give_the_stream_that_the_demo_needs() {
        let config = GeneratorConfig { days: 60, ..config() };
        for seed in 1..4 {
            let payments: Vec<_> = Generator::new(GeneratorConfig { seed, ..config.clone() }).collect();
            assert!(payments.is_sorted_by_key(|payment| payment.time));
            assert!(payments.iter().enumerate().all(|(at, payment)| payment.id == at as i64));
            let a_day = payments.len() / 60;
            assert!((500..700).contains(&a_day), "{a_day} payments a day");
            let share = payments.iter().filter(|payment| payment.fraud).count() as f64 / payments.len() as f64;
            assert!((0.01..0.03).contains(&share), "{share} are frauds");
            assert!(payments.iter().all(|payment| payment.fraud == (payment.scenario > 0) && payment.amount > 0.0));
        }
    }

    #[test]
    fn an_empty_world_makes_no_payments() {
        for (customers, terminals) in [(0, 5), (5, 0)] {
            assert_eq!(Generator::new(GeneratorConfig { customers, terminals, ..config() }).count(), 0);
        }
    }
}
