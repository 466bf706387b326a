"""`itwin-mcp install`: adds an entry to a client's configuration and removes it, and changes nothing else."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from itwin_mcp.cli.clients import known_clients
from itwin_mcp.cli.clients.config_file import BACKUP_SUFFIX, ConfigFile, FileContents, add_entry
from itwin_mcp.cli.clients.json_text import parse
from itwin_mcp.cli.clients.known_clients import CLIENTS, find_config_path
from itwin_mcp.cli.clients.start_command import find_start_command
from itwin_mcp.cli.install import INSTALLABLE, command
from itwin_mcp.errors import SettingsError
from tests.capability.files import GOOD

IMODEL = "3f0b2f6e-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Share the cache of parsed capability files between tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a home folder with every client's settings folder, and no client's program on the PATH."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / ".config"))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    for name in ("ITWIN_MCP_STATE_DIR", "ITWIN_MCP_CACHE_DIR"):
        monkeypatch.delenv(name)  # install would copy them
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    for client in CLIENTS:
        config_path_of(client.key).parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


def config_path_of(client: str) -> Path:
    return find_config_path(next(candidate for candidate in CLIENTS if candidate.key == client), os.environ)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def run_json(*arguments: str) -> dict[str, Any]:
    """Run a command that succeeds and return its JSON."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


FILES = {
    "plain": '{\n  "mcpServers": {\n    "files": {\n      "command": "npx",\n      "args": ["-y"]\n    }\n  }\n}\n',
    "no servers": '{"theme": "dark", "scale": 1.0}',
    "empty object": "{}",
    "empty servers": '{\n  "mcpServers": {}, "servers": {\n  }\n}',
    "empty": "",
    "comments": '// mine\n{\n  /* servers */ "mcpServers": { // all\n    "a": {"url": "//y"} // last\n  }, // end\n}\n',
    "trailing commas": '{\n    "mcpServers": {\n        "a": {"args": [1,],},\n    },\n    "servers": {"b": {},},\n}\n',
    "CRLF": '{\r\n  "servers": {\r\n    "a": {}\r\n  },\r\n  "mcpServers": {\r\n    "a": {}\r\n  }\r\n}\r\n',
    "BOM": '\ufeff{\n  "mcpServers": {"a": {}}\n}\n',
    "tabs": '{\n\t"mcpServers": {\n\t\t"a": {}\n\t}\n}',
    "other alphabets": '{"名": "Ünï", "mcpServers": {"é": {"command": "\\u00e9"}}}',
}


ROUND_TRIPS = [
    *(pytest.param("cursor", text, id=f"cursor-{name}") for name, text in FILES.items()),
    *(pytest.param(client, FILES["comments"], id=client) for client in INSTALLABLE if client != "cursor"),
    pytest.param("vscode", FILES["CRLF"], id="vscode-CRLF"),
]


@pytest.mark.parametrize(("client", "text"), ROUND_TRIPS)
def test_uninstall_restores_the_file_byte_for_byte(home: Path, client: str, text: str) -> None:
    file = config_path_of(client)
    file.write_bytes(text.encode())
    before = parse(text)
    member = "servers" if client == "vscode" else "mcpServers"

    assert run_json(client, "--sandbox")["changes"] is True
    now = parse(file.read_bytes().decode())
    entry = now[member].pop("itwin")
    assert entry["args"] == ["serve", "--sandbox"]
    assert now == {member: {}} | before
    assert file.with_name(file.name + BACKUP_SUFFIX).read_bytes() == text.encode()

    written = file.read_bytes()
    assert run_json(client, "--sandbox")["changes"] is False
    assert file.read_bytes() == written
    run_json(client, "--read-only", "--sandbox")
    assert file.read_bytes() != written

    assert run_json(client, "--uninstall")["changes"] is True
    assert file.read_bytes() == text.encode()
    assert list(file.parent.glob(f"{file.name}*")) == [file]
    assert run_json(client, "--uninstall")["changes"] is False


def test_uninstall_deletes_a_file_that_install_created(home: Path) -> None:
    file = config_path_of("cursor")
    run_json("cursor", "--sandbox")
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    run_json("cursor", "--uninstall")
    assert not file.exists()


