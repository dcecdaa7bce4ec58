//! Where durable state lives: the embedded engine, memory, and the group commit.
