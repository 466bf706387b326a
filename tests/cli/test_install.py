"""`itwin-mcp install`: into a client's configuration and out of it again, with all else as it was."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from itwin_mcp.cli import desktop_clients
from itwin_mcp.cli.config_file import SUFFIX, ConfigFile, Kept, installed
from itwin_mcp.cli.desktop_clients import CLIENTS, place
from itwin_mcp.cli.install import INSTALLABLE, command
from itwin_mcp.cli.json_text import read
from itwin_mcp.cli.start_command import start_command
from itwin_mcp.errors import SettingsError
from tests.capability.files import GOOD

IMODEL = "3f0b2f6e-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the parsed capability files are kept from test to test."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder in which every client was started once, and no client's program on the PATH."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / ".config"))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    for name in ("ITWIN_MCP_STATE_DIR", "ITWIN_MCP_CACHE_DIR"):
        monkeypatch.delenv(name)  # they would go along
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    for client in CLIENTS:
        file_of(client.key).parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


def file_of(client: str) -> Path:
    return place(next(one for one in CLIENTS if one.key == client), os.environ)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def done(*arguments: str) -> dict[str, Any]:
    """What a run that succeeds says as JSON."""
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
def test_after_install_and_uninstall_the_file_is_the_same_byte_for_byte(home: Path, client: str, text: str) -> None:
    file = file_of(client)
    file.write_bytes(text.encode())
    before = read(text)
    member = "servers" if client == "vscode" else "mcpServers"

    assert done(client, "--sandbox")["changes"] is True
    now = read(file.read_bytes().decode())
    entry = now[member].pop("itwin")
    assert entry["args"] == ["serve", "--sandbox"]
    assert now == {member: {}} | before
    assert file.with_name(file.name + SUFFIX).read_bytes() == text.encode()

    written = file.read_bytes()
    assert done(client, "--sandbox")["changes"] is False
    assert file.read_bytes() == written
    done(client, "--read-only", "--sandbox")
    assert file.read_bytes() != written

    assert done(client, "--uninstall")["changes"] is True
    assert file.read_bytes() == text.encode()
    assert list(file.parent.glob(f"{file.name}*")) == [file]
    assert done(client, "--uninstall")["changes"] is False


def test_a_file_that_was_not_there_is_gone_again(home: Path) -> None:
    file = file_of("cursor")
    done("cursor", "--sandbox")
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    done("cursor", "--uninstall")
    assert not file.exists()


def test_what_the_client_itself_changed_in_between_stays(home: Path) -> None:
    file = file_of("claude-desktop")
    file.write_text('{\n  "mcpServers": {\n    "a": {}\n  }\n}\n')
    done("claude-desktop", "--sandbox")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"theme": "dark"}, indent=2))
    changed = file.read_text()
    done("claude-desktop", "--uninstall")
    assert json.loads(file.read_text()) == {"mcpServers": {"a": {}}, "theme": "dark"}
    assert file.with_name(file.name + SUFFIX).read_text() == changed


FOREIGN = '{"mcpServers":{"itwin":{"command":"/opt/mine/run","env":{"KEY":"precious"}}}}'


@pytest.mark.parametrize("arguments", [("--sandbox",), ("--uninstall",)])
def test_an_entry_that_starts_another_server_is_left_alone(home: Path, arguments: tuple[str, ...]) -> None:
    file = file_of("cursor")
    file.write_text(FOREIGN)
    with pytest.raises(SettingsError, match=r"'itwin' in .*mcp\.json starts another server.*--name"):
        run("cursor", *arguments)
    assert [one.read_text() for one in file.parent.iterdir()] == [FOREIGN]


def test_what_the_first_install_replaced_is_kept_however_often_it_is_installed_and_taken_out(home: Path) -> None:
    file = file_of("cursor")
    by_hand = FOREIGN.replace("/opt/mine/run", "/opt/itwin-mcp")
    file.write_text(by_hand)
    done("cursor", "--sandbox")
    done("cursor", "--sandbox", "--read-only")
    told = run("cursor", "--uninstall").output
    assert json.loads(file.read_text()) == {"mcpServers": {}}
    backup = file.with_name(file.name + SUFFIX)
    assert backup.read_text() == by_hand
    assert str(backup) in told


def test_another_server_that_an_earlier_version_replaced_comes_back(home: Path) -> None:
    file = file_of("cursor")
    done("cursor", "--sandbox")
    entry = json.loads(file.read_text())["mcpServers"]["itwin"]
    kept = installed(Kept(FOREIGN), ("mcpServers", "itwin"), entry)
    assert kept.text is not None
    file.write_text(kept.text)
    file.with_name(file.name + SUFFIX).write_text(FOREIGN)
    done("cursor", "--uninstall")
    assert [one.read_text() for one in file.parent.iterdir()] == [FOREIGN]


def test_a_file_that_cannot_be_written_leaves_no_backup(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, replaced = file_of("cursor"), Path.replace
    file.write_text("{}")

    def refuse(part: Path, target: Path) -> Path:
        if Path(target) == file:
            raise PermissionError(1, "Operation not permitted")
        return replaced(part, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SettingsError, match="cannot be written: Operation not permitted"):
        run("cursor", "--sandbox")
    assert [one.read_text() for one in file.parent.iterdir()] == ["{}"]


def test_two_servers_of_ours_come_and_go_apart(home: Path) -> None:
    file = file_of("cursor")
    file.write_text('{"mcpServers": {"a": {}}}')
    done("cursor", "--sandbox")
    done("cursor", "--sandbox", "--name", "itwin-qa", "--profile", "qa")
    assert list(json.loads(file.read_text())["mcpServers"]) == ["a", "itwin", "itwin-qa"]
    done("cursor", "--uninstall")
    done("cursor", "--uninstall", "--name", "itwin-qa")
    assert file.read_text() == '{"mcpServers": {"a": {}}}'


def test_print_changes_nothing_and_shows_the_file_and_the_entry(home: Path) -> None:
    file = file_of("cursor")
    file.write_text('{"mcpServers": {"a": {"env": {"KEY": "another-servers-secret"}}}}')
    shown = run("cursor", "--sandbox", "--print").stdout
    assert str(file) in shown
    assert "another-servers-secret" not in shown
    entry = json.loads(shown.split("\n", 1)[1])["mcpServers"]["itwin"]
    assert entry == {"command": start_command(os.environ).program, "args": ["serve", "--sandbox"]}
    assert done("cursor", "--sandbox", "--print")["printedOnly"] is True
    assert list(file.parent.iterdir()) == [file]
    assert "itwin" not in file.read_text()


BROKEN = {
    '{"mcpServers": ': "it is not JSON: a value is missing, in line 1",
    "[]": "the whole is not an object",
    '{"mcpServers": {}, "mcpServers": {}}': "'mcpServers' is there twice",
    '{"mcpServers": 1}': "mcpServers is not an object",
    '{"mcpServers": null}': "json: mcpServers is not an object",
}


@pytest.mark.parametrize(("text", "words"), BROKEN.items())
@pytest.mark.parametrize("arguments", [("--sandbox",), ("--uninstall",)])
def test_a_file_that_is_broken_is_named_and_left_alone(
    home: Path, text: str, words: str, arguments: tuple[str, ...]
) -> None:
    file = file_of("cursor")
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"{words}.*Nothing was changed") as refused:
        run("cursor", *arguments)
    assert str(file) in str(refused.value)
    assert [one.read_text() for one in file.parent.iterdir()] == [text]


def test_a_file_in_another_encoding_is_left_alone(home: Path) -> None:
    file_of("cursor").write_bytes('{"a": "é"}'.encode("utf-16"))
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        run("cursor", "--sandbox")


def test_a_file_that_changes_while_it_is_read_is_left_alone(home: Path) -> None:
    file = ConfigFile.at(file_of("cursor"))
    file.path.write_text("{}")
    old = file.read()
    file.path.write_text('{"theme": "dark"}')
    with pytest.raises(SettingsError, match="changed by another program"):
        file.write(old, installed(old, ("mcpServers", "itwin"), {"command": "x"}))
    assert [one.read_text() for one in file.path.parent.iterdir()] == ['{"theme": "dark"}']


def test_a_link_to_the_file_stays_a_link(home: Path) -> None:
    file, true = file_of("cursor"), home / "dotfiles.json"
    true.write_text("{}")
    file.symlink_to(true)
    done("cursor", "--sandbox")
    assert file.is_symlink()
    assert "itwin" in true.read_text()


def test_a_client_that_is_not_installed_is_not_given_a_file(home: Path) -> None:
    file_of("cursor").parent.rmdir()
    with pytest.raises(SettingsError, match="Cursor was not found"):
        run("cursor", "--sandbox")
    assert not file_of("cursor").parent.exists()


@pytest.mark.parametrize("client", INSTALLABLE)
def test_install_prints_for_a_client_that_is_not_installed(home: Path, client: str) -> None:
    file = file_of(client)
    if file.parent != home:
        file.parent.rmdir()
    assert '"serve",' in run(client, "--sandbox", "--print").stdout
    assert not file.exists()


def test_install_removes_a_byte_order_mark_that_claude_desktop_cannot_read(home: Path) -> None:
    file = file_of("claude-desktop")
    before = '\ufeff{\n  "mcpServers": {"a": {}}\n}\n'
    file.write_bytes(before.encode())
    (found,) = desktop_clients.look(os.environ)
    assert "byte order mark: Claude Desktop cannot read it" in found.problem
    assert any("would be removed" in note for note in done("claude-desktop", "--sandbox", "--print")["notes"])
    assert file.read_bytes() == before.encode()

    assert any(
        "byte order mark" in note and "was removed" in note for note in done("claude-desktop", "--sandbox")["notes"]
    )
    assert set(json.loads(file.read_bytes().decode())["mcpServers"]) == {"a", "itwin"}
    assert file.with_name(file.name + SUFFIX).read_bytes() == before.encode()
    assert desktop_clients.look(os.environ)[0].problem == ""
    assert done("claude-desktop", "--sandbox")["changes"] is False

    done("claude-desktop", "--uninstall")
    assert file.read_bytes() == before[1:].encode()
    assert list(file.parent.glob(f"{file.name}*")) == [file]


def test_install_removes_a_byte_order_mark_from_a_file_that_has_the_entry_already(home: Path) -> None:
    file = file_of("claude-desktop")
    done("claude-desktop", "--sandbox")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert done("claude-desktop", "--sandbox")["changes"] is True
    assert json.loads(file.read_bytes().decode())["mcpServers"].keys() == {"itwin"}


@pytest.mark.parametrize("text", ['{\n  // mine\n  "mcpServers": {}\n}', '{\n  "mcpServers": {\n    "a": {},\n  }\n}'])
def test_install_warns_of_what_claude_desktop_cannot_read(home: Path, text: str) -> None:
    file = file_of("claude-desktop")
    file.write_text(text)
    notes = done("claude-desktop", "--sandbox")["notes"]
    assert any(f"Correct {file}: it has comments or trailing commas (line " in note for note in notes)
    (found,) = desktop_clients.look(os.environ)
    assert "with which Claude Desktop cannot read it" in found.problem
    file_of("cursor").write_text(text)
    assert not any("comments" in note for note in done("cursor", "--sandbox")["notes"])


def test_install_writes_what_the_settings_of_vs_code_need(home: Path) -> None:
    file = home / ".vscode/settings.json"
    file.parent.mkdir()
    before = '{\n  // mine\n  "editor.tabSize": 2,\n}\n'
    file.write_text(before)
    shown = run("vscode", "--sandbox", "--file", str(file), "--print").stdout
    assert json.loads(shown.split("\n", 1)[1])["mcp"]["servers"]["itwin"]["args"] == ["serve", "--sandbox"]
    done("vscode", "--sandbox", "--file", str(file))
    assert read(file.read_text())["mcp"]["servers"]["itwin"]["type"] == "stdio"
    assert read(file.read_text()).keys() == {"editor.tabSize", "mcp"}
    done("vscode", "--file", str(file), "--uninstall")
    assert file.read_text() == before


def test_another_file_can_be_named_in_a_folder_that_is_not_there_yet(home: Path) -> None:
    file = home / "project/mcp.json"
    assert done("cursor", "--sandbox", "--file", str(file))["file"] == str(file)
    assert "itwin" in json.loads(file.read_text())["mcpServers"]
    assert not file_of("cursor").exists()


def test_options_and_settings_go_along_with_absolute_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    entry = done("vscode", *options, "--log-level", "info")["entry"]
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


def test_an_audit_log_on_standard_error_stays_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_MCP_AUDIT_LOG", "-")
    assert done("cursor", "--sandbox")["entry"]["env"] == {"ITWIN_MCP_AUDIT_LOG": "-"}


def test_a_secret_is_never_handed_on_and_that_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_ACCESS_TOKEN", "canary-token")
    monkeypatch.setenv("ITWIN_CLIENT_ID", "service-x")
    monkeypatch.setenv("ITWIN_CLIENT_SECRET", "canary-secret")
    result = run("cursor")
    told = done("cursor")
    assert "canary" not in result.output + file_of("cursor").read_text() + json.dumps(told)
    assert "env" not in told["entry"]
    assert "ITWIN_ACCESS_TOKEN was not handed on" in result.stderr
    assert "ITWIN_CLIENT_SECRET and its ITWIN_CLIENT_ID were not handed on" in result.stderr
    assert "auth login" in result.stderr
    assert "set ITWIN_CLIENT_ID to your application" not in result.stderr, "it is set"


def test_install_hands_on_a_client_id_together_with_the_file_of_its_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = home / "secret"
    secret.write_text("canary-secret")
    monkeypatch.setenv("ITWIN_CLIENT_ID", "service-x")
    monkeypatch.setenv("ITWIN_CLIENT_SECRET_FILE", str(secret))
    both = {"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET_FILE": str(secret)}
    assert done("cursor")["entry"]["env"] == both
    monkeypatch.setenv("ITWIN_CLIENT_SECRET", "canary-secret")
    assert done("cursor")["entry"]["env"] == both
    # Without its secret the id would be that of a native application.
    monkeypatch.delenv("ITWIN_CLIENT_SECRET_FILE")
    assert "env" not in done("cursor")["entry"]


def test_install_names_the_credentials_of_bentleys_command_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITP_SERVICE_CLIENT_ID", "service-x")
    monkeypatch.setenv("ITP_SERVICE_CLIENT_SECRET", "canary-secret")
    told = done("cursor")
    assert "env" not in told["entry"]
    assert any(note.startswith("ITP_SERVICE_CLIENT_ID and") for note in told["notes"])
    assert not any("Nothing signs it in" in note for note in told["notes"])


def test_a_variable_that_a_capability_file_binds_is_named_and_not_handed_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTS_TOKEN", "canary")
    own = home / "parts.yaml"
    own.write_text(GOOD)
    told = done("cursor", "--sandbox", "--capabilities", str(own))
    assert "canary" not in file_of("cursor").read_text() + json.dumps(told)
    assert any(note.startswith("PARTS_TOKEN, which your capability files bind") for note in told["notes"])


def test_who_gives_no_way_to_sign_in_is_told_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("Nothing signs it in yet" in note for note in done("cursor")["notes"])
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    assert not any("Nothing signs it in yet" in note for note in done("cursor")["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--toolsets", "fly"), "There is no toolset 'fly'"),
        (("--name", "a b"), "The name 'a b'"),
        (("--files-root", "/no/such"), "is no folder"),
    ],
)
def test_what_would_not_start_is_refused_here(home: Path, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        run("cursor", "--sandbox", *arguments)
    assert not file_of("cursor").exists()


def test_what_was_written_starts_a_server(home: Path) -> None:
    done("cursor", "--sandbox")
    entry = json.loads(file_of("cursor").read_text())["mcpServers"]["itwin"]
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }
    line = [entry["command"], *entry["args"]]
    served = subprocess.run(line, input=json.dumps(hello) + "\n", capture_output=True, text=True, timeout=60)
    assert json.loads(served.stdout.splitlines()[0])["result"]["serverInfo"]["name"] == "itwin-mcp"


RECORDER = """#!{python}
import json, sys
with open({record!r}, "a") as out:
    out.write(json.dumps(sys.argv[1:]) + "\\n")
