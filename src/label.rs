//! Closed sets of values with names: kinds, results, reasons. No client can add to them, so they can be labels of metrics.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Declares such a set: the enum, all of it, and the name of each.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value),+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            #[allow(dead_code, reason = "not every set is gone through")]
            pub(crate) const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// Its name, in the log, in metrics and in answers.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text),+
                }
            }
        }

        impl $crate::label::Label for $name {
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use labels;

/// A value of such a set.
pub(crate) trait Label: Copy {
    /// Its place in the set, from 0.
    fn index(self) -> usize;
}

/// A counter for each value of a set of `N`, from the start of the process. They are relaxed, and only grow.
#[derive(Debug)]
pub(crate) struct Counts<L, const N: usize> {
    counts: [AtomicU64; N],
    set: PhantomData<fn(L)>,
}

impl<L, const N: usize> Default for Counts<L, N> {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; N], set: PhantomData }
    }
}

impl<L: Label, const N: usize> Counts<L, N> {
    /// One more of this value.
    pub(crate) fn add(&self, label: L) {
        self.add_many(label, 1);
    }

    /// So many more of it.
    pub(crate) fn add_many(&self, label: L, more: u64) {
        if let Some(count) = self.counts.get(label.index()) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// How many there were.
    pub(crate) fn get(&self, label: L) -> u64 {
        self.counts.get(label.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        /// Some.
        Colour {
            /// One.
            Red = "red",
            /// Another.
            Green = "green",
        }
    }

    #[test]
    fn each_value_is_counted_by_itself() {
        let counts = Counts::<Colour, { Colour::ALL.len() }>::default();
        for colour in [Colour::Green, Colour::Red, Colour::Green] {
            counts.add(colour);
        }
        assert_eq!(Colour::ALL.map(|colour| (colour.name(), counts.get(colour))), [("red", 1), ("green", 2)]);
    }
}
