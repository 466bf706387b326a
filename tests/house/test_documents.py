"""Documents are true: commands, options, settings, codes, links, and every block of code."""

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

from itwin_mcp.errors import CallError, DetailCode, ErrorCode
from itwin_mcp.runtime import read_catalog
from itwin_mcp.sandbox.errors import ERRORS
from itwin_mcp.settings import ENVIRONMENT, read_settings
from tests.cli.test_commands import WEATHER
from tests.house.commands import OPTION, complaint, every_command, lines_in, options_of
from tests.house.documents import (
    DOCUMENTS,
    PAGES,
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
    "github.com": "oidc-provider, of the sign-in server to try",
    "ikanos.io": "the format of the capability files",
    "keepachangelog.com": "the changelog's form",
    "modelcontextprotocol.io": "the protocol",
    "semver.org": "the versions' form",
}
"""Hosts that a link may lead to, with what is there. Tests have no network, so each was checked by hand."""
SKILLS = [folder.name for folder in sorted(ROOT.glob("capabilities/skills/*")) if folder.is_dir()]
FOREIGN_OPTIONS = {
    "--live-write": "pytest -m live; tests/conftest.py",
    "--quick": "benchmarks/measure.py",
    "--only": "benchmarks/measure.py",
}

CI = "`.ci/run` runs it"
PERSON = "a person signs in; tests/cli/test_auth.py does it against the sandbox"
SIGN_IN_SERVER = "tests/interop/test_sign_in_server.py follows the page"
BENCHMARK = "it takes five minutes, and its numbers prove nothing on a busy machine"
NOT_RUN = {
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/itwin-mcp demo": CI,
    "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest": CI,
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'": CI,
    ".venv/bin/pytest": CI,
    ".venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy": CI,
    ".venv/bin/pytest -m slow": CI,
    ".venv/bin/pytest -m interop": CI,
    ".venv/bin/pytest -m interop tests/interop/bentley": CI,
    ".venv/bin/pip install -e '.[docs]'": CI,
    ".venv/bin/sphinx-build -W --keep-going -E -q -c docs . build/site": CI,
    ".venv/bin/pytest -m full": "`.ci/full` runs it",
    ".venv/bin/pytest -m live": "nobody here has an account",
    "ITWIN_ACCESS_TOKEN=… .venv/bin/pytest -m live": "nobody here has an account",
    "itwin-mcp auth login": PERSON,
    "ITWIN_PROFILE=client-a itwin-mcp auth login": PERSON,
    "itwin-mcp approve K7QX2M9P": PERSON,
    "docker compose up --build": "it needs a container engine",
    "itwin-mcp serve --http 10.0.0.5:8000": "nobody here has that address; tests/hosting runs replicas",
    "npm install oidc-provider@9.13.3": SIGN_IN_SERVER,
    "python3 -m venv .bench && .bench/bin/pip install '.[fast]' fastmcp psutil": BENCHMARK,
    ".bench/bin/python benchmarks/measure.py": BENCHMARK,
}
"""Lines of shell blocks that are not run here, each with the reason."""
FOLLOWED = {"docs/tutorial.md": "tests/house/test_tutorial.py"}
"""Pages whose blocks a test of their own runs, one after the other."""
SERVICES = {
    "itwin-mcp serve --http 127.0.0.1:8000 --http-token": "Serving MCP at",
    "itwin-mcp sandbox --port 8080": "The sandbox answers at",
}
"""Lines that run until they are ended, with what they print when they are ready."""


def test_commands_in_documents_exist_with_their_options() -> None:
    found = [(document, *place) for document in DOCUMENTS for place in lines_in(document) if "itwin-mcp" in place[1]]
    assert len(found) > 40
    wrong = [f"{document}:{number}: {line}: {why}" for document, number, line in found if (why := complaint(line))]
    assert wrong == []


def test_examples_in_help_texts_exist() -> None:
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
def test_complaint_reports_wrong_commands(line: str, why: str | None) -> None:
    assert (complaint(line) or "").replace("group", "itwin-mcp") == (why or "")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_in_running_text_exist(document: str) -> None:
    known = {option for _, command in every_command() for option in options_of(command)} | FOREIGN_OPTIONS.keys()
    named = [span.split()[0] for span in re.findall(r"`(--[^`]+)`", prose(document))]
    assert [option for option in named if OPTION.fullmatch(option.partition("=")[0]) and option not in known] == []


