"""An answer of bytes: which kind they really are, and what a structured answer says in their place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from itwin_mcp.executor.sending import Answer

UNKNOWN = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_BEGINNINGS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes and their media type."""

    media_type: str
    content: bytes = field(repr=False)

    @property
    def is_picture(self) -> bool:
        """Whether a client can show them as a picture."""
        return self.media_type.startswith("image/")

    def told(self) -> dict[str, Any]:
        """The structured answer beside the bytes."""
        return {"content": {"mediaType": self.media_type, "bytes": len(self.content)}}


def blob_of(answer: Answer) -> Blob:
    """The bytes of an answer. What they begin with says more of a picture than its header does."""
    content = bytes(answer.body)
    for beginning, media_type in _BEGINNINGS:
        if content.startswith(beginning):
            return Blob(media_type, content)
    said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Blob(said if _MEDIA_TYPE.fullmatch(said) else UNKNOWN, content)