def test_uninstall_preserves_changes_by_the_client(home: Path) -> None:
    file = config_path_of("claude-desktop")
    file.write_text('{\n  "mcpServers": {\n    "a": {}\n  }\n}\n')
    run_json("claude-desktop", "--sandbox")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"theme": "dark"}, indent=2))
    changed = file.read_text()
    run_json("claude-desktop", "--uninstall")
    assert json.loads(file.read_text()) == {"mcpServers": {"a": {}}, "theme": "dark"}
    assert file.with_name(file.name + BACKUP_SUFFIX).read_text() == changed


FOREIGN = '{"mcpServers":{"itwin":{"command":"/opt/mine/run","env":{"KEY":"precious"}}}}'


@pytest.mark.parametrize("arguments", [("--sandbox",), ("--uninstall",)])
def test_install_rejects_an_entry_of_another_server(home: Path, arguments: tuple[str, ...]) -> None:
    file = config_path_of("cursor")
    file.write_text(FOREIGN)
    with pytest.raises(SettingsError, match=r"'itwin' in .*mcp\.json starts another server.*--name"):
        run("cursor", *arguments)
    assert [path.read_text() for path in file.parent.iterdir()] == [FOREIGN]


def test_backup_is_kept_after_repeated_install_and_uninstall(home: Path) -> None:
    file = config_path_of("cursor")
    written_by_user = FOREIGN.replace("/opt/mine/run", "/opt/itwin-mcp")
    file.write_text(written_by_user)
    run_json("cursor", "--sandbox")
    run_json("cursor", "--sandbox", "--read-only")
    output = run("cursor", "--uninstall").output
    assert json.loads(file.read_text()) == {"mcpServers": {}}
    backup = file.with_name(file.name + BACKUP_SUFFIX)
    assert backup.read_text() == written_by_user
    assert str(backup) in output


def test_uninstall_restores_a_server_that_an_old_version_replaced(home: Path) -> None:
    file = config_path_of("cursor")
    run_json("cursor", "--sandbox")
    entry = json.loads(file.read_text())["mcpServers"]["itwin"]
    contents = add_entry(FileContents(FOREIGN), ("mcpServers", "itwin"), entry)
    assert contents.text is not None
    file.write_text(contents.text)
    file.with_name(file.name + BACKUP_SUFFIX).write_text(FOREIGN)
    run_json("cursor", "--uninstall")
    assert [path.read_text() for path in file.parent.iterdir()] == [FOREIGN]


def test_failed_write_leaves_no_backup(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, original_replace = config_path_of("cursor"), Path.replace
    file.write_text("{}")

    def refuse(part: Path, target: Path) -> Path:
        if Path(target) == file:
            raise PermissionError(1, "Operation not permitted")
        return original_replace(part, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SettingsError, match="cannot be written: Operation not permitted"):
        run("cursor", "--sandbox")
    assert [path.read_text() for path in file.parent.iterdir()] == ["{}"]


def test_install_and_uninstall_by_name_are_independent(home: Path) -> None:
    file = config_path_of("cursor")
    file.write_text('{"mcpServers": {"a": {}}}')
    run_json("cursor", "--sandbox")
    run_json("cursor", "--sandbox", "--name", "itwin-qa", "--profile", "qa")
    assert list(json.loads(file.read_text())["mcpServers"]) == ["a", "itwin", "itwin-qa"]
    run_json("cursor", "--uninstall")
    run_json("cursor", "--uninstall", "--name", "itwin-qa")
    assert file.read_text() == '{"mcpServers": {"a": {}}}'


def test_print_shows_the_entry_and_changes_nothing(home: Path) -> None:
    file = config_path_of("cursor")
    file.write_text('{"mcpServers": {"a": {"env": {"KEY": "another-servers-secret"}}}}')
    shown = run("cursor", "--sandbox", "--print").stdout
    assert str(file) in shown
    assert "another-servers-secret" not in shown
    entry = json.loads(shown.split("\n", 1)[1])["mcpServers"]["itwin"]
    assert entry == {"command": find_start_command(os.environ).program, "args": ["serve", "--sandbox"]}
    assert run_json("cursor", "--sandbox", "--print")["printedOnly"] is True
    assert list(file.parent.iterdir()) == [file]
    assert "itwin" not in file.read_text()


BROKEN = {
    '{"mcpServers": ': "it is not JSON: a value is missing, in line 1",
    "[]": "the file is not an object",
    '{"mcpServers": {}, "mcpServers": {}}': "'mcpServers' appears twice",
    '{"mcpServers": 1}': "mcpServers is not an object",
    '{"mcpServers": null}': "json: mcpServers is not an object",
}


@pytest.mark.parametrize(("text", "words"), BROKEN.items())
@pytest.mark.parametrize("arguments", [("--sandbox",), ("--uninstall",)])
def test_install_reports_an_invalid_file_and_keeps_it(
    home: Path, text: str, words: str, arguments: tuple[str, ...]
) -> None:
    file = config_path_of("cursor")
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"{words}.*Nothing was changed") as refused:
        run("cursor", *arguments)
    assert str(file) in str(refused.value)
    assert [path.read_text() for path in file.parent.iterdir()] == [text]


