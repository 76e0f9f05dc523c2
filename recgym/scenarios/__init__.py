"""The decision problems, one module each, as pure functions over a batch."""
