//! Exact values. DO NOT EDIT: models in the field were trained on these bits, and the emulated node must give them too.

use tributary_signal::*;

/// A signal made of integers only, so that every platform has the same one.
fn samples() -> [i32; 512] {
    let mut state = 1_u32;
    core::array::from_fn(|n| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let saw = (n as i32 * 37) % 512 - 256;
        saw * 11 + (state >> 20) as i32 - 2048
    })
}

#[test]
fn the_features_of_a_known_window_are_these_bits() {
    let features = Analysis::<8>::even(512).unwrap().features(&mut samples());
    let mut inputs = Vec::new();
    features.inputs(|input| inputs.push(input));
    assert_eq!(format!("{features:?}"), FEATURES);
    assert_eq!(inputs, INPUTS);
    let overlapped = Analysis::<2>::new(64, [5, 32]).unwrap().features(&mut samples()[100..164]);
    assert_eq!(format!("{overlapped:?}"), SHORT);
}

const FEATURES: &str = "Features { moments: Moments { mean: 28531, rms: 525820, peak: 1194611, crest: 148891, kurtosis: 151682, crossings: 139 }, bands: [103866, 359076, 169565, 163068, 160233, 126268, 139921, 149131] }";
const INPUTS: [u16; 12] = [4865, 4399, 4405, 1822, 4266, 4724, 4447, 4432, 4426, 4338, 4376, 4399];
const SHORT: &str = "Features { moments: Moments { mean: -15356, rms: 489903, peak: 1091324, crest: 145990, kurtosis: 156011, crossings: 17 }, bands: [303873, 431964] }";
