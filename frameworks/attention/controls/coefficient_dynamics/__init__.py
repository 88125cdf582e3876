"""Controls written in the vocabulary of coefficient dynamics."""
