"""The sandbox: an emulated iTwin Platform, as an ASGI app over SQLite. It imports nothing else of this package."""

from itwin_mcp.sandbox.app import Sandbox

__all__ = ["Sandbox"]
