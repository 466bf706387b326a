"""docs/sign-in-server.md works: oidc-provider signs callers in, and the hosted server accepts their tokens."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.house.documents import Block, blocks, shell_lines
from tests.interop import makers
from tests.sandbox_process import free_port

pytestmark = pytest.mark.interop

CALLBACK = "http://localhost:33418/callback"


class MemoryStorage:
    """Stores a client's sign-in in memory."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Browser:
    """A user at the sign-in pages, who types a name, allows the access, and is redirected to the client."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: dict[str, str] = {}

    async def open(self, address: str) -> None:
        async with httpx2.AsyncClient(trust_env=False) as pages:
            response = await pages.get(address)
            for _ in range(12):
                if not response.is_redirect:
                    response = await self.submit(pages, response)
                    continue
                target = urljoin(str(response.url), response.headers["location"])
                if target.startswith(CALLBACK):
                    self.answer = dict(parse_qsl(urlsplit(target).query))
                    return
                response = await pages.get(target)
        raise AssertionError(f"the pages do not end: {response.url}")

    async def submit(self, pages: httpx2.AsyncClient, page: httpx2.Response) -> httpx2.Response:
        action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
        assert action is not None, page.text
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        if 'name="login"' in page.text:
            fields |= {"login": self.name, "password": "any"}
        return await pages.post(urljoin(str(page.url), unescape(action[1])), data=fields)

    async def code(self) -> AuthorizationCodeResult:
        assert "code" in self.answer, self.answer
        return AuthorizationCodeResult.model_validate(self.answer)


@contextmanager
def running(script: str, folder: Path, url: str, path: list[str]) -> Iterator[None]:
    """Start a service by a block of the page, wait until it answers, and stop it at the end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ITWIN_", "ITP_"))}
    state = {"ITWIN_MCP_STATE_DIR": str(folder / "state"), "HOME": str(folder)}
    log = (folder / "log").open("ab")
    process = subprocess.Popen(
        ["bash", "-c", f"set -e\n{script}"],
        cwd=folder,
        env=ours | state | {"PATH": os.pathsep.join([*path, os.environ["PATH"]])},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, (folder / "log").read_text()
            with suppress(httpx2.TransportError):
                httpx2.get(url, trust_env=False)
                break
            time.sleep(0.1)
        yield
    finally:
        log.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def prepare(folder: Path) -> tuple[list[str], str]:
    """Write the page's files with free ports; return the blocks that start something, and the server's address."""
    ports = {port: str(free_port()) for port in ("8000", "9000")}
    services = []

    def replace_ports(block: Block) -> str:
        return re.sub(r"\b(8000|9000)\b", lambda answer: ports[answer[0]], block.text)

    for block in blocks("docs/sign-in-server.md"):
        if block.words == "service":
            services.append(replace_ports(block))
        elif block.words:
            (folder / block.words).write_text(replace_ports(block), encoding="utf-8")
        else:
            assert shell_lines(block) == [f"npm install {makers.SIGN_IN_SERVER}"]
    return services, f"http://127.0.0.1:{ports['8000']}/mcp"


async def sign_in_and_work(url: str, name: str) -> tuple[list[str], set[str]]:
    """Return the tools that this user can see, and the scopes of their token."""
    browser, storage = Browser(name), MemoryStorage()
    metadata = OAuthClientMetadata.model_validate(
        {"redirect_uris": [CALLBACK], "client_name": "a client", "application_type": "native"}
    )
    auth = OAuthClientProvider(url, metadata, storage, browser.open, browser.code)
    async with httpx2.AsyncClient(auth=auth, trust_env=False, timeout=60) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            if tools:
                recent = (await client.call_tool("list-recent-itwins", {"limit": 1})).structured_content or {}
                created = await client.call_tool(
                    "create-imodel", {"iTwinId": recent["iTwins"][0]["id"], "name": "A first iModel"}
                )
                assert (created.structured_content or {})["iModel"]["name"] == "A first iModel"
    assert storage.tokens is not None
    return tools, set((storage.tokens.scope or "").split())


@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="the blocks are for a POSIX shell")
def test_page_about_a_sign_in_server_signs_callers_in(tmp_path: Path) -> None:
    node, installed = makers.sign_in_server()
    (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    (sign_in, hosted), url = prepare(tmp_path)
    path = [str(Path(sys.executable).parent), str(Path(node).parent)]
    issuer = re.search(r"ISSUER=(\S+)", hosted)
    assert issuer is not None
    with running(sign_in, tmp_path, issuer[1], path), running(hosted, tmp_path, url, path):
        tools, scopes = anyio.run(sign_in_and_work, url, "ada")
        others, _ = anyio.run(sign_in_and_work, url, "bob")
    assert "create-imodel" in tools
    assert "delete-itwin" not in tools
    assert scopes >= {"itwin:read", "itwin:write", "itwin:delete"}
    assert others == [], "the policy names nobody else"
