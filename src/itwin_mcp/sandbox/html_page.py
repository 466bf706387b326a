"""The frame and style of the sandbox's HTML pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

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
# Without form-action: browsers would also apply it to the redirect after the form, which leads to the application.
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def render_page(status: int, title: str, content: str) -> Answer:
    """Return an HTML page. `content` is inserted as HTML, without escaping."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{content}</main></body></html>"
    )
    return Answer(status, html.encode(), _HEADERS, "text/html; charset=utf-8")