def test_install_rejects_a_file_in_another_encoding(home: Path) -> None:
    config_path_of("cursor").write_bytes('{"a": "é"}'.encode("utf-16"))
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        run("cursor", "--sandbox")


def test_config_file_write_rejects_a_file_changed_since_it_was_read(home: Path) -> None:
    file = ConfigFile(config_path_of("cursor").resolve())
    file.path.write_text("{}")
    old = file.read()
    file.path.write_text('{"theme": "dark"}')
    with pytest.raises(SettingsError, match="Another program has just changed"):
        file.write(old, add_entry(old, ("mcpServers", "itwin"), {"command": "x"}))
    assert [path.read_text() for path in file.path.parent.iterdir()] == ['{"theme": "dark"}']


def test_install_preserves_a_symbolic_link_to_the_file(home: Path) -> None:
    file, target = config_path_of("cursor"), home / "dotfiles.json"
    target.write_text("{}")
    file.symlink_to(target)
    run_json("cursor", "--sandbox")
    assert file.is_symlink()
    assert "itwin" in target.read_text()


def test_install_rejects_a_client_that_is_not_installed(home: Path) -> None:
    config_path_of("cursor").parent.rmdir()
    with pytest.raises(SettingsError, match="Cursor was not found"):
        run("cursor", "--sandbox")
    assert not config_path_of("cursor").parent.exists()


@pytest.mark.parametrize("client", INSTALLABLE)
def test_print_works_for_a_client_that_is_not_installed(home: Path, client: str) -> None:
    file = config_path_of(client)
    if file.parent != home:
        file.parent.rmdir()
    assert '"serve",' in run(client, "--sandbox", "--print").stdout
    assert not file.exists()


def test_install_removes_the_byte_order_mark_for_claude_desktop(home: Path) -> None:
    file = config_path_of("claude-desktop")
    before = '\ufeff{\n  "mcpServers": {"a": {}}\n}\n'
    file.write_bytes(before.encode())
    (config,) = known_clients.read_configs(os.environ)
    assert "byte order mark: Claude Desktop cannot read it" in config.problem
    assert any("would be removed" in note for note in run_json("claude-desktop", "--sandbox", "--print")["notes"])
    assert file.read_bytes() == before.encode()

    assert any(
        "byte order mark" in note and "was removed" in note for note in run_json("claude-desktop", "--sandbox")["notes"]
    )
    assert set(json.loads(file.read_bytes().decode())["mcpServers"]) == {"a", "itwin"}
    assert file.with_name(file.name + BACKUP_SUFFIX).read_bytes() == before.encode()
    assert known_clients.read_configs(os.environ)[0].problem == ""
    assert run_json("claude-desktop", "--sandbox")["changes"] is False

    run_json("claude-desktop", "--uninstall")
    assert file.read_bytes() == before[1:].encode()
    assert list(file.parent.glob(f"{file.name}*")) == [file]


def test_install_removes_the_byte_order_mark_with_an_existing_entry(home: Path) -> None:
    file = config_path_of("claude-desktop")
    run_json("claude-desktop", "--sandbox")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert run_json("claude-desktop", "--sandbox")["changes"] is True
    assert json.loads(file.read_bytes().decode())["mcpServers"].keys() == {"itwin"}


@pytest.mark.parametrize("text", ['{\n  // mine\n  "mcpServers": {}\n}', '{\n  "mcpServers": {\n    "a": {},\n  }\n}'])
def test_install_warns_of_json_that_claude_desktop_cannot_read(home: Path, text: str) -> None:
    file = config_path_of("claude-desktop")
    file.write_text(text)
    notes = run_json("claude-desktop", "--sandbox")["notes"]
    assert any(f"Correct {file}: it has comments or trailing commas (line " in note for note in notes)
    (config,) = known_clients.read_configs(os.environ)
    assert "which Claude Desktop cannot read" in config.problem
    config_path_of("cursor").write_text(text)
    assert not any("comments" in note for note in run_json("cursor", "--sandbox")["notes"])


