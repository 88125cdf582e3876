"""The base of everything in the architecture DSL: frozen, and an unknown field is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Node(BaseModel):
    """One mapping of the DSL. Fields exist only where something built reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
