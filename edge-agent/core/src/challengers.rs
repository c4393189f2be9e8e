//! Which package answers whom: challengers take their share of the predictions from the primary.
//!
//! The places of a line are 10 000. Whom a prediction is about (an entity, or the whole device where events have none)
//! hashes to one of them, always to the same. Every challenger holds as many places as its share says, so that the same
//! entity is answered by the same role as long as the shares stand, through restarts and on every device alike.

use tributary_wire::{EntityKey, LineName, Role};

use crate::chance;

/// Places of a line, and the unit of shares.
pub const PLACES: u16 = 10_000;

/// Nobody but the primary.
const FREE: u16 = u16::MAX;

/// Who answers in each place of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Challengers {
    roles: Vec<Role>,
    /// The role of every place by its number, or [`FREE`]; empty when there is no challenger at all.
    places: Vec<u16>,
}

impl Challengers {
    /// Gives out the places. A challenger begins at a place that follows from its name and takes the next free ones:
    /// when its share grows it keeps what it has, and takes places from others only where it runs into them.
    pub fn new(line: &LineName, shares: &[(Role, u16)]) -> Self {
        let mut shares: Vec<&(Role, u16)> = shares.iter().filter(|(_, share)| *share > 0).collect();
        shares.sort();
        if shares.is_empty() {
            return Self::default();
        }
        let mut places = vec![FREE; usize::from(PLACES)];
        let mut roles = Vec::with_capacity(shares.len());
        for (role, share) in shares {
            let begin = usize::from(place(line, role.as_str().as_bytes()));
            let around = (begin..places.len()).chain(0..begin);
            let free: Vec<usize> = around.filter(|at| places[*at] == FREE).take(usize::from(*share)).collect();
            free.into_iter().for_each(|at| places[at] = roles.len() as u16);
            roles.push(role.clone());
        }
        Self { roles, places }
    }

    /// Whether the primary answers everything.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    /// The challenger that answers in a place; `None`: the primary.
    pub fn at(&self, place: u16) -> Option<&Role> {
        self.roles.get(usize::from(*self.places.get(usize::from(place))?))
    }
}

/// The place of an entity. It never changes: experiments that run through an update of the agent go on with the same
/// entities.
pub fn place_of(line: &LineName, entity: &EntityKey) -> u16 {
    match entity {
        EntityKey::Int(number) => place(line, &number.to_le_bytes()),
        EntityKey::Text(text) => place(line, text.as_bytes()),
    }
}

/// The place of any name within a line, such as a device's.
pub fn place(line: &LineName, who: &[u8]) -> u16 {
    let hash = chance::spread(line.as_str().bytes().chain([0]).chain(who.iter().copied()));
    // The high half of a product spreads a hash over any range evenly.
    ((u128::from(hash) * u128::from(PLACES)) >> 64) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn line() -> LineName {
        LineName::new("card-fraud").unwrap()
    }

    fn role(name: &str) -> Role {
        Role::new(&format!("challenger-{name}")).unwrap()
    }

    fn shares(shares: &[(&str, u16)]) -> Challengers {
        let shares: Vec<_> = shares.iter().map(|(name, share)| (role(name), *share)).collect();
        Challengers::new(&line(), &shares)
    }

    fn held(challengers: &Challengers, name: &str) -> Vec<u16> {
        (0..PLACES).filter(|place| challengers.at(*place) == Some(&role(name))).collect()
    }

    #[test]
    fn entities_spread_evenly_over_all_places() {
        let mut counts = [0u32; 100];
        for card in 0..100_000 {
            let place = place_of(&line(), &EntityKey::Text(format!("card-{card}")));
            counts[usize::from(place / 100)] += 1;
        }
        // Chi-squared with 99 degrees of freedom: beyond 160 less than once in ten thousand.
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 1_000.0).powi(2) / 1_000.0).sum();
        assert!(chi < 160.0, "{chi}");
        let numbers: Vec<u16> = (0..100_000).map(|card| place_of(&line(), &EntityKey::Int(card))).collect();
        let low = numbers.iter().filter(|place| **place < 1_000).count();
        assert!((9_500..10_500).contains(&low), "{low} of 100000 in a tenth of the places");
    }

    #[test]
    fn a_place_never_changes_and_differs_between_lines() {
        // An experiment outlives the build that began it: these numbers are part of the product.
        let text = |card: &str| place_of(&line(), &EntityKey::Text(card.to_owned()));
        assert_eq!([text("card-1"), text("card-2"), place(&line(), b"edge-1")], [6450, 6929, 1688]);
        let other = LineName::new("other").unwrap();
        let same = (0..1_000).filter(|n| place(&line(), &[*n as u8, 7]) == place(&other, &[*n as u8, 7])).count();
        assert!(same < 10, "{same} of 1000");
    }

    #[test]
    fn without_shares_the_primary_answers_everything() {
        assert!(shares(&[]).is_empty());
        assert!(shares(&[("a", 0)]).is_empty());
        assert_eq!(shares(&[("a", 0)]).at(7), None);
        assert_eq!(held(&shares(&[("a", 10_000)]), "a").len(), 10_000);
    }

    #[test]
    fn a_share_that_grows_only_adds_entities_and_leaves_others_alone_where_it_can() {
        let before = shares(&[("a", 500), ("b", 500)]);
        let after = shares(&[("a", 500), ("b", 900)]);
        assert_eq!(held(&before, "a"), held(&after, "a"));
        let (small, large) = (held(&before, "b"), held(&after, "b"));
        assert!(small.iter().all(|place| large.contains(place)));
    }

    proptest! {
        #[test]
        fn every_challenger_holds_its_share_and_keeps_it_when_it_grows(
            sizes in proptest::collection::vec(0u16..2_500, 1..4), which in 0usize..4, more in 1u16..2_500,
        ) {
            let which = which % sizes.len();
            let list = |sizes: &[u16]| -> Vec<(Role, u16)> {
                sizes.iter().enumerate().map(|(n, share)| (role(&n.to_string()), *share)).collect()
            };
            let before = Challengers::new(&line(), &list(&sizes));
            let mut grown = sizes.clone();
            grown[which] += more;
            let mut shuffled = list(&grown);
            shuffled.reverse();
            let after = Challengers::new(&line(), &shuffled);
            for (n, share) in grown.iter().enumerate() {
                prop_assert_eq!(held(&after, &n.to_string()).len(), usize::from(*share));
            }
            let name = which.to_string();
            let kept = held(&after, &name);
            prop_assert!(held(&before, &name).iter().all(|place| kept.binary_search(place).is_ok()));
            // Nobody who is answered by another challenger is given to the primary, or to a third one.
            let moved = (0..PLACES).filter(|at| {
                let (before, after) = (before.at(*at), after.at(*at));
                before.is_some() && before != after && after != Some(&role(&name))
            });
            // Whoever gave way may have pushed on the next one, never by more than what was added.
            prop_assert!(moved.count() <= usize::from(more) * (sizes.len() - 1));
        }
    }
}
