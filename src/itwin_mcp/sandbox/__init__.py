"""The emulated platform: an ASGI app over SQLite that answers as the iTwin Platform does; an island in the package."""

from itwin_mcp.sandbox.app import Sandbox

__all__ = ["Sandbox"]
