//! Other inputs made of one, by a seed: what a test can do on a compiler without a fuzzer's eyes.

/// Words that texts of people are made of; put in, they get further than single bytes do.
const WORDS: [&[u8]; 16] = [
    b"=",
    b"\"",
    b"\n",
    b"[",
    b"]",
    b"-",
    b":",
    b",",
    b"0",
    b"-1",
    b"18446744073709551615",
    b"\\",
    b"\xc3\xa9",
    b"\0",
    b"{",
    b"1e999",
];

/// Numbers by chance, the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        usize::try_from(drawn >> 33).unwrap_or(0).checked_rem(end).unwrap_or(0)
    }
}

/// The input with a few changes.
#[must_use]
pub fn mutated(input: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(4) {
        change(&mut bytes, chance);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.below(bytes.len());
    let until = (at + 1 + chance.below(16)).min(bytes.len());
    match chance.below(6) {
        0 => bytes.insert(at, chance.below(256) as u8),
        1 => drop(bytes.drain(at..until)),
        2 => {
            let again: Vec<u8> = bytes.get(at..until).unwrap_or_default().to_vec();
            let place = chance.below(bytes.len());
            bytes.splice(place..place, again);
        }
        3 => {
            let word = WORDS[chance.below(WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
        4 => bytes.truncate(at),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        }
    }
}