def test_install_nests_the_entry_in_vs_code_settings(home: Path) -> None:
    file = home / ".vscode/settings.json"
    file.parent.mkdir()
    before = '{\n  // mine\n  "editor.tabSize": 2,\n}\n'
    file.write_text(before)
    shown = run("vscode", "--sandbox", "--file", str(file), "--print").stdout
    assert json.loads(shown.split("\n", 1)[1])["mcp"]["servers"]["itwin"]["args"] == ["serve", "--sandbox"]
    run_json("vscode", "--sandbox", "--file", str(file))
    assert parse(file.read_text())["mcp"]["servers"]["itwin"]["type"] == "stdio"
    assert parse(file.read_text()).keys() == {"editor.tabSize", "mcp"}
    run_json("vscode", "--file", str(file), "--uninstall")
    assert file.read_text() == before


def test_file_option_creates_the_folder(home: Path) -> None:
    file = home / "project/mcp.json"
    assert run_json("cursor", "--sandbox", "--file", str(file))["file"] == str(file)
    assert "itwin" in json.loads(file.read_text())["mcpServers"]
    assert not config_path_of("cursor").exists()


def test_install_copies_options_and_settings_with_absolute_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "data").mkdir()
    (home / "token").write_text("x")
    (home / "policy.yaml").write_text("itwin-mcp-policy: 1\n")
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    monkeypatch.setenv("IMODEL_ID", IMODEL)
    monkeypatch.setenv("ITWIN_ACCESS_TOKEN_FILE", "token")
    monkeypatch.setenv("ITWIN_PROFILE", "")
    monkeypatch.setenv("ITWIN_MCP_POLICY", "policy.yaml")
    monkeypatch.setenv("ITWIN_MCP_AUDIT_LOG", "writes.jsonl")
    options = ("--toolsets", "itwins,files", "--read-only", "--files-root", "data", "--files-root", str(home))
    entry = run_json("vscode", *options, "--log-level", "info")["entry"]
    roots = ["--files-root", str(home / "data"), "--files-root", str(home)]
    assert entry["args"] == ["serve", "--toolsets", "itwins,files", "--read-only", *roots, "--log-level", "info"]
    assert entry["env"] == {
        "ITWIN_ACCESS_TOKEN_FILE": str(home / "token"),
        "ITWIN_CLIENT_ID": "native-x",
        "IMODEL_ID": IMODEL,
        "ITWIN_MCP_POLICY": str(home / "policy.yaml"),
        "ITWIN_MCP_AUDIT_LOG": str(home / "writes.jsonl"),
    }
    assert entry["type"] == "stdio"


def test_install_copies_an_audit_log_on_standard_error_unchanged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_MCP_AUDIT_LOG", "-")
    assert run_json("cursor", "--sandbox")["entry"]["env"] == {"ITWIN_MCP_AUDIT_LOG": "-"}


def test_install_does_not_copy_secrets_and_prints_notes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_ACCESS_TOKEN", "canary-token")
    monkeypatch.setenv("ITWIN_CLIENT_ID", "service-x")
    monkeypatch.setenv("ITWIN_CLIENT_SECRET", "canary-secret")
    result = run("cursor")
    report = run_json("cursor")
    assert "canary" not in result.output + config_path_of("cursor").read_text() + json.dumps(report)
    assert "env" not in report["entry"]
    assert "ITWIN_ACCESS_TOKEN was not copied" in result.stderr
    assert "ITWIN_CLIENT_SECRET and its ITWIN_CLIENT_ID were not copied" in result.stderr
    assert "auth login" in result.stderr
    assert "ITWIN_CLIENT_ID to your application" not in result.stderr, "it is already set"


def test_install_copies_a_client_id_only_with_its_secret_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = home / "secret"
    secret.write_text("canary-secret")
    monkeypatch.setenv("ITWIN_CLIENT_ID", "service-x")
    monkeypatch.setenv("ITWIN_CLIENT_SECRET_FILE", str(secret))
    both = {"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET_FILE": str(secret)}
    assert run_json("cursor")["entry"]["env"] == both
    monkeypatch.setenv("ITWIN_CLIENT_SECRET", "canary-secret")
    assert run_json("cursor")["entry"]["env"] == both
    # Without its secret the id would be that of a native application.
    monkeypatch.delenv("ITWIN_CLIENT_SECRET_FILE")
    assert "env" not in run_json("cursor")["entry"]


