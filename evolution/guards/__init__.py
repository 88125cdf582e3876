"""Checks that a candidate passes before anything is spent on it, and once more on its trained weights."""
