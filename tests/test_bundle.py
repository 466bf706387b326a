"""The desktop extension: its contents, its reproducible bytes, and a server that runs from it."""

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
from click.testing import CliRunner
from mcp import Client, StdioServerParameters, stdio_client

from itwin_mcp import __version__
from itwin_mcp.cli import group
from itwin_mcp.cli.bundle import FILES, FOLDERS, pack
from itwin_mcp.errors import SettingsError
from tests.desktop_host import Extension, unpack
from tests.sandbox_process import follow, running_platform

ROOT = Path(__file__).parents[1]
MAX_BYTES = 6_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bundle") / "itwin-mcp.mcpb"
    file.write_bytes(pack(ROOT).content)
    return file


@pytest.fixture
def extension(bundle: Path, tmp_path: Path) -> Extension:
    return unpack(bundle, tmp_path / "Claude Extensions" / "itwin mcp")


def copy_tree(to: Path) -> Path:
    """Copy the packed part of this tree into a folder."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, to / name)
    return to


def test_bundle_contains_exactly_the_listed_files(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert {name for name in names if "/" not in name} == {
        "LICENSE", "PRIVACY.md", "icon.png", "manifest.json", "pyproject.toml", "uv.lock",
    }  # fmt: skip
    folders_and_suffixes = {(name.split("/")[0], Path(name).suffix) for name in names if "/" in name}
    source_suffixes = {("src", ending) for ending in (".png", ".py", ".sql", ".toml", ".xz")}
    assert folders_and_suffixes == {("capabilities", ".yaml"), ("capabilities", ".md")} | source_suffixes
    assert bundle.stat().st_size < MAX_BYTES
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        command = [git, "ls-files", "--", *FILES, *FOLDERS]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        assert set(listed) <= set(names)


def test_pack_is_reproducible_for_any_clock_umask_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack(copy_tree(tmp_path / "first"))
    umask = os.umask(0o077)
    try:
        copied_tree = copy_tree(tmp_path / "a" / "deeper place")
        for number, file in enumerate(sorted(copied_tree.rglob("*"), reverse=True)):
            if file.is_file():
                file.chmod(0o600)
                os.utime(file, (1_000_000_000 + number, 1_000_000_000 + number))
        for junk in ("__pycache__/x.pyc", ".DS_Store", "x.pyc"):
            (copied_tree / "src/itwin_mcp" / junk).parent.mkdir(exist_ok=True)
            (copied_tree / "src/itwin_mcp" / junk).write_text("junk")
        for junk in ("notes.txt~", ".#itwins.yaml", "guides/errors.md.orig"):
            (copied_tree / "capabilities" / junk).write_text("junk")
        (copied_tree / "notes.txt").write_text("not packed")
        monkeypatch.chdir(copied_tree)
        second = pack(Path())
    finally:
        os.umask(umask)
    assert (second.sha256, second.content) == (first.sha256, first.content)
    (copied_tree / "LICENSE").write_text("another")
    assert pack(copied_tree).sha256 != first.sha256


def test_bundle_command_writes_the_file_and_prints_its_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = pack(ROOT)
    plain = CliRunner().invoke(group, ["bundle", str(ROOT)])
    assert plain.exit_code == 0, plain.output
    assert (tmp_path / f"itwin-mcp-{__version__}.mcpb").read_bytes() == bundle.content
    assert f"SHA-256 {bundle.sha256}" in plain.output
    result = CliRunner().invoke(group, ["bundle", str(ROOT), "--output", "x.mcpb", "--json"])
    assert json.loads(result.output) == {
        "file": "x.mcpb",
        "version": __version__,
        "files": list(bundle.files),
        "bytes": len(bundle.content),
        "sha256": bundle.sha256,
    }


@pytest.mark.parametrize("manifest", [None, "[]", "{", '{"name": "another", "version": "1"}'])
def test_pack_rejects_a_folder_that_is_not_our_source_tree(tmp_path: Path, manifest: str | None) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(SettingsError, match=r"manifest\.json"):
        pack(tmp_path)


def test_pack_names_a_missing_file(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "uv.lock").unlink()
    with pytest.raises(SettingsError, match=r"uv\.lock cannot be read"):
        pack(tree)


async def list_and_call(parameters: StdioServerParameters, tool: str) -> tuple[set[str], dict[str, Any]]:
    """Return the listed tools and the answer of one call, as a host sees them."""
    with anyio.fail_after(60):
        async with Client(stdio_client(parameters)) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            return listed, dict((await client.call_tool(tool, {})).structured_content or {})


@pytest.mark.anyio
async def test_unpacked_extension_serves_its_own_files_with_the_sandbox(extension: Extension) -> None:
    parameters = extension.parameters(interpreter=[sys.executable], sandbox=True)
    paths = subprocess.run(
        [sys.executable, "-c", "import itwin_mcp.capability.catalog as c; print(*c.find_shipped_files())"],
        capture_output=True, text=True, timeout=60, env=parameters.env, check=True,
    ).stdout  # fmt: skip
    assert paths.startswith(str(extension.folder / "capabilities"))
    listed, answer = await list_and_call(parameters, "list-recent-itwins")
    assert listed == {tool["name"] for tool in extension.manifest["tools"]} - {"sign-in"}
    assert answer["iTwins"][0]["displayName"]


@pytest.mark.anyio
@pytest.mark.slow
async def test_extension_writes_files_only_into_the_chosen_folder(extension: Extension, tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    with anyio.fail_after(60):
        async with Client(stdio_client(extension.parameters(interpreter=[sys.executable], sandbox=True))) as client:
            assert "save-list" not in {tool.name for tool in (await client.list_tools()).tools}
        chosen = extension.parameters(interpreter=[sys.executable], sandbox=True, files_root=str(folder))
        async with Client(stdio_client(chosen)) as client:
            await client.call_tool("save-list", {"tool": "list-recent-itwins", "path": str(folder / "mine.csv")})
    assert (folder / "mine.csv").read_text(encoding="utf-8").count("\n") > 1


@pytest.mark.slow
@pytest.mark.anyio
async def test_extension_with_a_client_id_signs_in_by_a_link(
    extension: Extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_platform(tmp_path) as platform:
        for name, value in platform.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ITWIN_CLIENT_ID")
        unconfigured = extension.parameters(interpreter=[sys.executable])
        listed, answer = await list_and_call(unconfigured, "list-recent-itwins")
        assert "sign-in" not in listed
        assert answer["error"]["code"] == "NotSignedIn"
        assert answer["error"]["hint"].startswith("Open the extension's settings")
        configured = extension.parameters(
            interpreter=[sys.executable], client_id=platform.environment["ITWIN_CLIENT_ID"]
        )
        with anyio.fail_after(60):
            async with Client(stdio_client(configured)) as client:
                listed = {tool.name for tool in (await client.list_tools()).tools}
                assert listed == {tool["name"] for tool in extension.manifest["tools"]}
                refused = (await client.call_tool("list-recent-itwins", {})).structured_content or {}
                assert "Call the tool `sign-in`" in refused["error"]["hint"]
                link = (await client.call_tool("sign-in", {})).structured_content or {}
                assert await anyio.to_thread.run_sync(follow, link["signIn"]["url"]) == 200
                assert ((await client.call_tool("list-recent-itwins", {})).structured_content or {})["iTwins"]
