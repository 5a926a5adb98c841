//! Headers that come with contents: behind each content of eStargz stand the headers up to the next one, in the same
//! member.

/// Predictions that may be wrong before there was a right one, and beyond the number of right ones.
const PATIENCE: usize = 8;
/// Bytes between two contents that come with one of them, and those beyond what was predicted, of all of them.
pub(super) const MAX_SURPLUS: u64 = 4 << 20;
const MAX_SURPLUS_OF_ALL: u64 = 16 << 20;

/// How predictions have fared.
#[derive(Debug, Default)]
pub(super) struct Tails {
    right: usize,
    wrong: usize,
    surplus: u64,
}

impl Tails {
    /// Notes what was predicted and what stands there. False if so much was wrong that what does not come with contents
    /// will be wrong as well.
    pub(super) fn note(&mut self, predicted: &[u8], actual: &[u8]) -> bool {
        if predicted == actual {
            self.right += 1;
        } else {
            self.wrong += 1;
            self.surplus += (actual.len() as u64).saturating_sub(predicted.len() as u64);
        }
        self.wrong <= self.right + PATIENCE && self.surplus <= MAX_SURPLUS_OF_ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_may_be_wrong() {
        let mut tails = Tails::default();
        assert!((0..PATIENCE).all(|_| tails.note(b"a", b"b")));
        assert!(tails.note(b"a", b"a") && tails.note(b"a", b"c"));
        assert!(!tails.note(b"a", b"c"));
        let mut tails = Tails::default();
        assert!((0..99).all(|_| tails.note(b"a", b"a")));
        assert!(tails.note(b"", &vec![1; MAX_SURPLUS_OF_ALL as usize]));
        assert!(!tails.note(b"", b"1"));
    }
}
