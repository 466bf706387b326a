"""The pages of the sign-in server: who signs in and what the application may do, or why it cannot go on."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from itwin_mcp.sandbox.identity import Client
from itwin_mcp.sandbox.wire import Answer

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b2733; --paper: #fff; --ground: #eef2f5; --line: #b8c4ce;
  --accent: #00603c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eef3; --paper: #1d2730; --ground: #12191f; --line: #4a5a68; --accent: #7fd8ae; }
}
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { box-sizing: border-box; width: min(28rem, 100% - 2rem); margin: 1rem; padding: 1.75rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: .75rem; overflow-wrap: anywhere; }
h1 { margin: 0 0 .75rem; font-size: 1.35rem; line-height: 1.3; }
fieldset { margin: 1.25rem 0; padding: 0; border: 0; }
legend { padding: 0; font-weight: 600; }
label { display: flex; gap: .75rem; align-items: center; margin-top: .5rem; padding: .6rem .8rem; cursor: pointer;
  border: 1px solid var(--line); border-radius: .5rem; }
label:has(:checked) { border-color: var(--accent); box-shadow: inset 0 0 0 1px var(--accent); }
label small { display: block; }
input { accent-color: var(--accent); width: 1.1rem; height: 1.1rem; flex: none; }
button { font: inherit; padding: .6rem 1.2rem; border-radius: .5rem; border: 1px solid var(--accent); cursor: pointer;
  background: none; color: inherit; }
button[value=allow] { background: var(--accent); color: var(--paper); font-weight: 600; margin-right: .5rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
footer { margin-top: 1.25rem; font-size: .875rem; }
h2 { margin: 1.25rem 0 .5rem; font-size: 1.05rem; }
pre { margin: .5rem 0; padding: .75rem; overflow-x: auto; background: var(--ground); border-radius: .5rem; }
table { border-collapse: collapse; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; }
main:has(pre) { width: min(46rem, 100% - 2rem); }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
# No form-action: browsers apply it to the redirect that follows the form, which leads to the application.
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_MEANINGS: Final[Mapping[str, str]] = {
    "itwin-platform": "Use the iTwin Platform as you",
    "offline_access": "Stay signed in while you are away",
    "openid": "Know who you are",
    "profile": "See your name",
    "email": "See your e-mail address",
    "organization": "See your organization",
}


def consent(
    client: Client, people: Iterable[sqlite3.Row], chosen: str | None, scopes: Iterable[str], hidden: Mapping[str, str]
) -> Answer:
    """Choose the user and consent; `chosen` is the id of whoever is selected already."""
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in hidden.items()
    )
    choices = "".join(
        f'<label><input type="radio" name="user" value="{escape(one["id"])}" required'
        f"{' checked' if one['id'] == chosen else ''}>"
        f"<span>{escape(one['given_name'])} {escape(one['surname'])}"
        f"<small>{escape(one['email'])}</small></span></label>"
        for one in people
    )
    wishes = "".join(f"<li>{escape(_MEANINGS.get(scope, scope))}</li>" for scope in scopes)
    return page(
        200,
        "Sign in",
        f"<h1>Sign in to the iTwin sandbox</h1><p><strong>{escape(client.name)}</strong> would like to:</p>"
        f'<ul>{wishes}</ul><form method="post" action="/connect/authorize">{fields}'
        f"<fieldset><legend>Sign in as</legend>{choices}</fieldset>"
        '<button name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny" formnovalidate>Cancel</button></form>'
        "<footer>These people are made up, and nobody asks for a password: this is the sandbox of itwin-mcp, "
        "not Bentley’s sign-in page.</footer>",
    )


def failure(code: str, reason: str) -> Answer:
    """Why the request cannot even be sent back to the application."""
    text = f"<h1>This application cannot sign you in</h1><p>{escape(reason)}</p><p><code>{escape(code)}</code></p>"
    return page(400, "Cannot sign in", text)


def page(status: int, title: str, content: str) -> Answer:
    """A page in the style of the others; `content` is HTML."""
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{content}</main></body></html>"
    )
    return Answer(status, text.encode(), _HEADERS, "text/html; charset=utf-8")
