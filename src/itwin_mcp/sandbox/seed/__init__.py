"""The data of a new sandbox."""

from __future__ import annotations

import uuid
from typing import Final

_NAMESPACE: Final = uuid.UUID("6f1a9c52-3b0e-4c57-9d64-0a8f5e2b7c11")


def seeded_id(kind: str, key: str) -> str:
    """Return the id of a seeded entity, the same in every sandbox: `seeded_id("itwin", "interchange")`."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind}/{key}"))
