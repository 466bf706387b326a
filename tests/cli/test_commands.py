"""`tools`, `call` and `capability` from the shell: answers on stdout, messages on stderr, exit codes."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "itwin_mcp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


def run_json(*arguments: str, code: int = 0, **environment: str) -> Any:
    """Run a command and return the JSON that it prints."""
    process = run(*arguments, **environment)
    assert process.returncode == code, process.stderr + process.stdout
    return json.loads(process.stdout)


COMMANDS = [
    (),
    ("serve",),
    ("demo",),
    ("tools",),
    ("tools", "list"),
    ("tools", "describe"),
    ("call",),
    ("approve",),
    ("install",),
    ("auth",),
    ("auth", "login"),
    ("auth", "status"),
    ("auth", "logout"),
    ("doctor",),
    ("sandbox",),
    ("skills",),
    ("skills", "list"),
    ("skills", "export"),
    ("capability",),
    ("capability", "check"),
    ("capability", "words"),
    ("capability", "export"),
    ("capability", "import-openapi"),
    ("capability", "new"),
    ("policy",),
    ("policy", "check"),
    ("policy", "test"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(command: tuple[str, ...]) -> None:
    process = run(*command, "--help")
    assert process.returncode == 0, process.stderr
    assert "Examples:" in process.stdout
    assert process.stderr == ""


def test_help_lists_every_command_and_the_exit_codes() -> None:
    process = run("--help")
    for command in COMMANDS[1:]:
        assert command[0] in process.stdout
    assert "Exit codes:" in process.stdout


def test_unknown_command_exits_with_two() -> None:
    process = run("fly")
    assert (process.returncode, process.stdout) == (2, "")
    assert "No such command 'fly'" in process.stderr


DATABASES = [
    ("no/folder/here.db", "unable to open database file"),
    ("folder", "unable to open database file"),
    ("notes.txt", "file is not a database"),
    ("other.db", "schema version"),
]


@pytest.mark.parametrize(("name", "words"), DATABASES)
@pytest.mark.parametrize("command", ["sandbox token", "call list-itwins --sandbox"])
def test_sandbox_db_that_cannot_be_opened_is_reported(command: str, name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("Not a database, and long enough to be read as one. " * 20)
    with closing(sqlite3.connect(tmp_path / "other.db")) as database, database:
        database.execute("CREATE TABLE other (id)")
    process = run(*command.split(), "--sandbox-db", str(tmp_path / name))
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"itwin-mcp: --sandbox-db {tmp_path / name} cannot be opened: ")
    assert words in process.stderr
    assert process.stderr.count("\n") == 1


def test_tilde_is_expanded_in_path_options_and_arguments(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    assert run("sandbox", "token", "--sandbox-db=~/state.db", **home).returncode == 0
    assert (tmp_path / "state.db").exists()
    assert run("capability", "export", "~/plain", **home).returncode == 0
    assert list((tmp_path / "plain").iterdir())
    (tmp_path / "files").mkdir()
    call = ("call", "save-list", "--sandbox", "--files-root=~/files", "--arg", "tool=list-itwins")
    assert run(*call, "--arg", "path=~/files/itwins.csv", **home).returncode == 0
    assert (tmp_path / "files" / "itwins.csv").exists()


def test_tools_json_reports_tokens_per_tool() -> None:
    report = run_json("tools", "--json")
    names = [tool["name"] for tool in report["tools"]]
    assert "clone-imodel" in names
    assert report["total"]["tools"] == len(names)
    assert report["total"]["tokens"] == sum(tool["tokens"] for tool in report["tools"])


def test_tools_describe_shows_arguments_and_operations() -> None:
    process = run("tools", "describe", "clone-imodel")
    assert process.returncode == 0
    assert "iModelId  string, required" in process.stdout
    assert "sends POST https://api.bentley.com/imodels/{id}/clone" in process.stdout


def test_tools_describe_shows_choices_and_members_of_objects() -> None:
    described = run("tools", "describe", "create-imodel").stdout
    assert "southWest  object, required\n          latitude  number, required" in described
    assert "one of: Account, Portfolio, Asset" in run("tools", "describe", "list-itwins").stdout


def test_tools_list_accepts_options_before_and_after_list() -> None:
    listed = run("tools", "list", "--toolsets", "locks", "--read-only").stdout
    assert "list-locks" in listed
    assert "acquire-locks" not in listed
    assert run("tools", "--read-only", "list", "--toolsets", "locks").stdout == listed


def test_tools_describe_shows_a_tool_of_a_capability_file(tmp_path: Path) -> None:
    file = tmp_path / "weather.yaml"
    file.write_text(WEATHER)
    assert "Read one weather station." in run("tools", "describe", "get-station", "--capabilities", str(file)).stdout


def test_call_suggests_a_similar_argument() -> None:
    process = run("call", "list-itwins", "--sandbox", "--arg", "serach=bridge")
    error = json.loads(process.stdout)["error"]
    assert (process.returncode, error["code"]) == (1, "InvalidArguments")
    assert error["details"][0]["message"] == "serach is not an argument (did you mean search?)"
    assert "`itwin-mcp tools describe list-itwins`" in process.stderr


def test_call_reads_arguments_from_a_file_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "arguments.json"
    file.write_bytes(b'\xef\xbb\xbf{"limit": 2, "search": "bridge"}')
    command = ("call", "list-itwins", "--dry-run", "--json")
    shown = run_json(*command, f"@{file}")
    assert {"name": "$search", "value": "bridge"} in shown["query"]
    piped = subprocess.run(
        [sys.executable, "-m", "itwin_mcp", *command, "-"],
        input=file.read_text(encoding="utf-8-sig"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(piped.stdout) == shown


def test_call_converts_arguments_like_json() -> None:
    answer = run_json("call", "list-itwins", "--sandbox", "--arg", "subClass=Asset,Project", "--arg", "limit=2")
    assert [itwin["subClass"] in ("Asset", "Project") for itwin in answer["iTwins"]] == [True, True]
    same = run_json("call", "list-itwins", "--sandbox", "--json", '{"subClass": ["Asset", "Project"], "limit": 2}')
    assert same["iTwins"] == answer["iTwins"]


def test_failed_call_prints_the_error_and_exits_with_one() -> None:
    absent = "1c4b1d5e-0000-4000-8000-000000000000"
    answer = run_json("call", "get-itwin", "--sandbox", "--arg", f"iTwinId={absent}", code=1)
    assert answer["error"]["code"] == "iTwinNotFound"
    refused = run_json("call", "list-itwins", "--sandbox", "--arg", "limit=x", code=1)
    assert refused["error"]["code"] == "InvalidArguments", "an answer too, though nothing was sent"


def test_dry_run_prints_the_request_without_credentials() -> None:
    # The address is one that would refuse a connection: nothing is sent.
    shown = run_json(
        "call",
        "update-itwin",
        "--dry-run",
        "--arg",
        "iTwinId=1c4b1d5e-0000-4000-8000-000000000000",
        "--arg",
        "clear=latitude",
        "--arg",
        "status=Inactive",
        ITWIN_API_URL="http://127.0.0.1:1",
        ITWIN_ACCESS_TOKEN="canary-secret-token",
    )
    assert shown["method"] == "PATCH"
    assert shown["url"] == "https://api.bentley.com/itwins/1c4b1d5e-0000-4000-8000-000000000000"
    assert shown["body"] == {"status": "Inactive", "latitude": None}
    assert "canary" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("instal", "cursor"), "No such command 'instal'. Did you mean 'install'?"),
        (("list-itwins",), "`itwin-mcp call NAME`"),
        (("capability", "new", "My API"), "'My API' cannot be a name"),
        (("capability", "new", "itwins"), "'itwins' is used by our own files"),
        (("serve", "--watch"), "--watch needs --capabilities"),
        (("call", "fly"), "There is no tool 'fly'"),
        (("call", "list_itwins"), "There is no tool 'list_itwins'. Did you mean 'list-itwins'?"),
        (("call", "create-imodel", "--read-only"), "it changes data, and --read-only leaves it out"),
        (("call", "sign-in"), "`itwin-mcp auth login`"),
        (("call", "create-itwin", "--json", "@no-such.json"), "no-such.json cannot be read: No such file"),
        (("call", "list-itwins", "--arg", "limit"), "is not NAME=VALUE"),
        (("call", "list-itwins", "--json", "{"), "--json is not JSON"),
        (("call", "list-itwins", "--json", "[]"), "must be one JSON object"),
        (("tools", "describe", "fly"), "There is no tool 'fly'"),
        (("tools", "--toolsets", "fly"), "There is no toolset 'fly'"),
        (("tools", "--toolsets", "imodel"), "did you mean 'imodels'?"),
    ],
)
def test_wrong_usage_exits_with_two_and_an_error_message(arguments: tuple[str, ...], words: str) -> None:
    process = run(*arguments)
    assert (process.returncode, process.stdout) == (2, "")
    assert words in process.stderr


WEATHER = """
ikanos: "1.0.0-beta5"
capability:
  consumes:
  - type: http
    namespace: weather
    description: "The weather service."
    baseUri: "https://weather.example"
    resources:
      stations:
        path: "/stations/{{id}}"
        operations:
          get-station:
            inputParameters: {id: {in: path}}
  exposes:
  - type: mcp
    transport: stdio
    namespace: stations
    tools:
      get-station:
        description: "Read one weather station."
        inputParameters: {id: {type: string, description: "Its id."}}
        call: weather.get-station
        with: {id: stations.id}
        outputParameters: [{type: object, properties: {station: {type: object, mapping: "$", properties: {}}}}]
