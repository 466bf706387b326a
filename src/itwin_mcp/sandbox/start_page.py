"""The start page at the sandbox's address: its users, its applications and what to try."""

from __future__ import annotations

from html import escape
from typing import Final

from itwin_mcp.sandbox.errors import ApiError
from itwin_mcp.sandbox.html_page import render_page
from itwin_mcp.sandbox.identity import clients, users
from itwin_mcp.sandbox.wire import Answer, Call, Route


def show_start_page(call: Call) -> Answer:
    """Return the start page to a browser, and to other clients the error for a path that is not emulated."""
    if "text/html" not in call.headers.get("accept", ""):
        raise ApiError("NotEmulated", "GET / is not emulated by this sandbox.")
    url = escape(call.base_url)
    client = clients.DEFAULT_CLIENT
    people = "".join(
        f"<tr><td>{escape(person['given_name'])} {escape(person['surname'])}</td>"
        f"<td>{escape(person['email'])}</td></tr>"
        for person in users.list_people(call.sql)
    )
    return render_page(
        200,
        "iTwin sandbox",
        "<h1>The iTwin sandbox of itwin-mcp</h1>"
        "<p>This is an emulated iTwin Platform for trying things out. It is not Bentley’s, and nothing in it is real. "
        f"The APIs and the sign-in server are at <code>{url}</code>.</p>"
        f"<h2>Users</h2><table><tr><th>Name</th><th>E-mail</th></tr>{people}</table>"
        "<p>Nobody has a password: choose a user on the sign-in page.</p>"
        f"<h2>Applications</h2><p>The client id <code>{client}</code> signs people in with a browser. Any other id "
        "works too: <code>native-…</code> for people, <code>service-…</code> with any secret for a service "
        "application.</p>"
        "<h2>Try it</h2><p>Sign in and list iTwins from a shell:</p>"
        f"<pre>export ITWIN_API_URL={url} ITWIN_CLIENT_ID={client}\n"
        "itwin-mcp auth login\nitwin-mcp call list-recent-itwins</pre>"
        "<p>Use the token that <code>itwin-mcp sandbox</code> printed:</p>"
        f'<pre>curl -H "Authorization: Bearer $ITWIN_ACCESS_TOKEN" {url}/itwins/recents</pre>'
        "<p>Get a token for a service application:</p>"
        "<pre>curl -d grant_type=client_credentials -d scope=itwin-platform \\\n"
        f"  -d client_id=service-trial -d client_secret=any {url}/connect/token</pre>"
        "<footer>Which operations are emulated: <code>itwin-mcp sandbox coverage</code>.</footer>",
    )


ROUTES: Final = (Route("GET", "/", show_start_page, signed_in=False),)
