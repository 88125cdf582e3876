"""Blocks of known mechanisms, each with what the pipeline must conclude about it."""
