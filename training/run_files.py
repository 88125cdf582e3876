"""Names of the files a run leaves in its folder, for readers that need no torch."""

from __future__ import annotations

HISTORY = "history.json"
"""Spec, curve and outcome, rewritten at every evaluation."""
