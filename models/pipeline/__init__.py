"""What an architecture of the DSL is built into."""
