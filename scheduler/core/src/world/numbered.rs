//! Small numbers for what many things have in common, so that it is compared once and looked up by place from then on.

use std::collections::BTreeMap;

/// Numbers of keys, each for as long as it is used; a number that is free is given again.
#[derive(Debug, Clone)]
pub(super) struct Numbered<K> {
    known: BTreeMap<K, u32>,
    table: Vec<Option<Used<K>>>,
    free: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Used<K> {
    key: K,
    times: u32,
}

impl<K> Default for Numbered<K> {
    fn default() -> Self {
        Numbered { known: BTreeMap::new(), table: Vec::new(), free: Vec::new() }
    }
}

impl<K: Ord + Clone> Numbered<K> {
    /// The number of the key, which is used once more from now on.
    pub fn enter(&mut self, key: &K) -> u32 {
        if let Some(number) = self.known.get(key) {
            if let Some(used) = self.table.get_mut(*number as usize).and_then(Option::as_mut) {
                used.times += 1;
            }
            return *number;
        }
        let used = Some(Used { key: key.clone(), times: 1 });
        let number = match self.free.pop() {
            Some(number) => {
                self.table[number as usize] = used;
                number
            }
            None => {
                self.table.push(used);
                u32::try_from(self.table.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.known.insert(key.clone(), number);
        number
    }

    /// Takes back one use of the number.
    pub fn leave(&mut self, number: u32) {
        let Some(place) = self.table.get_mut(number as usize) else { return };
        if let Some(used) = place.as_mut().filter(|used| used.times > 1) {
            used.times -= 1;
        } else if let Some(used) = place.take() {
            self.known.remove(&used.key);
            self.free.push(number);
        }
    }

    /// The key of a number.
    pub fn get(&self, number: u32) -> Option<&K> {
        Some(&self.table.get(number as usize)?.as_ref()?.key)
    }

    /// Every number in use with its key, in the order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &K)> {
        let numbers = 0..u32::MAX;
        numbers.zip(&self.table).filter_map(|(number, used)| Some((number, &used.as_ref()?.key)))
    }

    /// One more than the largest number in use.
    pub fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Numbered;

    #[test]
    fn a_number_is_given_again_once_nobody_uses_it() {
        let mut numbered = Numbered::default();
        assert_eq!([numbered.enter(&"a"), numbered.enter(&"b"), numbered.enter(&"a")], [0, 1, 0]);
        numbered.leave(0);
        assert_eq!(numbered.enter(&"c"), 2, "a is still used");
        numbered.leave(0);
        assert_eq!([numbered.enter(&"d"), numbered.enter(&"a")], [0, 3]);
        assert_eq!(numbered.len(), 4);
    }
}
