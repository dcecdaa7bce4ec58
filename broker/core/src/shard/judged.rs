//! Before a client hears what was said to it, the gate keeps what it has to remember of that: once for all that a turn has judged, since to keep
//! something may cost a system call.

use super::Shard;
use crate::gate::Gate;

impl<G: Gate> Shard<G> {
    /// Has the gate keep what it must remember of those that it has judged. To be called before anything is written to any connection; where
    /// nobody was judged since, it costs a look at a flag.
    #[inline]
    pub fn keep_judged(&mut self) {
        if std::mem::take(&mut self.judged) {
            self.gate.keep_judged();
        }
    }
}

#[cfg(test)]
mod tests;
