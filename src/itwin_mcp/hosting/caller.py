"""Who sent the request under way: the caller of the token that came with it, whatever session it belongs to."""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from itwin_mcp.executor.conversation import Caller
from itwin_mcp.hosting.tokens import Verified


class VerifiedUser(AuthenticatedUser):
    """A caller in the form in which the SDK binds sessions and states to them. It holds no token."""

    def __init__(self, verified: Verified) -> None:
        caller = verified.caller
        super().__init__(
            AccessToken(
                token="",
                client_id=verified.client_id,
                scopes=sorted(verified.scopes),
                expires_at=verified.expires_at,
                subject=caller.subject,
                claims={"iss": caller.issuer},
            )
        )
        self.caller = caller


def present_caller() -> Caller:
    """The caller of the request under way. RuntimeError outside of one: nobody is served without being known."""
    user = auth_context_var.get()
    if not isinstance(user, VerifiedUser):
        raise RuntimeError("a request came by without a verified caller")
    return user.caller
