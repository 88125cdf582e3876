"""Schedulers and searches over architectures."""