def test_install_reports_itp_credentials_without_copying_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITP_SERVICE_CLIENT_ID", "service-x")
    monkeypatch.setenv("ITP_SERVICE_CLIENT_SECRET", "canary-secret")
    report = run_json("cursor")
    assert "env" not in report["entry"]
    assert any(note.startswith("ITP_SERVICE_CLIENT_ID and") for note in report["notes"])
    assert not any("Nothing signs it in" in note for note in report["notes"])


def test_install_lists_bound_variables_without_copying_their_values(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTS_TOKEN", "canary")
    own = home / "parts.yaml"
    own.write_text(GOOD)
    report = run_json("cursor", "--sandbox", "--capabilities", str(own))
    assert "canary" not in config_path_of("cursor").read_text() + json.dumps(report)
    assert any(note.startswith("PARTS_TOKEN (bound by your capability files)") for note in report["notes"])


@pytest.mark.parametrize(
    ("client_id", "flags", "next_command"), [(None, ["--sandbox"], "doctor"), ("native-x", [], "auth login")]
)
def test_install_prints_the_next_command_and_a_question(
    home: Path, monkeypatch: pytest.MonkeyPatch, client_id: str | None, flags: list[str], next_command: str
) -> None:
    if client_id is not None:
        monkeypatch.setenv("ITWIN_CLIENT_ID", client_id)
    for _ in ("installed", "was there already"):
        *_, command_line, question = run("cursor", *flags).stdout.splitlines()
        assert command_line == f"Next, run:  itwin-mcp {next_command}"
        assert question.startswith("Then ask Cursor:  ") and question.endswith("?")
    assert "Next, run" not in run("cursor", *flags, "--print").output
    assert "Next, run" not in run("cursor", "--uninstall").output


def test_install_without_sign_in_prints_how_to_configure_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("No sign-in is configured yet" in note for note in run_json("cursor")["notes"])
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    assert not any("No sign-in is configured yet" in note for note in run_json("cursor")["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--toolsets", "fly"), "There is no toolset 'fly'"),
        (("--name", "a b"), "The name 'a b'"),
        (("--files-root", "/no/such"), "is not a folder"),
    ],
)
def test_install_rejects_invalid_settings(home: Path, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        run("cursor", "--sandbox", *arguments)
    assert not config_path_of("cursor").exists()


def test_installed_entry_starts_a_server(home: Path) -> None:
    run_json("cursor", "--sandbox")
    entry = json.loads(config_path_of("cursor").read_text())["mcpServers"]["itwin"]
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }
    words = [entry["command"], *entry["args"]]
    process = subprocess.run(words, input=json.dumps(request) + "\n", capture_output=True, text=True, timeout=60)
    assert json.loads(process.stdout.splitlines()[0])["result"]["serverInfo"]["name"] == "itwin-mcp"


RECORDER = """#!{python}
import json, sys
with open({record!r}, "a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
if {code}:
    print("it would not", file=sys.stderr)
sys.exit({code})
"""


def put_program(home: Path, name: str, code: int = 0) -> Path:
    """Install a fake client's program that records its calls; return the file of the record."""
    record = home / f"{name}.calls"
    program = home / "programs" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(RECORDER.format(python=sys.executable, record=str(record), code=code))
    program.chmod(0o755)
    return record


