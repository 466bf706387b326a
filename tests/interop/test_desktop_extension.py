"""The desktop extension with the tools of its hosts: MCPB and the uv of Claude Desktop."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from itwin_mcp.cli.bundle import pack
from tests.contract.test_lock import MAX_BYTES, MAX_PACKAGES
from tests.desktop_host import Extension, unpack
from tests.interop import makers
from tests.interop.tunnel import counting_tunnel
from tests.sandbox_process import follow, running_platform

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.interop, pytest.mark.anyio]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bundle") / "itwin-mcp.mcpb"
    file.write_bytes(pack(ROOT).content)
    return file


def run_mcpb(*arguments: str) -> str:
    node, folder = makers.mcpb()
    program = folder / "node_modules" / "@anthropic-ai" / "mcpb" / "dist" / "cli" / "cli.js"
    done = subprocess.run([str(node), str(program), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read_contents(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_mcpb_validates_the_manifest_and_packs_what_we_pack(bundle: Path, tmp_path: Path) -> None:
    assert "Manifest schema validation passes" in run_mcpb("validate", str(ROOT / "manifest.json"))
    run_mcpb("pack", str(ROOT), str(tmp_path / "theirs.mcpb"))
    theirs, ours = read_contents(tmp_path / "theirs.mcpb"), read_contents(bundle)
    assert set(theirs) == set(ours)
    assert [name for name in ours if theirs[name] != ours[name]] == []


def test_mcpb_unpacks_what_we_pack(bundle: Path, tmp_path: Path) -> None:
    run_mcpb("unpack", str(bundle), str(tmp_path / "theirs"))
    run_mcpb("validate", str(tmp_path / "theirs" / "manifest.json"))
    unpacked = {file.relative_to(tmp_path / "theirs").as_posix() for file in (tmp_path / "theirs").rglob("*")}
    assert set(read_contents(bundle)) <= unpacked


@pytest.mark.parametrize("settings", [{}, {"sandbox": True}, {"client_id": "native-x", "read_only": True}])
def test_desktop_host_agrees_with_the_mcpb_reference_implementation(
    bundle: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    extension = unpack(bundle, tmp_path / "with space")
    node, folder = makers.mcpb()
    script = shutil.copy(makers.DRIVERS / "mcpb_config.mjs", folder)
    answer = {"manifest": extension.manifest, "extensionPath": str(extension.folder), "userConfig": settings}
    done = subprocess.run([str(node), script, json.dumps(answer)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == extension.start_command(**settings)


def test_uv_lock_is_up_to_date() -> None:
    checked = subprocess.run(
        [str(makers.uv()), "lock", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert checked.returncode == 0, checked.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package cache of uv, empty before the first start of the extension."""
    return tmp_path_factory.mktemp("uv-cache")


def manifest_command(extension: Extension, cache: Path, **settings: bool | str) -> StdioServerParameters:
    """Return the command of the manifest, with our installed `uv` and this machine's Python."""
    parameters = extension.parameters(**settings)
    assert (parameters.command, parameters.env is not None) == ("uv", True)
    setup = {"UV_CACHE_DIR": str(cache), "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    return parameters.model_copy(update={"command": str(makers.uv()), "env": (parameters.env or {}) | setup})


async def test_first_start_of_the_extension_stays_within_download_limits(
    bundle: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        pytest.skip("this machine uses a proxy already, so that ours cannot count the bytes")
    extension = unpack(bundle, tmp_path / "itwin mcp")
    with counting_tunnel() as tunnel:
        parameters = manifest_command(extension, cache, sandbox=True)
        parameters.env = (parameters.env or {}) | {"HTTPS_PROXY": tunnel.url, "NO_PROXY": "127.0.0.1,localhost"}
        with anyio.fail_after(300):
            async with Client(stdio_client(parameters)) as client:
                listed = {tool.name for tool in (await client.list_tools()).tools}
                answer = (await client.call_tool("list-recent-itwins", {})).structured_content or {}
    assert listed == {tool["name"] for tool in extension.manifest["tools"]} - {"sign-in"}
    assert answer["iTwins"]
    packages = len(list((extension.folder / ".venv").rglob("*.dist-info")))
    downloaded = sum(tunnel.received.values())
    with capsys.disabled():
        print(f"\nfirst start of the extension: {packages} packages, {downloaded / 1e6:.1f} MB")
    assert 20 < packages <= MAX_PACKAGES
    assert 5_000_000 < downloaded <= MAX_BYTES, tunnel.received
    assert set(tunnel.received) <= {"pypi.org", "files.pythonhosted.org"}


async def test_extension_with_only_a_client_id_signs_in(
    bundle: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension = unpack(bundle, tmp_path / "extension")
    with running_platform(tmp_path) as platform:
        for name, value in platform.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ITWIN_CLIENT_ID")
        empty = dict.fromkeys(("client_secret", "access_token", "toolsets", "itwin_id", "imodel_id", "files_root"), "")
        parameters = manifest_command(extension, cache, client_id=platform.environment["ITWIN_CLIENT_ID"], **empty)
        with anyio.fail_after(300):
            async with Client(stdio_client(parameters)) as client:
                refused = (await client.call_tool("list-recent-itwins", {})).structured_content or {}
                assert "Call the tool `sign-in`" in refused["error"]["hint"]
                link = (await client.call_tool("sign-in", {})).structured_content or {}
                assert await anyio.to_thread.run_sync(follow, link["signIn"]["url"]) == 200
                assert ((await client.call_tool("list-recent-itwins", {})).structured_content or {})["iTwins"]
