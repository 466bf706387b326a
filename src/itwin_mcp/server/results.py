"""An outcome becomes a CallToolResult on the wire; the one place that catches whatever a call raises."""

from __future__ import annotations

import base64
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from itwin_mcp.errors import AnswerTooLarge, CallError, Unconfirmed
from itwin_mcp.executor.blobs import Blob
from itwin_mcp.executor.fit import fit

logger = logging.getLogger(__name__)


async def outcome(operation: str, perform: Callable[[], Awaitable[dict[str, Any]]]) -> tuple[dict[str, Any], bool]:
    """What `perform` gives, or its error as the answer's `error`, or its `preview`; and whether it is an error.

    Cancellation passes through. An error that is not ours is logged whole and told by a reference alone.
    """
    try:
        return await perform(), False
    except CallError as error:
        return {"error": error.to_json(operation)}, True
    except Unconfirmed as waits:
        return {"preview": waits.preview}, True
    except Exception:  # noqa: BLE001 the one place where a call ends whatever happened; it is logged whole
        return {"error": _defect(operation).to_json(operation)}, True


def _defect(operation: str) -> CallError:
    reference = uuid.uuid4().hex[:12]
    logger.exception("%s failed with an error that nothing expected (reference %s)", operation, reference)
    return CallError(
        "InternalError",
        f"itwin-mcp has a defect: {operation} failed unexpectedly (reference {reference}).",
        hint="Nothing more is known here. Report the reference to whoever runs this server; its log has the details.",
    )


def tell_unserved(structured: Mapping[str, Any], elsewhere: Mapping[str, str]) -> None:
    """Say of the tools that an error's hint names which cannot be run here; `elsewhere` has the reasons."""
    error = structured.get("error") or {}
    named = [
        word for word in re.findall(r"(?<![a-z-])[a-z]++(?:-[a-z]++)++", error.get("hint", "")) if word in elsewhere
    ]
    if named:
        unserved = ", ".join(f"{name} ({elsewhere[name]})" for name in dict.fromkeys(named))
        error["hint"] += f" Not served here: {unserved}."


def within_limit(operation: str, structured: dict[str, Any], is_error: bool, limit: int) -> tuple[dict[str, Any], bool]:
    """An answer in at most `limit` bytes of compact JSON, and whether it is an error."""
    try:
        return fit(structured, limit), is_error
    except AnswerTooLarge as error:
        return fit({"error": error.to_json(operation)}, limit), True


def wire_result(structured: dict[str, Any], is_error: bool, blobs: Sequence[Blob] = ()) -> dict[str, Any]:
    """A CallToolResult as it goes over the wire: the answer as structured content and, the same, as text.

    A picture comes after that as one that the client can show.
    """
    pictures = [
        {"type": "image", "data": base64.b64encode(blob.content).decode(), "mimeType": blob.media_type}
        for blob in blobs
        if blob.is_picture
    ]
    return {
        "content": [{"type": "text", "text": compact(structured)}, *pictures],
        "structuredContent": structured,
        "isError": is_error,
    }


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
