"""What the documents say is true: commands, options, settings, codes, links, and every block of code."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import CallError
from itwin_mcp.runtime import read_catalog
from itwin_mcp.sandbox.errors import ERRORS
from itwin_mcp.settings import ENVIRONMENT, read_settings
from tests.cli.test_commands import GOOD
from tests.house.commands import OPTION, complaint, every_command, lines_in, options_of
from tests.house.documents import (
    DOCUMENTS,
    ROOT,
    Block,
    between,
    blocks,
    codes_in,
    coming_codes,
    prose,
    shell_lines,
    text_of,
)
from tests.sandbox_process import free_port

LINKED = [
    *DOCUMENTS,
    "CHANGELOG.md",
    *sorted(f"capabilities/guides/{one.name}" for one in ROOT.glob("capabilities/guides/*.md")),
]
HOSTS = {
    "astral.sh": "uv",
    "bentley.com": "the platform, its developer portal and its sign-in server",
    "ikanos.io": "the format of the capability files",
    "keepachangelog.com": "the changelog's form",
    "modelcontextprotocol.io": "the protocol",
    "semver.org": "the versions' form",
}
"""Hosts that a link may lead to, and what is there. This machine cannot ask them, so each was chosen by hand."""
FOREIGN_OPTIONS = {"--live-write": "pytest -m live; tests/conftest.py"}

CI = "`.ci/run` runs it"
PERSON = "a person signs in; tests/cli/test_auth.py does it against the sandbox"
NOT_RUN = {
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/itwin-mcp demo": CI,
    "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest": CI,
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'": CI,
    ".venv/bin/pytest": CI,
    ".venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy": CI,
    ".venv/bin/pytest -m slow": CI,
    ".venv/bin/pytest -m interop": CI,
    ".venv/bin/pytest -m interop tests/interop/bentley": CI,
    ".venv/bin/pytest -m full": "`.ci/full` runs it",
    ".venv/bin/pytest -m live": "nobody here has an account",
    "ITWIN_ACCESS_TOKEN=… .venv/bin/pytest -m live": "nobody here has an account",
    "py -3 -m venv .venv": "Windows",
    '.venv\\Scripts\\pip install ".[test]"': "Windows",
    ".venv\\Scripts\\itwin-mcp demo": "Windows",
    ".venv\\Scripts\\pytest": "Windows",
    "uvx --from . itwin-mcp demo": "it needs uv; the command itself is `demo`, which tests/cli/test_demo.py runs",
    ".venv/bin/itwin-mcp auth login": PERSON,
    "itwin-mcp auth login": PERSON,
    "itwin-mcp approve K7QX2M9P": PERSON,
}
"""Lines of shell blocks that are not run here, each with the reason."""
SERVICES = {
    "itwin-mcp serve --http 127.0.0.1:8000 --http-token": "Serving MCP at",
    "itwin-mcp sandbox --port 8080": "The sandbox answers at",
}
"""Lines that run until they are ended, and what they say once they are up."""


def test_every_command_that_a_document_prints_is_there_with_its_options() -> None:
    found = [(document, *place) for document in DOCUMENTS for place in lines_in(document) if "itwin-mcp" in place[1]]
    assert len(found) > 40
    wrong = [f"{document}:{number}: {line}: {why}" for document, number, line in found if (why := complaint(line))]
    assert wrong == []


def test_every_example_in_the_help_is_a_command_that_is_there() -> None:
    wrong, seen = [], 0
    for name, command in every_command():
        for line in re.findall(r"^ +((?:[A-Z_]+=\S+ )*itwin-mcp .+?)(?:   .*)?$", command.help or "", re.MULTILINE):
            seen += 1
            if why := complaint(line):
                wrong.append(f"{name}: {line}: {why}")
    assert wrong == []
    assert seen > 30


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("itwin-mcp fly", "itwin-mcp has no command fly"),
        ("itwin-mcp serve --fly", "serve has no option --fly"),
        ("X=1 .venv/bin/itwin-mcp install emacs", "install knows no emacs"),
        ("itwin-mcp serve --log-level loud", "--log-level cannot be loud"),
        ("itwin-mcp demo now", "demo takes no now"),
        ("pip install --fly", None),
    ],
)
def test_a_wrong_command_would_be_seen(line: str, why: str | None) -> None:
    assert (complaint(line) or "").replace("group", "itwin-mcp") == (why or "")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_that_is_named_alone_is_one_of_some_command(document: str) -> None:
    known = {option for _, command in every_command() for option in options_of(command)} | FOREIGN_OPTIONS.keys()
    named = [span.split()[0] for span in re.findall(r"`(--[^`]+)`", prose(document))]
    assert [option for option in named if OPTION.fullmatch(option.partition("=")[0]) and option not in known] == []


@pytest.mark.parametrize("document", LINKED)
def test_every_setting_that_is_named_exists(document: str) -> None:
    named = set(re.findall(r"\b(?:ITWIN|ITP|IMODEL)_[A-Z][A-Z_]*\b", text_of(document)))
    assert named - set(ENVIRONMENT) == set()


def servers_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What a client's configuration starts, in whichever member that client has."""
    members = [content[name] for name in ("mcpServers", "servers", "context_servers", "mcp_servers") if name in content]
    return [entry for member in members for entry in member.values()]


