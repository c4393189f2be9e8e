//! Graphs that are undefined outside of a domain.

use tributary_inference::onnx::{Graph, GraphError};
use tributary_inference::quantize::{Options, to_qdq};
use tributary_inference::{check_golden, load_served};

use crate::fixture::{WIDTH, by_engine, network, package, random, values};

#[test]
fn rows_above_the_limit_give_no_number_and_all_others_exactly_what_they_gave() {
    let rows = values(&mut random(11), 150 * WIDTH, 3.0);
    let graph = network(4, WIDTH, 8);
    let int8 = to_qdq(&graph, &rows, 150, &Options::default()).unwrap();
    for graph in [graph, int8] {
        let before = by_engine(&graph, &rows, 150);
        let mut limited = graph.clone();
        limited.limit_domain(2, 1.25).unwrap();
        limited = Graph::from_bytes(&limited.to_bytes().unwrap()).unwrap();
        let plain = limited.evaluate(&rows, 150).unwrap();
        let after = by_engine(&limited, &rows, 150);
        let mut outside = 0;
        for (place, row) in rows.chunks(WIDTH).enumerate() {
            if row[2] > 1.25 {
                assert!(after[place].is_nan() && plain[place].is_nan(), "row {place}");
                outside += 1;
            } else {
                assert_eq!(after[place], before[place], "row {place}");
            }
        }
        assert!((1..150).contains(&outside));
    }
}

#[test]
fn golden_cases_inside_the_domain_still_pass_and_one_outside_does_not() {
    let mut rows = values(&mut random(12), 20 * WIDTH, 1.0);
    let graph = network(4, WIDTH, 8);
    let mut limited = graph.clone();
    limited.limit_domain(0, 1.0).unwrap();
    let with_golden = |rows: &[f32]| {
        let mut package = package(&graph, rows);
        package.graphs[0].onnx = limited.to_bytes().unwrap();
        let package = tributary_release::Package::read(&package.write().unwrap()).unwrap();
        check_golden(&*load_served(&package).unwrap(), &package)
    };
    assert!(with_golden(&rows).is_ok());
    rows[0] = 1.5;
    assert!(with_golden(&rows).is_err());
}

#[test]
fn the_limit_itself_is_inside_and_two_limits_both_hold() {
    let mut graph = network(4, WIDTH, 8);
    graph.limit_domain(0, 1.0).unwrap();
    graph.limit_domain(1, 2.0).unwrap();
    let rows = [1.0, 2.0, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 2.5, 0.0, 0.0];
    let out = by_engine(&graph, &rows, 3);
    assert_eq!(out.iter().map(|value| value.is_nan()).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn a_feature_that_is_not_there_is_refused() {
    let mut graph = network(4, WIDTH, 8);
    assert_eq!(graph.limit_domain(WIDTH, 1.0), Err(GraphError::Feature { feature: WIDTH, width: WIDTH }));
}
