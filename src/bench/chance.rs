//! Chance that a test can repeat: for the order of the sides, the mix and the resampling, not for secrets.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, and without, `end`; 0 if that is 0. By multiplication, whose bias is below 2^-32 for
    /// everything that is counted here.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        // The high half of a product of two 64-bit numbers has 64 bits.
        (wide >> 64) as u64
    }

    /// An index into something that long.
    pub fn index(&mut self, length: usize) -> usize {
        // It is below a usize, so it is one.
        self.below(length as u64) as usize
    }

    /// One of two.
    pub fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }
}