def test_each_clients_configuration_is_one_and_starts_us_as_we_can_be_started() -> None:
    checked = 0
    for block in blocks("README.md"):
        if block.language not in ("json", "toml"):
            continue
        content = json.loads(block.text) if block.language == "json" else tomllib.loads(block.text)
        for entry in servers_of(content):
            checked += 1
            assert complaint(shlex.join([entry["command"], *entry["args"]])) is None
            assert entry["args"][0] == "serve"
            assert set(entry.get("env", {})) <= set(ENVIRONMENT)
    assert checked >= 4


def test_the_error_that_is_shown_has_the_shape_of_every_error() -> None:
    (shown,) = [block for block in blocks("README.md") if block.language == "json" and '"error"' in block.text]
    error = json.loads(shown.text)["error"]
    real = CallError("x", "x", hint="x", status=409, correlation_id="x").to_json("x")
    assert list(error) == list(real)


def test_the_table_of_our_codes_has_those_that_are_in_the_source_and_no_other() -> None:
    raising = {"CallError", "Unreachable", "_unfinished", "_no"}
    found = set()
    for file in (ROOT / "src/itwin_mcp").rglob("*.py"):
        if "sandbox" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
                found.update(re.findall(r"'([A-Z]\w+)'", ast.unparse(node.value)))
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            # In errors.py a class gives its own code to the one it stands on.
            own = isinstance(node.func, ast.Attribute) and node.func.attr == "__init__" and file.name == "errors.py"
            if own or (isinstance(node.func, ast.Name) and node.func.id in raising):
                found.add(node.args[0].value)
    found.discard("not confirmed")  # no code: what Unconfirmed is as an exception; a preview is the answer
    for file in (ROOT / "capabilities").glob("*.yaml"):
        found.update(re.findall(r"x-require:[^}]*?\bcode: (\w+)", file.read_text(encoding="utf-8")))
    assert codes_in(between("codes")) == found


def test_the_platforms_codes_that_are_named_are_the_sandboxs_with_their_status() -> None:
    rows = re.findall(r"^\| (`.+`) \| (\d+) \|", between("platform's codes"), re.MULTILINE)
    assert rows
    for codes, status in rows:
        for code in re.findall(r"`(\w+)`", codes):
            assert ERRORS[code][0] == int(status), code


def test_the_guide_about_errors_has_every_code_of_ours_and_codes_of_the_platform_that_come() -> None:
    tables = text_of("capabilities/guides/errors.md").split("## Codes of the platform")
    ours, platforms = (
        {
            code
            for row in re.findall(r"^\| ([A-Z]\w+(?:, \w+)*|i\w+(?:, \w+)*) \|", table, re.MULTILINE)
            for code in row.split(", ")
        }
        for table in tables
    )
    assert ours == codes_in(between("codes"))
    assert platforms - coming_codes() == set()
    assert len(platforms) > 10


def test_what_the_guides_call_missing_is_no_api_that_is_consumed() -> None:
    limits = text_of("capabilities/guides/limits.md")
    missing = " ".join(re.findall(r"^\|[^|]*\|([^|]*)\|$", limits, re.MULTILINE))
    consumed = [file.name.removesuffix("-api.consumes.yaml") for file in ROOT.glob("capabilities/platform/*.yaml")]
    names = {"itwins": "iTwins API", "imodels": "iModels API", "access-control": "Access Control API"}
    assert sorted(consumed) == sorted(names)
    for name in names.values():
        assert name in limits.split("\n| ")[0]
        assert name.removesuffix(" API") not in missing


def test_the_tools_that_the_guides_name_are_there() -> None:
    tools = read_catalog(read_settings(os.environ, toolsets="all")).tools
    for file in ROOT.glob("capabilities/guides/*.md"):
        named = re.findall(r"`([a-z]+-[a-z-]+)`", file.read_text(encoding="utf-8"))
        assert {name for name in named if name not in tools} == set(), file


