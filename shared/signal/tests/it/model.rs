//! The int8 model against the same network in 32-bit floating point.

use proptest::prelude::*;
use tributary_signal::*;

/// A model whose output is its hidden number, `gain` times its input; one input.
fn tiny(center: i16, scale: u16, weights: [i8; 2], shift: u8) -> Vec<u8> {
    let mut bytes = b"TSM1\x01\x01".to_vec();
    bytes.extend(25_u32.to_le_bytes());
    bytes.extend(center.to_le_bytes());
    bytes.extend(scale.to_le_bytes());
    for weight in weights {
        // 2³⁰ of 2³¹: a half, and twice that by the weight of 64 and a shift of 5.
        bytes.extend((1_i32 << 30).to_le_bytes());
        bytes.push(shift);
        bytes.extend(0_i32.to_le_bytes());
        bytes.push(weight as u8);
    }
    bytes
}

#[test]
fn a_model_that_gives_back_what_it_sees_scores_nothing() {
    let bytes = tiny(512, 4096, [64, 64], 5);
    let model = Model::read(&bytes, 1).unwrap();
    assert_eq!((model.threshold(), model.inputs()), (25, 1));
    for input in 512..=639 {
        assert_eq!(model.score(&[input]), 0, "{input}");
    }
    // Below its center the hidden number is cut to 0, so the whole distance counts.
    assert_eq!(model.score(&[502]), 100);
    // Far away the input is cut to what 8 bits hold.
    assert_eq!(model.score(&[0]), 128 * 128);
    assert_eq!(model.score(&[u16::MAX]), 0);
}

#[test]
fn bytes_that_are_no_model_are_refused_with_the_reason() {
    let bytes = tiny(0, 1, [1, 1], 0);
    for length in 0..bytes.len() {
        assert!(Model::read(&bytes[..length], 1).is_err(), "cut at {length}");
    }
    let read = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        Model::read(&bytes, 1).unwrap_err()
    };
    assert_eq!(read(|bytes| bytes[0] = b'X'), WrongModel::Magic);
    assert_eq!(read(|bytes| bytes[5] = 33), WrongModel::Width { inputs: 1, hidden: 33 });
    assert_eq!(read(|bytes| bytes.push(0)), WrongModel::Length { found: 35, expected: 34 });
    assert_eq!(read(|bytes| bytes[18] = 32), WrongModel::Rescale { multiplier: 1 << 30, shift: 32 });
    assert_eq!(Model::read(&bytes, 2).unwrap_err(), WrongModel::Inputs { found: 1, expected: 2 });
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_score(mut bytes in proptest::collection::vec(any::<u8>(), 10..300), inputs in 1_u8..8, hidden in 1_u8..8, input: [u16; 8]) {
        bytes[..6].copy_from_slice(&[b'T', b'S', b'M', b'1', inputs, hidden]);
        let (i, h) = (usize::from(inputs), usize::from(hidden));
        bytes.resize(10 + 4 * i + 10 + 4 * (h + i) + 2 * h * i, 1);
        if let Ok(model) = Model::read(&bytes, i) {
            prop_assert!(model.score(&input) <= 255 * 255 * 8);
        }
    }

    #[test]
    fn a_score_is_that_of_floating_point(
        weights in proptest::collection::vec(any::<i8>(), 2 * 3 * 5),
        input in proptest::array::uniform5(0_u16..4096),
        multipliers in (1_i32 << 24..1 << 30, 1_i32 << 24..1 << 30),
    ) {
        let (mut bytes, centers, scale) = (b"TSM1\x05\x03\0\0\0\0".to_vec(), [2000_i16, 1900, 2100, 2050, 1950], 240_u16);
        bytes.extend(centers.iter().flat_map(|center| center.to_le_bytes()));
        bytes.extend([scale; 5].iter().flat_map(|scale| scale.to_le_bytes()));
        for (multiplier, width, rows) in [(multipliers.0, 3, &weights[..15]), (multipliers.1, 5, &weights[15..])] {
            bytes.extend(multiplier.to_le_bytes());
            bytes.push(1);
            bytes.extend((0..width).flat_map(|bias: i32| (bias * 1000 - 2000).to_le_bytes()));
            bytes.extend(rows.iter().map(|weight| *weight as u8));
        }
        let found = Model::read(&bytes, 5).unwrap().score(&input);

        let limit = |x: f32| x.clamp(-128.0, 127.0);
        let shown: Vec<f32> = input.iter().zip(centers)
            .map(|(&input, center)| limit((f32::from(input) - f32::from(center)) * f32::from(scale) / 4096.0)).collect();
        let layer = |inputs: &[f32], rows: &[i8], multiplier: i32| -> Vec<f32> {
            let factor = multiplier as f32 / 2_f32.powi(32);
            rows.chunks(inputs.len()).enumerate().map(|(row, weights)| {
                let sum: f32 = weights.iter().zip(inputs).map(|(&weight, input)| f32::from(weight) * input).sum();
                limit((sum + row as f32 * 1000.0 - 2000.0) * factor)
            }).collect()
        };
        let hidden: Vec<f32> = layer(&shown, &weights[..15], multipliers.0).iter().map(|x| x.max(0.0)).collect();
        let given = layer(&hidden, &weights[15..], multipliers.1);
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        // Each rounding to int8 moves a number by at most a half; hidden ones pass through weights up to 127.
        let factor = multipliers.1 as f32 / 2_f32.powi(32);
        let moved = 5_f32.sqrt() * (1.0 + 0.6 + factor * 128.0 * 3.0 * (0.6 + multipliers.0 as f32 / 2_f32.powi(32) * 128.0 * 5.0 * 0.5));
        let expected = distance(&shown, &given);
        prop_assert!(((found as f32).sqrt() - expected).abs() <= moved, "{found} is not {expected}² ± {moved}");
    }
}