if {code}:
    print("it would not", file=sys.stderr)
sys.exit({code})
"""


def put_program(home: Path, name: str, code: int = 0) -> Path:
    """A client's program that writes down how it was called; the file where it does."""
    record = home / f"{name}.calls"
    program = home / "programs" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(RECORDER.format(python=sys.executable, record=str(record), code=code))
    program.chmod(0o755)
    return record


def calls(record: Path) -> list[list[str]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


needs_scripts = pytest.mark.skipif(os.name == "nt", reason="a script is no program there; npm's are batch files")


@needs_scripts
def test_claude_code_is_told_by_its_own_command(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ITWIN_CLIENT_ID", "native-x")
    monkeypatch.setenv("IMODEL_ID", IMODEL)
    record = put_program(home, "claude")
    assert run("claude-code", "--read-only", "--print").stdout.startswith(f"{home}/programs/claude mcp add itwin ")
    assert calls(record) == []
    done("claude-code", "--read-only")
    env = ["-e", "ITWIN_CLIENT_ID=native-x", "-e", f"IMODEL_ID={IMODEL}"]
    start = [start_command(os.environ).program, "serve", "--read-only"]
    assert calls(record) == [["mcp", "add", "itwin", "--scope", "user", *env, "--", *start]]
    assert not file_of("claude-code").exists()


@needs_scripts
def test_claude_code_that_has_it_already_is_asked_for_nothing_or_for_a_replacement(home: Path) -> None:
    record = put_program(home, "claude")
    entry = {"type": "stdio", "command": start_command(os.environ).program, "args": ["serve", "--sandbox"], "env": {}}
    file_of("claude-code").write_text(json.dumps({"mcpServers": {"itwin": entry}}))
    assert done("claude-code", "--sandbox")["changes"] is False
    done("claude-code", "--sandbox", "--read-only")
    done("claude-code", "--uninstall")
    assert [call[:3] for call in calls(record)] == [
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
def test_what_claude_code_took_out_for_a_replacement_is_put_back_where_that_fails(home: Path) -> None:
    file = file_of("claude-code")
    entry = {"command": "itwin-mcp", "args": ["serve"], "env": {"ITWIN_CLIENT_SECRET": "precious"}}
    file.write_text(json.dumps({"mcpServers": {"itwin": entry}, "theme": "dark"}))
    before = file.read_text()
    put_program(home, "claude")
    (home / "programs/claude").write_text(FORGETFUL.format(python=sys.executable, file=str(file)))
    result = run("claude-code", "--sandbox")
    assert result.exit_code == 1
    assert "no room" in result.stderr
    assert f"'itwin' out of {file}: that was put back" in result.stderr
    assert json.loads(file.read_text()) == json.loads(before)
    assert file.with_name(file.name + SUFFIX).read_text() == before


@needs_scripts
def test_vs_code_is_told_by_its_own_command_and_cleared_in_its_file(home: Path) -> None:
    record = put_program(home, "code")
    done("vscode", "--sandbox")
    (call,) = calls(record)
    assert call[0] == "--add-mcp"
    assert json.loads(call[1]) == {
        "name": "itwin",
        "type": "stdio",
        "command": start_command(os.environ).program,
        "args": ["serve", "--sandbox"],
    }
    file_of("vscode").write_text('{\n\t"servers": {\n\t\t"itwin": {"command": "itwin-mcp"},\n\t\t"other": {}\n\t}\n}')
    done("vscode", "--uninstall")
    assert json.loads(file_of("vscode").read_text()) == {"servers": {"other": {}}}
    assert len(calls(record)) == 1


@needs_scripts
def test_a_client_whose_command_fails_is_quoted_and_the_exit_code_is_one(home: Path) -> None:
    put_program(home, "code", code=3)
    result = run("vscode", "--sandbox")
    assert result.exit_code == 1
    assert "ended with 3: it would not" in result.stderr
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
def test_each_system_keeps_the_file_in_its_place(system: str, environment: dict[str, str], expected: str) -> None:
    client = next(one for one in desktop_clients.CLIENTS if one.key == "claude-desktop")
    assert place(client, environment, system).as_posix() == expected


def test_claude_codes_folder_can_be_moved() -> None:
    client = next(one for one in desktop_clients.CLIENTS if one.key == "claude-code")
    assert place(client, {"HOME": "/home/a", "CLAUDE_CONFIG_DIR": "/c"}, "linux") == Path("/c/.claude.json")
