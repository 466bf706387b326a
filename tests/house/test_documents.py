"""Check the commands, options, settings, codes, links and code blocks in the documents."""

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
from tests.house.commands import OPTION, find_command_fault, find_command_lines, get_options, walk_commands
from tests.house.documents import (
    DOCUMENTS,
    PAGES,
    ROOT,
    Block,
    blocks,
    find_codes,
    list_error_codes,
    read_prose,
    read_section,
    shell_lines,
    text_of,
)
from tests.sandbox_process import free_port

LINKED = [
    *DOCUMENTS,
    "CHANGELOG.md",
    *sorted(f"capabilities/guides/{guide.name}" for guide in ROOT.glob("capabilities/guides/*.md")),
]
HOSTS = {
    "astral.sh": "uv",
    "bentley.com": "the platform, its developer portal and its sign-in server",
    "github.com": "oidc-provider, for the sign-in server of a guide",
    "ikanos.io": "the format of the capability files",
    "keepachangelog.com": "the format of the changelog",
    "modelcontextprotocol.io": "the protocol",
    "semver.org": "the format of versions",
}
"""Hosts that links may lead to, with their content. Tests have no network, so each link was checked by hand."""
SKILLS = [folder.name for folder in sorted(ROOT.glob("capabilities/skills/*")) if folder.is_dir()]
FOREIGN_OPTIONS = {
    "--live-write": "pytest -m live; tests/conftest.py",
    "--quick": "benchmarks/measure.py",
    "--only": "benchmarks/measure.py",
}

CI = "`.ci/run` runs it"
PERSON = "a person signs in; tests/cli/test_auth.py does it against the sandbox"
SIGN_IN_SERVER = "tests/interop/test_sign_in_server.py follows the page"
REST = "tests/server/rest sends these requests"
BENCHMARK = "it takes five minutes, and a busy machine makes its numbers useless"
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
    "curl 'http://127.0.0.1:8000/rest/itwins/list-recent-itwins?limit=1'": REST,
    "curl -X POST http://127.0.0.1:8000/rest/imodels/create-imodel \\": REST,
    '-H \'Content-Type: application/json\' -d \'{"iTwinId": "…", "name": "Bridge"}\'': REST,
    "curl http://127.0.0.1:8000/rest/itwins/openapi.json": REST,
    "itwin-mcp skills export ./skills --capabilities fleet.yaml": "tests/skills/test_declared.py exports such a file",
}
"""Lines of shell blocks that these tests do not run, with the reasons."""
TESTED_ELSEWHERE = {"docs/tutorial.md": "tests/house/test_tutorial.py"}
"""Pages whose blocks depend on each other and are run by another test."""
SERVICES = {
    "itwin-mcp serve --http 127.0.0.1:8000 --http-token": "Serving MCP at",
    "itwin-mcp sandbox --port 8080": "The sandbox runs at",
    "itwin-mcp serve --http 127.0.0.1:8000 --rest": "Serving MCP at",
    "itwin-mcp serve --sandbox --http 127.0.0.1:8000 --rest": "Serving MCP at",
}
"""Commands that run until they are terminated, with a part of the line that they print when they are ready."""


def test_commands_in_documents_exist_with_their_options() -> None:
    count, faults = 0, []
    for document in DOCUMENTS:
        for number, line in find_command_lines(document):
            if "itwin-mcp" in line:
                count += 1
                if fault := find_command_fault(line):
                    faults.append(f"{document}:{number}: {line}: {fault}")
    assert faults == []
    assert count > 40


def test_examples_in_help_texts_are_valid_commands() -> None:
    count, faults = 0, []
    for name, command in walk_commands():
        for line in re.findall(r"^ +((?:[A-Z_]+=\S+ )*itwin-mcp .+?)(?:   .*)?$", command.help or "", re.MULTILINE):
            count += 1
            if fault := find_command_fault(line):
                faults.append(f"{name}: {line}: {fault}")
    assert faults == []
    assert count > 30


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("itwin-mcp fly", "itwin-mcp has no command fly"),
        ("itwin-mcp serve --fly", "serve has no option --fly"),
        ("X=1 .venv/bin/itwin-mcp install emacs", "install does not accept emacs"),
        ("itwin-mcp serve --log-level loud", "--log-level cannot be loud"),
        ("itwin-mcp demo now", "demo has no argument now"),
        ("pip install --fly", None),
    ],
)
def test_find_command_fault_reports_invalid_commands(line: str, fault: str | None) -> None:
    assert (find_command_fault(line) or "").replace("group", "itwin-mcp") == (fault or "")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_in_running_text_exist(document: str) -> None:
    existing = {option for _, command in walk_commands() for option in get_options(command)} | FOREIGN_OPTIONS.keys()
    words = [span.split()[0] for span in re.findall(r"`(--[^`]+)`", read_prose(document))]
    assert [word for word in words if OPTION.fullmatch(word.partition("=")[0]) and word not in existing] == []


