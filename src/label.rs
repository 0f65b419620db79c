//! Closed sets of values with names: kinds, results, reasons. No client can add to them, so they can be labels of metrics.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Minutes that [`HourCounts`] tell of.
const HOUR: u32 = 60;

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

/// The same of the last hour, to the minute. A flood adds to it without a lock.
#[derive(Debug)]
pub(crate) struct HourCounts<L, const N: usize> {
    begun: Instant,
    /// Of each minute and value: the minute that was counted there last, and below it in the same word how many there were.
    minutes: [[AtomicU64; N]; HOUR as usize],
    set: PhantomData<fn(L)>,
}

impl<L, const N: usize> Default for HourCounts<L, N> {
    fn default() -> Self {
        let minutes = [const { [const { AtomicU64::new(0) }; N] }; HOUR as usize];
        Self { begun: Instant::now(), minutes, set: PhantomData }
    }
}

impl<L: Label, const N: usize> HourCounts<L, N> {
    /// One more of this value.
    pub(crate) fn add(&self, label: L) {
        self.add_at(self.minute(), label);
    }

    /// How many there were.
    pub(crate) fn get(&self, label: L) -> u64 {
        self.get_at(self.minute(), label)
    }

    /// The number of this minute.
    pub(crate) fn minute(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_secs() / 60).unwrap_or(u32::MAX)
    }

    /// [`Self::add`] in this minute.
    pub(crate) fn add_at(&self, minute: u32, label: L) {
        let Some(count) = self.minutes.get((minute % HOUR) as usize).and_then(|counts| counts.get(label.index()))
        else {
            return;
        };
        let one_more = |word| {
            let (last, count) = split(word);
            let count = if last == minute { count.saturating_add(1) } else { 1 };
            Some(u64::from(minute) << 32 | u64::from(count))
        };
        let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    /// [`Self::get`] in this minute.
    pub(crate) fn get_at(&self, minute: u32, label: L) -> u64 {
        let words = self.minutes.iter().filter_map(|counts| counts.get(label.index()));
        let counts = words.map(|word| split(word.load(Ordering::Relaxed)));
        counts.filter(|(last, _)| minute.saturating_sub(*last) < HOUR).map(|(_, count)| u64::from(count)).sum()
    }
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
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

    #[test]
    fn an_hour_is_counted_and_what_is_older_is_forgotten() {
        let hour = HourCounts::<Colour, { Colour::ALL.len() }>::default();
        assert_eq!(hour.get_at(0, Colour::Red), 0);
        for (minute, times) in [(0, 3), (59, 2), (60, 1)] {
            (0..times).for_each(|_| hour.add_at(minute, Colour::Red));
        }
        assert_eq!([60, 118, 119, 120].map(|minute| hour.get_at(minute, Colour::Red)), [3, 3, 1, 0]);
        assert_eq!(hour.get_at(60, Colour::Green), 0);
        hour.add(Colour::Green);
        assert_eq!(hour.get(Colour::Green), 1);
    }

    #[test]
    fn some_of_what_came_at_once_at_the_begin_of_a_minute_were_lost() {
        let hour = HourCounts::<Colour, { Colour::ALL.len() }>::default();
        for minute in 0..200 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..50).for_each(|_| hour.add_at(minute, Colour::Red)));
                }
            });
            assert_eq!(hour.get_at(minute, Colour::Red), 200 * u64::from((minute + 1).min(HOUR)));
        }
    }
}
