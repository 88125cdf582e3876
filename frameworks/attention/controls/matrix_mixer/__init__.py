"""Controls written in the vocabulary of the matrix mixer."""
