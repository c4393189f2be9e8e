//! Logarithms: amplitudes of vibration span decades, and an int8 model sees only 8 bits.

/// log₂ of `x` in units of 2⁻⁸, rounded down; 0 for 0, as for 1.
pub fn log2(x: u32) -> u16 {
    if x == 0 {
        return 0;
    }
    let whole = x.ilog2();
    // The mantissa in [1, 2) with 31 fraction bits; squaring it doubles its logarithm, bit after bit.
    let mut mantissa = u64::from(x) << (31 - whole);
    let mut log = whole;
    for _ in 0..8 {
        mantissa = (mantissa * mantissa) >> 31;
        let carry = mantissa >> 32;
        log = log << 1 | carry as u32;
        mantissa >>= carry;
    }
    log as u16
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn it_is_the_logarithm_to_a_unit() {
        assert_eq!((log2(0), log2(1), log2(2), log2(u32::MAX)), (0, 0, 256, 8191));
        for x in (1..200_000).chain((1..20_000).map(|i| i * 214_013)) {
            let exact = f64::from(x).log2() * 256.0;
            let found = f64::from(log2(x));
            assert!(found <= exact + 1e-3 && exact - found < 1.01, "{x}: {found} for {exact}");
        }
    }
}
