//! How many of the requests under way may be one client's: who never takes its answers must not keep everybody else out.

use std::num::NonZeroUsize;

/// With this, one client alone may have three quarters of all places. Those of many hosts behind one address are one client, and
/// lose a quarter; what is left for others suffices, because most requests are over within milliseconds.
const TIMES_LEFT: usize = 3;

/// The most requests of one client that may be under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Share {
    /// [`TIMES_LEFT`] as many as there are places left, so fewer the more others have. Some hundred clients that take all that
    /// they get still leave a place for the next one.
    #[default]
    Fair,
    /// So many.
    AtMost(NonZeroUsize),
    /// As many as there are places.
    Any,
}

impl Share {
    /// Whether a client may have so many of its own while so many places are left. One it may always have.
    pub(crate) fn covers(self, own: usize, left: usize) -> bool {
        match self {
            Self::Fair => own <= (left * TIMES_LEFT).max(1),
            Self::AtMost(most) => own <= most.get(),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places each of so many clients gets of 2,048, if all take as many as they can, in turns; and how many are left.
    fn shared_out(clients: usize) -> (usize, usize) {
        let (mut own, mut left) = (vec![0_usize; clients], 2048_usize);
        loop {
            let before = left;
            for own in &mut own {
                if left > 0 && Share::Fair.covers(*own + 1, left - 1) {
                    *own += 1;
                    left -= 1;
                }
            }
            if left == before {
                return (own.into_iter().min().unwrap_or_default(), left);
            }
        }
    }

    #[test]
    fn clients_that_take_all_they_get_have_equal_shares_and_leave_a_third_of_one() {
        for (clients, own, left) in [(1, 1536, 512), (2, 877, 293), (3, 614, 205), (100, 20, 7)] {
            assert_eq!(shared_out(clients), (own, left), "{clients}");
        }
    }

    #[test]
    fn the_last_place_is_for_who_has_none() {
        assert!(Share::Fair.covers(1, 0) && !Share::Fair.covers(2, 0));
        let two = Share::AtMost(NonZeroUsize::new(2).expect("not zero"));
        assert!(two.covers(2, 0) && !two.covers(3, 1000) && Share::Any.covers(3, 0));
    }
}
