//! What clients wait for, in turns: one that asks for much waits for itself, and not everybody for it.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use super::client::Client;

/// What waits, of each client in order of arrival, and whose turn is next. `None` is a client without an address.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    /// Of each client that waits; none is empty.
    queues: HashMap<Option<Client>, VecDeque<T>, RandomState>,
    /// Whose turn it is, one after the other.
    order: VecDeque<Option<Client>>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { queues: HashMap::default(), order: VecDeque::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    /// Waits behind what this client waits for already.
    pub(crate) fn push(&mut self, client: Option<Client>, waits: T) {
        let queue = self.queues.entry(client).or_default();
        if queue.is_empty() {
            self.order.push_back(client);
        }
        queue.push_back(waits);
        self.len += 1;
    }

    /// The oldest of the client that has its turn, which then waits for its next one. What is not wanted any more is dropped, and
    /// costs no turn.
    pub(crate) fn pop(&mut self, mut is_wanted: impl FnMut(Option<Client>, &T) -> bool) -> Option<T> {
        while let Some(client) = self.order.pop_front() {
            let Some(queue) = self.queues.get_mut(&client) else { continue };
            let before = queue.len();
            let next = std::iter::from_fn(|| queue.pop_front()).find(|waits| is_wanted(client, waits));
            self.len -= before - queue.len();
            if queue.is_empty() {
                self.queues.remove(&client);
            } else {
                self.order.push_back(client);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// Drops what is not wanted any more.
    pub(crate) fn retain(&mut self, mut is_wanted: impl FnMut(Option<Client>, &T) -> bool) {
        self.queues.retain(|client, queue| {
            queue.retain(|waits| is_wanted(*client, waits));
            !queue.is_empty()
        });
        self.order.retain(|client| self.queues.contains_key(client));
        self.len = self.queues.values().map(VecDeque::len).sum();
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How much waits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How much of this client's.
    pub(crate) fn len_of(&self, client: Option<Client>) -> usize {
        self.queues.get(&client).map_or(0, VecDeque::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<Client> = Some(Client::V4(1));
    const OTHER: Option<Client> = Some(Client::V4(2));

    fn turns(of: &[(Option<Client>, u32)]) -> Turns<u32> {
        let mut turns = Turns::default();
        of.iter().for_each(|(client, number)| turns.push(*client, *number));
        turns
    }

    #[test]
    fn clients_take_turns_and_each_waits_in_order_of_arrival() {
        let mut turns = turns(&[(ONE, 1), (ONE, 2), (ONE, 3), (OTHER, 4), (None, 5), (OTHER, 6)]);
        assert_eq!((turns.len(), turns.len_of(ONE), turns.len_of(OTHER)), (6, 3, 2));
        let order: Vec<_> = std::iter::from_fn(|| turns.pop(|_, _| true)).collect();
        assert_eq!(order, [1, 4, 5, 2, 6, 3]);
        assert_eq!((turns.is_empty(), turns.len(), turns.queues.len()), (true, 0, 0));
    }

    #[test]
    fn what_is_not_wanted_costs_no_turn_and_leaves_nothing_behind() {
        let mut turns = turns(&[(ONE, 1), (ONE, 2), (OTHER, 3), (OTHER, 4), (None, 5)]);
        assert_eq!(turns.pop(|client, number| client == OTHER || *number == 2), Some(2));
        assert_eq!((turns.len(), turns.len_of(ONE)), (3, 0));
        turns.retain(|client, number| client == OTHER && *number == 4);
        assert_eq!((turns.len(), turns.len_of(OTHER), turns.order.len()), (1, 1, 1));
        assert_eq!((turns.pop(|_, _| true), turns.pop(|_, _| true)), (Some(4), None));
        assert!(turns.is_empty() && turns.queues.is_empty());
    }
}