@pytest.mark.parametrize("document", LINKED)
def test_settings_in_documents_exist(document: str) -> None:
    named = set(re.findall(r"\b(?:ITWIN|ITP|IMODEL)_[A-Z][A-Z_]*\b", text_of(document)))
    assert named - set(ENVIRONMENT) == set()


def list_servers(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the servers in a client's configuration. Each client has its own name for the list of servers."""
    members = [content[name] for name in ("mcpServers", "servers", "context_servers", "mcp_servers") if name in content]
    return [entry for member in members for entry in member.values()]


def test_client_configurations_parse_and_start_the_server() -> None:
    checked = 0
    for block in (*blocks("README.md"), *blocks("docs/clients.md")):
        if block.language not in ("json", "toml"):
            continue
        content = json.loads(block.text) if block.language == "json" else tomllib.loads(block.text)
        for entry in list_servers(content):
            checked += 1
            if address := entry.get("url") or entry.get("httpUrl"):
                assert address == "https://mcp.example.com/mcp"
                continue
            assert find_command_fault(shlex.join([entry["command"], *entry["args"]])) is None
            assert entry["args"][0] == "serve"
            assert set(entry.get("env", {})) <= set(ENVIRONMENT)
    assert checked >= 9


def test_error_on_answers_page_has_the_members_of_call_error() -> None:
    (example,) = [block for block in blocks("docs/answers.md") if block.language == "json" and '"error"' in block.text]
    error = CallError("x", "x", hint="x", status=409, correlation_id="x").to_json("x")
    assert list(json.loads(example.text)["error"]) == list(error)


def test_table_of_codes_lists_codes_of_enum_and_capability_files() -> None:
    codes = {str(code) for code in ErrorCode}
    for file in (ROOT / "capabilities").glob("*.yaml"):
        codes.update(re.findall(r"x-require:[^}]*?\bcode: (\w+)", file.read_text(encoding="utf-8")))
    assert find_codes(read_section("codes")) == codes


def test_source_refers_to_error_codes_only_through_their_enums() -> None:
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
    rows = re.findall(r"^\| (`.+`) \| (\d+) \|", read_section("platform's codes"), re.MULTILINE)
    assert rows
    for codes, status in rows:
        for code in re.findall(r"`(\w+)`", codes):
            assert ERRORS[code][0] == int(status), code


def test_errors_guide_lists_our_codes_and_existing_platform_codes() -> None:
    tables = text_of("capabilities/guides/errors.md").split("## Codes of the platform")
    ours, platforms = (
        {
            code
            for row in re.findall(r"^\| ([A-Z]\w+(?:, \w+)*|i\w+(?:, \w+)*) \|", table, re.MULTILINE)
            for code in row.split(", ")
        }
        for table in tables
    )
    assert ours == find_codes(read_section("codes"))
    assert platforms - list_error_codes() == set()
    assert len(platforms) > 10


def test_limits_guide_does_not_list_consumed_apis_as_missing() -> None:
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
        named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", read_prose(document)))
        like_tools = {name for name in named if name.partition("-")[0] in verbs}
        assert like_tools - {*catalog.tools, *dynamic, *catalog.prompts, *toolsets, *SKILLS} == set(), document


def test_skills_page_names_every_skill() -> None:
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", read_prose("docs/skills.md"))) == set(SKILLS)


def test_readme_lists_every_toolset_and_marks_those_served_by_default() -> None:
    table = text_of("README.md").split("| toolsets | for |")[1].split("\n\n")[0]
    names = re.findall(r"(\*\*)?`([a-z-]+)`", table)
    everything = read_catalog(read_settings(os.environ, toolsets="all", files_root=[ROOT]))
    assert {name for _, name in names} == {tool.toolset for tool in everything.tools.values()}
    default = read_catalog(read_settings(os.environ))
    assert {name for bold, name in names if bold} == {tool.toolset for tool in default.tools.values()}


def test_command_line_page_lists_every_command() -> None:
    listed = re.findall(r"^\| `itwin-mcp ([a-z]+)` \|", text_of("docs/command-line.md"), re.MULTILINE)
    assert set(listed) == {name for name, _ in walk_commands() if name and " " not in name}
    assert len(listed) == len(set(listed))


def test_index_links_every_page() -> None:
    linked = set(find_links("docs/index.md"))
    assert [page for page in PAGES if page != "docs/index.md" and page.removeprefix("docs/") not in linked] == []


def test_resources_and_prompts_on_the_answers_page_are_served() -> None:
    catalog = read_catalog(read_settings(os.environ, toolsets="all"))
    uris = set(re.findall(r"`(itwin://[^`]+)`", text_of("docs/answers.md")))
    static_uris = {resource.uri for resource in catalog.statics}
    assert uris <= {template.uri for template in catalog.resources} | static_uris
    assert static_uris <= uris
    prompts = re.search(
        r"^- prompts for whole jobs: (.+?); (.+?)\.$", text_of("docs/answers.md"), re.MULTILINE | re.DOTALL
    )
    assert prompts is not None
    default_prompts, other_prompts = (set(re.findall(r"`([^`]+)`", part)) for part in prompts.groups())
    assert default_prompts == set(read_catalog(read_settings(os.environ)).prompts)
    assert default_prompts | other_prompts == set(catalog.prompts)


def find_anchors(document: str) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", read_prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_links(document: str) -> list[str]:
    text = read_prose(document)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(https?://[^>\s]+)>", text)


def find_link_fault(document: str, link: str) -> str | None:
    """Return the error in a link of a document, or None if it is valid."""
    if re.match(r"[a-z]+:", link):
        address = re.fullmatch(r"https://([a-z0-9.-]+)(?:/[\w./#-]*)?", link)
        if address is None:
            return "is not a plain https address"
        is_known = any(address[1] == host or address[1].endswith(f".{host}") for host in HOSTS)
        return None if is_known else f"{address[1]} is not in HOSTS"
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    if not target.is_file():
        return "leads to a missing file"
    page = target.resolve().relative_to(ROOT).as_posix()
    return f"leads to a missing heading of {page}" if anchor and anchor not in find_anchors(page) else None


def test_links_in_documents_resolve() -> None:
    links = [(document, link) for document in LINKED for link in find_links(document)]
    assert len(links) > 20
    faults = [(document, link, find_link_fault(document, link)) for document, link in links]
    assert [fault for fault in faults if fault[2] is not None] == []
    assert [host for host in HOSTS if not any(host in link for _, link in links)] == []


@pytest.mark.parametrize(
    "link",
    ["http://ikanos.io", "https://example.com", "NOWHERE.md", "README.md#nowhere", "#nowhere", "https://ikanos.io/a b"],
)
def test_find_link_fault_reports_invalid_links(link: str) -> None:
    assert find_link_fault("README.md", link) is not None


def test_blocks_have_a_checked_language() -> None:
    languages = {block.language for document in DOCUMENTS for block in blocks(document)}
    assert languages <= {"sh", "powershell", "json", "toml", "yaml", "python", "js", "text", "{toctree}"}


def test_contributing_is_one_page() -> None:
    assert len(text_of("CONTRIBUTING.md").splitlines()) <= 66


def shell_blocks() -> list[Block]:
    return [
        block
        for document in DOCUMENTS
        if document not in TESTED_ELSEWHERE
        for block in blocks(document)
        if block.language == "sh" and block.words != "service" and "http.server" not in block.text
    ]


def test_not_run_and_services_list_only_lines_of_documents() -> None:
    lines = {line for block in shell_blocks() for line in shell_lines(block)}
    assert (NOT_RUN.keys() | SERVICES.keys()) - lines == set()
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in ("pytest", "ruff check .", "ruff format --check .", "mypy", 'pytest -m "slow or interop"'):
        assert f".venv/bin/{command}" in script
    assert ".venv/bin/pytest -m full" in (ROOT / ".ci/full").read_text(encoding="utf-8")


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a reader: an empty home folder with the files that the pages use, and no account."""
    (tmp_path / "my-api.yaml").write_text(WEATHER, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "capability" / "data" / "library-api.yaml", tmp_path / "api.json")
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
                assert any(SERVICES[line] in output for output in service.stdout), line
            finally:
                service.terminate()
                service.communicate(timeout=20)
