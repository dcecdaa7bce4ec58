//! MQTT device-access broker: the shards, the listeners, the control plane and the binary.
