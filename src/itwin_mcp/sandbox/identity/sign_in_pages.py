"""The HTML pages of the sign-in server: the consent page and the error page."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from itwin_mcp.sandbox import html_page
from itwin_mcp.sandbox.identity.clients import Client
from itwin_mcp.sandbox.wire import Answer

_SCOPE_MEANINGS: Final[Mapping[str, str]] = {
    "itwin-platform": "Use the iTwin Platform as you",
    "offline_access": "Stay signed in while you are away",
    "openid": "Know who you are",
    "profile": "See your name",
    "email": "See your e-mail address",
    "organization": "See your organization",
}


def render_consent_page(
    client: Client,
    people: Iterable[sqlite3.Row],
    selected: str | None,
    scopes: Iterable[str],
    hidden: Mapping[str, str],
) -> Answer:
    """Return the page on which a user chooses an identity and consents.

    `selected` is the id of the preselected user. `hidden` are the parameters of the request, sent again with the form.
    """
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in hidden.items()
    )
    choices = "".join(
        f'<label><input type="radio" name="user" value="{escape(person["id"])}" required'
        f"{' checked' if person['id'] == selected else ''}>"
        f"<span>{escape(person['given_name'])} {escape(person['surname'])}"
        f"<small>{escape(person['email'])}</small></span></label>"
        for person in people
    )
    permissions = "".join(f"<li>{escape(_SCOPE_MEANINGS.get(scope, scope))}</li>" for scope in scopes)
    return html_page.render_page(
        200,
        "Sign in",
        f"<h1>Sign in to the iTwin sandbox</h1><p><strong>{escape(client.name)}</strong> would like to:</p>"
        f'<ul>{permissions}</ul><form method="post" action="/connect/authorize">{fields}'
        f"<fieldset><legend>Sign in as</legend>{choices}</fieldset>"
        '<button name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny" formnovalidate>Cancel</button></form>'
        "<footer>These people are fictitious and have no password: this is the sandbox of itwin-mcp, "
        "not Bentley’s sign-in page.</footer>",
    )


def render_error_page(code: str, reason: str) -> Answer:
    """Return the page for an error that cannot be sent back to the application."""
    text = f"<h1>This application cannot sign you in</h1><p>{escape(reason)}</p><p><code>{escape(code)}</code></p>"
    return html_page.render_page(400, "Cannot sign in", text)
