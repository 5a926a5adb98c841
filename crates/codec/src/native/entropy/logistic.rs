//! Predictions, logits and weights, on integers (`docs/formats/native-delta.md`, sections 7.4.1 and 7.4.4).

/// A fresh prediction: one half, seen never (section 7.4.1).
pub(crate) const FRESH: u32 = 1 << 31;
/// Observations after which a prediction no longer adapts more slowly (section 7.4.1).
const LIMIT: u32 = 255;
/// First weights of the mixer, 16 fractional bits (section 7.4.4).
pub(crate) const WEIGHT: i32 = 20_000;

/// `65536 / (1 + exp(-x / 256))` for x = -2048, -1920, ..., 2048 (section 7.4.1).
const LOGISTIC: [i32; 33] = [
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793,
    47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
];

/// Probability out of 65536 for a logit in 256ths.
#[inline]
pub(crate) fn squash(x: i32) -> i32 {
    let x = x.clamp(-2047, 2047) + 2048;
    let (i, part) = ((x >> 7) as usize, x & 127);
    (LOGISTIC[i] * (128 - part) + LOGISTIC[i + 1] * part) >> 7
}

/// Logits by probability out of 4096: the inverse of [`squash`].
pub(crate) fn stretch_table() -> Vec<i16> {
    let mut table = vec![0; 4096];
    let mut from = 0;
    for x in -2047..=2047 {
        let to = (squash(x) >> 4) as usize;
        for entry in &mut table[from.min(to + 1)..=to] {
            *entry = x as i16;
        }
        from = from.max(to + 1);
    }
    for entry in &mut table[from..] {
        *entry = 2047;
    }
    table
}

/// How fast predictions learn, by number of observations: 65536 / (n + 1.5) (section 7.4.1).
pub(crate) fn rates() -> Vec<u32> {
    (0..=LIMIT).map(|n| (2 << 16) / (2 * n + 3)).collect()
}

/// The logit of a prediction.
#[inline]
pub(crate) fn stretch(table: &[i16], prediction: u32) -> i32 {
    i32::from(table[(prediction >> 20) as usize])
}

/// The sum of inputs times weights (section 7.4.4).
#[inline]
pub(crate) fn dot<const N: usize>(inputs: &[i32; N], weights: &[i32; N]) -> i32 {
    let sum: i64 = inputs.iter().zip(weights).map(|(&x, &w)| i64::from(x) * i64::from(w)).sum();
    (sum >> 16).clamp(-2047, 2047) as i32
}

/// Lets weights learn a bit.
#[inline]
pub(crate) fn train<const N: usize>(weights: &mut [i32; N], inputs: &[i32; N], output: i32, bit: u32) {
    let error = ((bit as i32) << 16) - squash(output);
    for (w, &x) in weights.iter_mut().zip(inputs) {
        *w = (*w + ((x * (error >> 2) + (1 << 14)) >> 15)).clamp(-(1 << 20), 1 << 20);
    }
}

/// Moves a prediction (22 bits, then 10 bits of count) towards a bit.
#[inline]
pub(crate) fn adapt(slot: &mut u32, bit: u32, rate: &[u32]) {
    let (p, n) = (*slot >> 10, *slot & 1023);
    let target = if bit == 1 { (1 << 22) - 1 } else { 0 };
    let step = ((target - i64::from(p)) * i64::from(rate[n as usize])) >> 16;
    *slot = ((i64::from(p) + step) as u32) << 10 | (n + 1).min(LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretch_is_the_inverse_of_squash() {
        let table = stretch_table();
        assert!(table.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!((table[0], table[2048], table[4095]), (-2047, 0, 2047));
        // Farther out a step of the table covers many logits.
        for x in (-1200i32..1200).step_by(7) {
            let back = i32::from(table[(squash(x) >> 4) as usize]);
            assert!((back - x).abs() < 60, "{x} came back as {back}");
        }
    }
}
