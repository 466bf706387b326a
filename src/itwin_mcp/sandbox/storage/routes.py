"""Paths and handlers of the storage service."""

from __future__ import annotations

from typing import Final

from itwin_mcp.sandbox.storage import blob_service
from itwin_mcp.sandbox.wire import Route

ROUTES: Final = (
    Route("GET", "/storage/{container}/{blob}", blob_service.get_blob, signed_in=False),
    Route("HEAD", "/storage/{container}/{blob}", blob_service.get_blob, signed_in=False, writes=False),
    Route("PUT", "/storage/{container}/{blob}", blob_service.put_blob, signed_in=False, streams=True),
)
