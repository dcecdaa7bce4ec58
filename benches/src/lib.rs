//! The load harness: any MQTT broker at an address, and the floor to hold it against.

pub mod compare;
pub mod cpu;
pub mod floor;
pub mod load;
pub mod spec;
