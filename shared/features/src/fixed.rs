//! Fixed-point numbers: integers in units of 2^-20.
//!
//! Floating-point sums depend on the order of their terms; integer sums do not. A value keeps about six decimal
//! places; a sum is held in 128 bits and cannot overflow.

/// Units in 1.
pub const ONE: f64 = (1_u64 << 20) as f64;
/// The largest size of a value: 2^42, about 4.4 million million, so that it fits an `i64`.
pub const LIMIT: f64 = (1_u64 << 42) as f64;

/// The nearest fixed-point number; halves go away from zero. `value` is finite and within [`LIMIT`].
#[inline]
pub fn from_f64(value: f64) -> i64 {
    let scaled = value * ONE;
    (scaled + 0.5_f64.copysign(scaled)) as i64
}

/// The number that a fixed-point sum stands for.
#[inline]
pub fn to_f64(sum: i128) -> f64 {
    // Nearly every sum fits 64 bits, and converting those is one instruction.
    match i64::try_from(sum) {
        Ok(sum) => sum as f64 / ONE,
        Err(_) => sum as f64 / ONE,
    }
}