"""


def test_capability_check_lists_the_tools_of_a_valid_file(tmp_path: Path) -> None:
    file = tmp_path / "weather.yaml"
    file.write_text(WEATHER)
    assert run_json("capability", "check", str(file), "--json") == {
        "problems": [],
        "warnings": [],
        "tools": ["get-station"],
        "credentials": [],
    }
    assert run("capability", "check", str(file)).stdout == "No problems. Tools: get-station.\n"


def test_capability_check_warns_of_rules_missing_in_descriptions(tmp_path: Path) -> None:
    file = tmp_path / "weather.yaml"
    old = 'inputParameters: {id: {type: string, description: "Its id."}}'
    new = """x-schema: {{not: {{required: [more, sort]}}}}
        inputParameters:
          id: {{type: string, description: "Its id."}}
          more: {{type: boolean, required: false, description: "All of it{stated}."}}
          sort: {{type: array, required: false, description: "Kinds{once}.", x-schema: {{uniqueItems: true}}}}"""
    inputs = (
        "inputParameters: {id: {in: path}}",
        "inputParameters: {id: {in: path}, more: {in: query}, sort: {in: query}}",
    )
    used = ("with: {id: stations.id}", 'with: {id: "{{id}}", more: stations.more, sort: stations.sort}')
    file.write_text(WEATHER.replace(old, new.format(stated="", once="")).replace(*used).replace(*inputs))
    warnings = run_json("capability", "check", str(file), "--json")["warnings"]
    line = file.read_text().splitlines().index("      get-station:") + 1
    assert [(warning["rule"], warning["line"]) for warning in warnings] == [("unstated-rule", line)] * 2
    assert "'not' of more and sort" in warnings[0]["message"]
    assert "'uniqueItems' of sort" in warnings[1]["message"]
    shown = run("capability", "check", str(file)).stdout.splitlines()
    assert (len(shown), shown[0].startswith("warning: "), shown[-1][:11]) == (3, True, "No problems")
    file.write_text(
        WEATHER.replace(old, new.format(stated=", not with sort", once=", each once")).replace(*used).replace(*inputs)
    )
    assert run_json("capability", "check", str(file), "--json")["warnings"] == []


def test_capability_check_lists_problems_with_line_and_rule(tmp_path: Path) -> None:
    file = tmp_path / "weather.yaml"
    file.write_text(
        WEATHER.replace("get-station:\n        description", "get-itwin:\n        description").replace(
            "weather.get-station", "weather.get-stations"
        )
    )
    problems = run_json("capability", "check", str(file), "--json", code=2)["problems"]
    rules = {(problem["rule"], problem["line"]) for problem in problems}
    lines = file.read_text().splitlines()
    assert ("unique-tool", lines.index("      get-itwin:") + 1) in rules
    plain = run("capability", "check", str(file))
    assert plain.returncode == 2
    assert f"{file}:" in plain.stdout


def test_capability_import_openapi_lists_writes_and_reports(tmp_path: Path) -> None:
    definition = str(Path(__file__).parents[1] / "capability" / "data" / "library-api.yaml")
    listed = run_json("capability", "import-openapi", definition, "--json")["operations"]
    assert {"method": "GET", "path": "/books"}.items() <= listed[0].items()
    file = tmp_path / "library.yaml"
    written = run_json("capability", "import-openapi", definition, "--tag", "Books", "-o", str(file), "--json")
    assert (written["file"], written["tools"][0]) == (str(file), "list-books")
    assert {
        "subject": "GET /old",
        "message": "is not imported: it is deprecated, and not chosen by its name",
    } in written["report"]
    assert run_json("capability", "check", str(file), "--json")["tools"] == written["tools"]
    again = run("capability", "import-openapi", definition, "--all", "-o", str(file))
    assert (again.returncode, "--force" in again.stderr) == (2, True)


@pytest.mark.parametrize("name", ["weather", "itwin-notes"])
def test_capability_new_writes_a_file_that_checks_and_is_served(name: str, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    assert run("capability", "new", name, "-o", str(file)).returncode == 0
    checked = run_json("capability", "check", str(file), "--json")
    assert (checked["problems"], checked["warnings"]) == ([], [])
    tools = [f"{name}-list-items", f"{name}-get-item", f"{name}-create-item"]
    assert checked["tools"] == tools
    served = run_json("tools", "--json", "--capabilities", str(file), "--toolsets", name)["tools"]
    assert [tool["name"] for tool in served] == tools
    again = run("capability", "new", name, "-o", str(file))
    assert (again.returncode, "--force" in again.stderr) == (2, True)


def test_capability_words_explains_each_extension_and_its_place() -> None:
    assert "### `x-each`: a call step" in run("capability", "words").stdout


def test_capability_export_omits_our_extensions(tmp_path: Path) -> None:
    written = run_json("capability", "export", str(tmp_path / "plain"), "--json")["files"]
    assert any(file.endswith("imodels.yaml") for file in written)
    for file in written:
        assert "x-toolset" not in Path(file).read_text(encoding="utf-8")