@pytest.mark.parametrize("document", LINKED)
def test_settings_in_documents_exist(document: str) -> None:
    named = set(re.findall(r"\b(?:ITWIN|ITP|IMODEL)_[A-Z][A-Z_]*\b", text_of(document)))
    assert named - set(ENVIRONMENT) == set()


def servers_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a client's configuration, under the key that this client uses."""
    members = [content[name] for name in ("mcpServers", "servers", "context_servers", "mcp_servers") if name in content]
    return [entry for member in members for entry in member.values()]


def test_client_configurations_parse_and_start_the_server() -> None:
    checked = 0
    for block in (*blocks("README.md"), *blocks("docs/clients.md")):
        if block.language not in ("json", "toml"):
            continue
        content = json.loads(block.text) if block.language == "json" else tomllib.loads(block.text)
        for entry in servers_of(content):
            checked += 1
            if address := entry.get("url") or entry.get("httpUrl"):
                assert address == "https://mcp.example.com/mcp"
                continue
            assert complaint(shlex.join([entry["command"], *entry["args"]])) is None
            assert entry["args"][0] == "serve"
            assert set(entry.get("env", {})) <= set(ENVIRONMENT)
    assert checked >= 9


def test_error_on_the_answers_page_has_the_shape_of_an_error() -> None:
    (shown,) = [block for block in blocks("docs/answers.md") if block.language == "json" and '"error"' in block.text]
    error = json.loads(shown.text)["error"]
    real = CallError("x", "x", hint="x", status=409, correlation_id="x").to_json("x")
    assert list(error) == list(real)


def test_table_of_codes_lists_every_error_code_and_those_of_capability_files() -> None:
    known = {str(code) for code in ErrorCode}
    for file in (ROOT / "capabilities").glob("*.yaml"):
        known.update(re.findall(r"x-require:[^}]*?\bcode: (\w+)", file.read_text(encoding="utf-8")))
    assert codes_in(between("codes")) == known


def test_error_codes_are_literals_nowhere_but_in_their_enums() -> None:
    codes = {str(code) for code in (*ErrorCode, *DetailCode)}
    offenders = [
        f"{file.name}:{node.lineno}"
        for file in (ROOT / "src/itwin_mcp").rglob("*.py")
        if "sandbox" not in file.parts and file.name != "errors.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in codes
    ]
    assert offenders == []


def test_table_of_platform_codes_matches_the_sandbox() -> None:
    rows = re.findall(r"^\| (`.+`) \| (\d+) \|", between("platform's codes"), re.MULTILINE)
    assert rows
    for codes, status in rows:
        for code in re.findall(r"`(\w+)`", codes):
            assert ERRORS[code][0] == int(status), code


def test_guide_to_errors_names_our_codes_and_existing_platform_codes() -> None:
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


def test_guide_to_limits_names_no_consumed_api_as_missing() -> None:
    limits = text_of("capabilities/guides/limits.md")
    missing = " ".join(re.findall(r"^\|[^|]*\|([^|]*)\|$", limits, re.MULTILINE))
    consumed = [
        file.name.removesuffix("-api.consumes.yaml") for file in ROOT.glob("capabilities/platform/*.consumes.yaml")
    ]
    names = {
        "itwins": "iTwins API",
        "imodels": "iModels API",
        "access-control": "Access Control API",
        "users": "Users API",
    }
    assert sorted(consumed) == sorted(names)
    for name in names.values():
        assert name in limits.split("\n| ")[0]
        assert name.removesuffix(" API") not in missing


def test_tools_in_guides_exist() -> None:
    tools = read_catalog(read_settings(os.environ, toolsets="all")).tools
    for file in ROOT.glob("capabilities/guides/*.md"):
        named = re.findall(r"`([a-z]+-[a-z-]+)`", file.read_text(encoding="utf-8"))
        assert {name for name in named if name not in tools} == set(), file


def test_tools_toolsets_and_prompts_in_documents_exist() -> None:
    everything = os.environ | {"ITWIN_CLIENT_ID": "native-x"}
    catalog = read_catalog(read_settings(everything, toolsets="all", files_root=[ROOT]))
    toolsets = {tool.toolset for tool in catalog.tools.values()}
    snapshot = json.loads(text_of("tests/contract/surface/dynamic.json"))
    dynamic = {tool["name"] for tool in snapshot["tools"]}
    verbs = {name.partition("-")[0] for name in catalog.tools}
    for document in DOCUMENTS:
        named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", prose(document)))
        like_tools = {name for name in named if name.partition("-")[0] in verbs}
        assert like_tools - {*catalog.tools, *dynamic, *catalog.prompts, *toolsets, *SKILLS} == set(), document


