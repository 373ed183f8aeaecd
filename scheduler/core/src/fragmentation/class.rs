//! Classes by number, and sets of them.

/// A class of GPUs; the caller numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassNumber(pub u16);

/// Classes that will do for a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassSet(u64);

impl ClassSet {
    /// Whichever there is.
    pub const ANY: Self = ClassSet(u64::MAX);
    /// None of them.
    pub const NONE: Self = ClassSet(0);

    /// Just this one. Past the 64th it is the empty set: its jobs then weigh on no node, which only makes the measure
    /// coarser.
    #[must_use]
    pub fn only(class: ClassNumber) -> Self {
        ClassSet(1_u64.checked_shl(u32::from(class.0)).unwrap_or(0))
    }

    /// This and that one.
    #[must_use]
    pub fn with(self, class: ClassNumber) -> Self {
        ClassSet(self.0 | ClassSet::only(class).0)
    }

    /// Whether that one will do.
    #[must_use]
    pub fn contains(self, class: ClassNumber) -> bool {
        self == ClassSet::ANY || self.0 & ClassSet::only(class).0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_past_the_last_is_only_in_the_set_of_all() {
        let (first, last, past) = (ClassNumber(0), ClassNumber(63), ClassNumber(64));
        let both = ClassSet::only(first).with(last);
        assert!(both.contains(first) && both.contains(last) && !both.contains(past));
        assert!(ClassSet::ANY.contains(past) && !ClassSet::only(past).contains(first));
    }
}
