"""Controls written in the vocabulary of test-time regression."""