def test_skills_page_names_every_skill() -> None:
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", prose("docs/skills.md"))) == set(SKILLS)


def test_readme_lists_every_toolset_and_marks_those_served_by_default() -> None:
    table = text_of("README.md").split("| toolsets | for |")[1].split("\n\n")[0]
    names = re.findall(r"(\*\*)?`([a-z-]+)`", table)
    everything = read_catalog(read_settings(os.environ, toolsets="all", files_root=[ROOT]))
    assert {name for _, name in names} == {tool.toolset for tool in everything.tools.values()}
    default = read_catalog(read_settings(os.environ))
    assert {name for bold, name in names if bold} == {tool.toolset for tool in default.tools.values()}


def test_command_line_page_lists_every_command() -> None:
    listed = re.findall(r"^\| `itwin-mcp ([a-z]+)` \|", text_of("docs/command-line.md"), re.MULTILINE)
    assert set(listed) == {name for name, _ in every_command() if name and " " not in name}
    assert len(listed) == len(set(listed))


def test_index_links_every_page() -> None:
    linked = set(links_of("docs/index.md"))
    assert [page for page in PAGES if page != "docs/index.md" and page.removeprefix("docs/") not in linked] == []


def test_resources_and_prompts_on_the_answers_page_are_served() -> None:
    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    served = {one.uri for one in (*catalog.resources, *catalog.statics)}
    named = set(re.findall(r"`(itwin://[^`]+)`", text_of("docs/answers.md")))
    assert named - served == set()
    assert {one.uri for one in catalog.statics} - named == set()
    prompts = re.search(
        r"^- prompts for whole jobs: (.+?); (.+?)\.$", text_of("docs/answers.md"), re.MULTILINE | re.DOTALL
    )
    assert prompts is not None
    usual, others = (set(re.findall(r"`([^`]+)`", part)) for part in prompts.groups())
    assert usual == set(read_catalog(read_settings(os.environ)).prompts)
    assert usual | others == set(catalog.prompts)


def anchors_of(document: str) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links_of(document: str) -> list[str]:
    text = prose(document)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(https?://[^>\s]+)>", text)


def broken(document: str, link: str) -> str | None:
    """Return what is wrong with a link of a document, or None."""
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


def test_links_in_documents_resolve() -> None:
    found = [(document, link) for document in LINKED for link in links_of(document)]
    assert len(found) > 20
    assert [f"{document}: {link} {why}" for document, link in found if (why := broken(document, link))] == []
    used = {host for host in HOSTS if any(f"{host}" in link for _, link in found)}
    assert used == set(HOSTS)


@pytest.mark.parametrize(
    "link",
    ["http://ikanos.io", "https://example.com", "NOWHERE.md", "README.md#nowhere", "#nowhere", "https://ikanos.io/a b"],
)
def test_broken_reports_bad_links(link: str) -> None:
    assert broken("README.md", link) is not None


def test_blocks_have_a_checked_language() -> None:
    seen = {block.language for document in DOCUMENTS for block in blocks(document)}
    assert seen <= {"sh", "powershell", "json", "toml", "yaml", "python", "js", "text", "{toctree}"}


def test_contributing_is_one_page() -> None:
    assert len(text_of("CONTRIBUTING.md").splitlines()) <= 66


def shell_blocks() -> list[Block]:
    return [
        block
        for document in DOCUMENTS
        if document not in FOLLOWED
        for block in blocks(document)
        if block.language == "sh" and block.words != "service" and "http.server" not in block.text
    ]


def test_not_run_lists_only_lines_of_the_documents() -> None:
    lines = {line for block in shell_blocks() for line in shell_lines(block)}
    assert (NOT_RUN.keys() | SERVICES.keys()) - lines == set()
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in ("pytest", "ruff check .", "ruff format --check .", "mypy", 'pytest -m "slow or interop"'):
        assert f".venv/bin/{command}" in script
    assert ".venv/bin/pytest -m full" in (ROOT / ".ci/full").read_text(encoding="utf-8")


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A reader's folder, without an account: our programs, the files that the pages name, every client started once."""
    (tmp_path / "my-api.yaml").write_text(WEATHER, encoding="utf-8")
    (policy,) = [block.text for block in blocks("docs/confirmation.md") if "itwin-mcp-policy" in block.text]
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
def test_shell_blocks_run(block: Block, surroundings: dict[str, str]) -> None:
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
