//! What a parent and its workers say to each other: a line of JSON each, over pipes, or the values themselves between threads.

use serde::{Deserialize, Serialize};

use crate::outcome::{Counts, Outcome};
use crate::spec::Spec;

/// The first line to a worker process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The whole run.
    pub spec: Spec,
    /// Which worker this is.
    pub worker: usize,
}

/// To a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Connect the clients of this stage.
    Connect {
        /// Its number.
        stage: u8,
    },
    /// Those who held their subscription back (`retained`) subscribe.
    Subscribe,
    /// Publish from now to the end, on the common clock; count from the beginning.
    Publish {
        /// Begin of the measured time, nanoseconds.
        begin_ns: u64,
        /// Its end.
        end_ns: u64,
    },
    /// Durable subscribers leave.
    Leave,
    /// Wait for stragglers, tell the outcome, and end.
    Finish,
}

/// From a worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The clients of the stage are connected or have failed.
    Connected {
        /// Which stage.
        stage: u8,
        /// How many have failed so far.
        failed: u64,
    },
    /// Now and then.
    Tick(Counts),
    /// The last word.
    Outcome(Box<Outcome>),
    /// The last word of a worker that can't go on.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_events_are_lines() {
        for command in
            [Command::Connect { stage: 1 }, Command::Publish { begin_ns: 1, end_ns: u64::MAX }, Command::Finish]
        {
            let line = serde_json::to_string(&command).expect("JSON");
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Command>(&line).expect("read"), command);
        }
        let events =
            [Event::Tick(Counts::default()), Event::Outcome(Box::default()), Event::Failed("why\nnot".to_owned())];
        for event in events {
            let line = serde_json::to_string(&event).expect("JSON");
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Event>(&line).expect("read"), event);
        }
    }
}
