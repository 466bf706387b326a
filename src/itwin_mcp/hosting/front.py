"""The routes beside the protocol's own: health, and the metadata that tell a client where to sign in."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from itwin_mcp.hosting.answers import Answer, ASGIApp, Receive, Scope, Send, refusal
from itwin_mcp.hosting.challenges import WELL_KNOWN, Resource
from itwin_mcp.hosting.life import Life


@dataclass(frozen=True, slots=True)
class Health:
    """`/healthz`: the process answers. `/readyz`: it should be sent requests. Anybody may ask; nothing else is told.

    It stands before the check of Host, for who probes a replica calls it by its address.
    """

    app: ASGIApp
    life: Life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else None
        if path == "/healthz":
            await Answer(200, {"status": "ok"}).send(send)
        elif path == "/readyz":
            status = "ready" if self.life.ready else "ending"
            await Answer(200 if self.life.ready else 503, {"status": status}).send(send)
        else:
            await self.app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Front:
    """The protocol behind the gate at its path, and the metadata, to which nobody needs a token."""

    gate: ASGIApp
    path: str
    resource: Resource

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == self.path:
            await self.gate(scope, receive, send)
        elif scope["path"] in self._metadata_paths() and scope["method"] in ("GET", "HEAD"):
            await Answer(200, self.resource.metadata, {"cache-control": "public, max-age=3600"}).send(send)
        else:
            await refusal(404, "not_found", "There is nothing here").send(send)

    def _metadata_paths(self) -> tuple[str, ...]:
        """Both that clients try, by the public path and by ours: a proxy may take a prefix away."""
        public = urlsplit(self.resource.address).path.rstrip("/")
        return WELL_KNOWN, WELL_KNOWN + public, WELL_KNOWN + self.path
