"""The kinds of events, which of them have a key, and what each must hold.

`REQUIRED` lists only what projections cannot do without; more fields are always welcome.
A field that is unknown is left out or None: missing is never zero.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from evolution.ledger.errors import PayloadError

PROPOSAL_STATUSES = ("accepted", "duplicate", "rejected", "unparsable", "endpoint_error")

REQUIRED: dict[str, tuple[str, ...]] = {
    "run_started": (),  # the manifest; once for every start and resume
    "reply": ("iteration", "attempt"),  # what a proposer was asked and said, before anyone acts on it
    "proposal": ("status",),
    "candidate": (),
    "guard": ("candidate",),
    "run": ("spec", "outcome"),
    "attempt": ("spec", "outcome"),  # a transient outcome that did not settle its run
    "fitness": ("candidate",),
    "decision": ("what", "reason"),
    "plan": ("reference", "shortlist", "seeds", "sizes"),
    "seal_opened": (),
    "verdict": ("plan", "candidate", "decision"),
    "note": (),
    "calibration": ("results",),  # how every control ended
    "interrupted": (),
    "run_finished": (),
}
KEYED = frozenset({"candidate", "run", "attempt", "plan", "seal_opened", "verdict"})


def check_event(kind: str, payload: Mapping[str, Any], key: str | None) -> None:
    """Refuse an event that no projection could read.

    Raises:
        PayloadError: unknown kind, a missing field or key, or a proposal of unknown status.
    """
    if kind not in REQUIRED:
        near = difflib.get_close_matches(str(kind), REQUIRED, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PayloadError(f"unknown kind of event {kind!r}{hint} Known: {', '.join(REQUIRED)}")
    if kind in KEYED and not key:
        raise PayloadError(f"an event of kind {kind!r} needs a key, got {key!r}")
    if key is not None and not isinstance(key, str):
        raise PayloadError(f"the key of a {kind!r} event is a {type(key).__name__}; keys are strings")
    missing = [name for name in REQUIRED[kind] if name not in payload]
    if missing:
        raise PayloadError(
            f"a {kind!r} event needs {', '.join(missing)}; got {', '.join(sorted(payload)) or 'nothing'}"
        )
    if kind == "proposal" and payload["status"] not in PROPOSAL_STATUSES:
        raise PayloadError(f"proposal status {payload['status']!r} is not one of {', '.join(PROPOSAL_STATUSES)}")