def read_calls(record: Path) -> list[list[str]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


needs_scripts = pytest.mark.skipif(os.name == "nt", reason="a script is no program there; npm's are batch files")


@needs_scripts
def test_install_uses_the_command_of_claude_code(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    monkeypatch.setenv("IMODEL_ID", IMODEL)
    record = put_program(home, "claude")
    assert run("claude-code", "--read-only", "--print").stdout.startswith(f"{home}/programs/claude mcp add itwin ")
    assert read_calls(record) == []
    run_json("claude-code", "--read-only")
    env = ["-e", "ITWIN_CLIENT_ID=native-x", "-e", f"IMODEL_ID={IMODEL}"]
    start = [find_start_command(os.environ).program, "serve", "--read-only"]
    assert read_calls(record) == [["mcp", "add", "itwin", "--scope", "user", *env, "--", *start]]
    assert not config_path_of("claude-code").exists()


@needs_scripts
def test_install_replaces_only_a_different_entry_of_claude_code(home: Path) -> None:
    record = put_program(home, "claude")
    entry = {
        "type": "stdio",
        "command": find_start_command(os.environ).program,
        "args": ["serve", "--sandbox"],
        "env": {},
    }
    config_path_of("claude-code").write_text(json.dumps({"mcpServers": {"itwin": entry}}))
    assert run_json("claude-code", "--sandbox")["changes"] is False
    run_json("claude-code", "--sandbox", "--read-only")
    run_json("claude-code", "--uninstall")
    assert [call[:3] for call in read_calls(record)] == [
        ["mcp", "remove", "itwin"],
        ["mcp", "add", "itwin"],
        ["mcp", "remove", "itwin"],
    ]


FORGETFUL = """#!{python}
import json, pathlib, sys
file = pathlib.Path({file!r})
if sys.argv[2] == "add":
    sys.exit("no room")
content = json.loads(file.read_text())
del content["mcpServers"]["itwin"]
file.write_text(json.dumps(content))
"""


@needs_scripts
def test_install_restores_the_entry_if_claude_code_fails_to_replace_it(home: Path) -> None:
    file = config_path_of("claude-code")
    entry = {"command": "itwin-mcp", "args": ["serve"], "env": {"ITWIN_CLIENT_SECRET": "precious"}}
    file.write_text(json.dumps({"mcpServers": {"itwin": entry}, "theme": "dark"}))
    before = file.read_text()
    put_program(home, "claude")
    (home / "programs/claude").write_text(FORGETFUL.format(python=sys.executable, file=str(file)))
    result = run("claude-code", "--sandbox")
    assert result.exit_code == 1
    assert "no room" in result.stderr
    assert f"The entry 'itwin' in {file} was restored." in result.stderr
    assert json.loads(file.read_text()) == json.loads(before)
    assert file.with_name(file.name + BACKUP_SUFFIX).read_text() == before


@needs_scripts
def test_install_runs_the_command_of_vs_code_and_uninstall_edits_its_file(home: Path) -> None:
    record = put_program(home, "code")
    run_json("vscode", "--sandbox")
    (call,) = read_calls(record)
    assert call[0] == "--add-mcp"
    assert json.loads(call[1]) == {
        "name": "itwin",
        "type": "stdio",
        "command": find_start_command(os.environ).program,
        "args": ["serve", "--sandbox"],
    }
    config_path_of("vscode").write_text(
        '{\n\t"servers": {\n\t\t"itwin": {"command": "itwin-mcp"},\n\t\t"other": {}\n\t}\n}'
    )
    run_json("vscode", "--uninstall")
    assert json.loads(config_path_of("vscode").read_text()) == {"servers": {"other": {}}}
    assert len(read_calls(record)) == 1


@needs_scripts
def test_install_reports_a_failed_client_command(home: Path) -> None:
    put_program(home, "code", code=3)
    result = run("vscode", "--sandbox")
    assert result.exit_code == 1
    assert "exited with 3: it would not" in result.stderr
    assert "--file" in result.stderr


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("darwin", {"HOME": "/Users/a"}, "/Users/a/Library/Application Support/Claude/claude_desktop_config.json"),
        ("linux", {"HOME": "/home/a"}, "/home/a/.config/Claude/claude_desktop_config.json"),
        ("win32", {"USERPROFILE": "C:/a", "APPDATA": "C:/a/R"}, "C:/a/R/Claude/claude_desktop_config.json"),
        ("win32", {"USERPROFILE": "C:/a"}, "C:/a/AppData/Roaming/Claude/claude_desktop_config.json"),
    ],
)
def test_find_config_path_depends_on_the_system(system: str, environment: dict[str, str], expected: str) -> None:
    client = next(candidate for candidate in known_clients.CLIENTS if candidate.key == "claude-desktop")
    assert find_config_path(client, environment, system).as_posix() == expected


def test_find_config_path_follows_claude_config_dir() -> None:
    client = next(candidate for candidate in known_clients.CLIENTS if candidate.key == "claude-code")
    assert find_config_path(client, {"HOME": "/home/a", "CLAUDE_CONFIG_DIR": "/c"}, "linux") == Path("/c/.claude.json")
