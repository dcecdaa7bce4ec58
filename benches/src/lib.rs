//! The load harness: any MQTT broker at an address, and the floor to hold it against.
