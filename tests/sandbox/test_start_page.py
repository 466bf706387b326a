"""The start page: its users, its client id and its examples."""

import html
import re
from collections.abc import Callable

import httpx2
import pytest

from itwin_mcp.sandbox.identity.clients import DEFAULT_CLIENT
from tests.sandbox.conftest import ORIGIN
from tests.sandbox.test_sign_in import get_code

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["", "/"])
async def test_start_page_lists_users_client_id_and_examples(
    path: str, http_as: Callable[[str | None], httpx2.AsyncClient]
) -> None:
    web = http_as(None)
    answer = await web.get(path, headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = html.unescape(answer.text)
    for name in ("Anna de Vries", "anna.devries@meridian-infra.example", "Tomasz Nowak", DEFAULT_CLIENT, ORIGIN):
        assert name in text
    assert "<script" not in text and not re.search(r"(src|href)=", text)
    form = dict(re.findall(r"-d (\w+)=(\S+)", text))
    issued = await web.post("/connect/token", data=form)
    assert issued.json()["access_token"], "the example for a service application works"
    assert await get_code(web, client_id=DEFAULT_CLIENT)
    assert (await web.get(path)).status_code == 501, "other clients get an error"


async def test_start_page_escapes_the_host_header(
    http_as: Callable[[str | None], httpx2.AsyncClient],
) -> None:
    answer = await http_as(None).get("/", headers={"host": "<b>evil</b>", "accept": "text/html"})
    assert (answer.status_code, "<b>" in answer.text) == (200, False)
