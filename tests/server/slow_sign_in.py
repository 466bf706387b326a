"""`itwin-mcp` with a sign-in that ends only when the next call checks it, as can happen on a busy machine."""

import anyio

from itwin_mcp.cli import main
from itwin_mcp.upstream.sign_in.browser_login import BrowserLogin

wait = BrowserLogin.wait
is_checked = anyio.Event()


async def wait_for_next_call(login: BrowserLogin) -> None:
    try:
        await wait(login)
    finally:
        await is_checked.wait()


def is_answered(login: BrowserLogin) -> bool:
    is_checked.set()
    return login._outcome is not None


BrowserLogin.wait = wait_for_next_call  # type: ignore[method-assign]
BrowserLogin.is_answered = property(is_answered)  # type: ignore[assignment, method-assign]
raise SystemExit(main())
