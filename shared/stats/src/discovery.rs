//! Many tests at once.

/// Which of many tests to believe so that, on average, at most a share `q` of the believed ones are false
/// (Benjamini and Hochberg 1995). The answer is in the order of `p_values`; a p-value that is not a number is never
/// believed, but counts as a test.
pub fn benjamini_hochberg(p_values: &[f64], q: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).filter(|i| !p_values[*i].is_nan()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let tests = p_values.len() as f64;
    let believed = order.iter().enumerate().rev().find(|(rank, i)| p_values[**i] <= q * (*rank + 1) as f64 / tests);
    let mut answer = vec![false; p_values.len()];
    if let Some((last, _)) = believed {
        order[..=last].iter().for_each(|i| answer[*i] = true);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn the_published_example_is_reproduced() {
        // Benjamini and Hochberg (1995), section 3.2: at q = 0.05 the first four of fifteen are believed.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0000,
        ];
        assert_eq!(benjamini_hochberg(&p, 0.05).iter().filter(|believed| **believed).count(), 4);
        assert!(benjamini_hochberg(&[], 0.05).is_empty());
        assert_eq!(benjamini_hochberg(&[f64::NAN, 0.001], 0.05), [false, true]);
    }

    #[test]
    fn without_change_any_of_fifty_is_believed_no_more_often_than_stated() {
        let mut rng = SmallRng::seed_from_u64(11);
        let rounds = 4_000;
        let alarms = (0..rounds)
            .filter(|_| {
                let p: Vec<f64> = (0..50).map(|_| rng.random()).collect();
                benjamini_hochberg(&p, 0.05).contains(&true)
            })
            .count();
        let rate = alarms as f64 / f64::from(rounds);
        assert!((rate - 0.05).abs() < 0.014, "{rate}");
    }
}
