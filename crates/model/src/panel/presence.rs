//! Which periods have rows.

/// Which periods a product has, one bit per period, `words_per_product` words of 64 bits per product.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// Words a product takes, `ceil(T / 64)`.
    pub words_per_product: usize,
    /// N * `words_per_product` words; bit `t % 64` of word `t / 64` says that period `t` is there.
    pub words: Vec<u64>,
}

impl Presence {
    /// The words of one product.
    pub fn product(&self, product: usize) -> &[u64] {
        &self.words[product * self.words_per_product..][..self.words_per_product]
    }

    /// The periods of one product, ascending.
    pub fn periods(&self, product: usize) -> impl Iterator<Item = usize> + '_ {
        let words = self.product(product).iter().enumerate();
        words.flat_map(|(at, word)| {
            let left = std::iter::successors(Some(*word), |word| Some(word & word.wrapping_sub(1)));
            left.take_while(|word| *word != 0)
                .map(move |word| 64 * at + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_those_of_the_bits() {
        let presence = Presence {
            words_per_product: 2,
            words: vec![0, 0, 1 << 63 | 5, 1 << 3, u64::MAX, 1],
        };
        let of = |product| presence.periods(product).collect::<Vec<_>>();
        assert_eq!(of(0), [0; 0]);
        assert_eq!(of(1), [0, 2, 63, 67]);
        assert_eq!(of(2), (0..65).collect::<Vec<_>>());
    }
}
