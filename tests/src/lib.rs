//! End to end: the real broker process, real clients, and the tidiness of the tree.