def test_the_resources_and_prompts_that_the_readme_names_are_those_that_are_served() -> None:
    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    served = {one.uri for one in (*catalog.resources, *catalog.statics)}
    named = set(re.findall(r"`(itwin://[^`]+)`", text_of("README.md")))
    assert named - served == set()
    assert {one.uri for one in catalog.statics} - named == set()
    prompts = re.search(r"^- prompts for whole jobs: (.+?); (.+?)\.$", text_of("README.md"), re.MULTILINE | re.DOTALL)
    assert prompts is not None
    usual, others = (set(re.findall(r"`([^`]+)`", part)) for part in prompts.groups())
    assert usual == set(read_catalog(read_settings(os.environ)).prompts)
    assert usual | others == set(catalog.prompts)


def anchors_of(document: str) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(document: str) -> list[str]:
    text = prose(document)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(https?://[^>\s]+)>", text)


def broken(document: str, link: str) -> str | None:
    """What is wrong with a link of a document."""
    if re.match(r"[a-z]+:", link):
        address = re.fullmatch(r"https://([a-z0-9.-]+)(?:/[\w./#-]*)?", link)
        if address is None:
            return "is no plain https address"
        known = any(address[1] == host or address[1].endswith(f".{host}") for host in HOSTS)
        return None if known else f"{address[1]} is not among HOSTS"
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    if not target.is_file():
        return "leads to no file"
    inside = target.resolve().relative_to(ROOT).as_posix()
    return f"has no such heading in {inside}" if anchor and anchor not in anchors_of(inside) else None


def test_every_link_leads_somewhere() -> None:
    found = [(document, link) for document in LINKED for link in links_of(document)]
    assert len(found) > 20
    assert [f"{document}: {link} {why}" for document, link in found if (why := broken(document, link))] == []
    used = {host for host in HOSTS if any(f"{host}" in link for _, link in found)}
    assert used == set(HOSTS)


@pytest.mark.parametrize(
    "link",
    ["http://ikanos.io", "https://example.com", "NOWHERE.md", "README.md#nowhere", "#nowhere", "https://ikanos.io/a b"],
)
def test_a_broken_link_would_be_seen(link: str) -> None:
    assert broken("README.md", link) is not None


def test_every_block_has_a_language_that_is_checked() -> None:
    seen = {block.language for document in DOCUMENTS for block in blocks(document)}
    assert seen <= {"sh", "powershell", "json", "toml", "yaml", "python", "text"}


def test_contributing_is_one_page() -> None:
    assert len(text_of("CONTRIBUTING.md").splitlines()) <= 66


def shell_blocks() -> list[Block]:
    return [
        block for document in ("README.md", "CONTRIBUTING.md") for block in blocks(document) if block.language == "sh"
    ]


def test_no_reason_for_not_running_a_line_is_stale() -> None:
    lines = {line for block in shell_blocks() for line in shell_lines(block)}
    assert (NOT_RUN.keys() | SERVICES.keys()) - lines == set()
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in ("pytest", "ruff check .", "ruff format --check .", "mypy", 'pytest -m "slow or interop"'):
        assert f".venv/bin/{command}" in script
    assert ".venv/bin/pytest -m full" in (ROOT / ".ci/full").read_text(encoding="utf-8")


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder of a reader who has no account: our programs, the files that README names, every client started once."""
    (tmp_path / "my-api.yaml").write_text(GOOD, encoding="utf-8")
    (policy,) = [block.text for block in blocks("README.md") if "itwin-mcp-policy" in block.text]
    (tmp_path / "policy.yaml").write_text(policy, encoding="utf-8")
    for folder in (".venv", ".cursor", ".config/Claude", ".config/Code/User"):
        (tmp_path / folder).mkdir(parents=True)
    scripts = Path(sys.executable).parent
    (tmp_path / ".venv/bin").symlink_to(scripts)
    monkeypatch.chdir(tmp_path)
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config"), "ITWIN_MCP_SANDBOX": "true"}
    return {**os.environ, **home, "PATH": os.pathsep.join([str(scripts), "/usr/bin", "/bin"])}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="the blocks are for a POSIX shell")
@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: f"{block.document}:{block.line}")
def test_every_shell_block_runs(block: Block, surroundings: dict[str, str]) -> None:
    lines = [line for line in shell_lines(block) if line not in NOT_RUN]
    script = "\n".join(["set -e", *(line for line in lines if line not in SERVICES)])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=240, env=surroundings, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    for line in lines:
        if line in SERVICES:
            words = shlex.split(re.sub(r"\b8\d{3}\b", str(free_port()), line))
            service = subprocess.Popen(
                words,
                env=surroundings | {"PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                assert service.stdout is not None
                assert any(SERVICES[line] in said for said in service.stdout), line
            finally:
                service.terminate()
                service.communicate(timeout=20)
