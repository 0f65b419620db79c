//! A body that passes through and is held to its end, so that it can be renamed, as far as there is room for it.

use bytes::Bytes;
use oci::rename::Renaming;
use oci::rewrite::Rewriting;

use super::room::Share;

/// Its parts so far, and what they take of the room.
pub(crate) struct HeldBody {
    rewriting: Rewriting,
    share: Share,
}

impl HeldBody {
    /// Nothing of it yet.
    pub(super) fn new(rewriting: Rewriting) -> Self {
        Self { rewriting, share: Share::default() }
    }

    /// Takes a part of it; returns what is sent before its end.
    pub(super) fn feed(&mut self, part: Bytes) -> Option<Bytes> {
        if !self.share.grow(self.rewriting.will_hold(part.len())) {
            self.rewriting.give_up();
        }
        self.rewriting.feed(part)
    }

    /// The rest of it, at its end, and the share, which is to be kept until the client has it: Pingora writes from a copy.
    pub(super) fn finish(self, names: &Renaming<'_>) -> (Bytes, Share) {
        (self.rewriting.finish(names), self.share)
    }
}
