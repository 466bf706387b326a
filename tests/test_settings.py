"""Settings from the environment and flags, with the origin of each value."""

import os
from pathlib import Path

import click
import pytest

from itwin_mcp.cli.serve import command as serve
from itwin_mcp.errors import SettingsError
from itwin_mcp.settings import (
    ALIASES,
    ALL_SETTINGS,
    DEFAULT_REDIRECT_URI,
    ENVIRONMENT,
    SETTINGS,
    read_settings,
    render_settings_tables,
)


def test_read_settings_ignores_empty_values_and_placeholders() -> None:
    settings = read_settings(
        {"ITWIN_ACCESS_TOKEN": "  ", "ITWIN_CLIENT_ID": "", "ITWIN_MCP_SANDBOX": "${user_config.sandbox}"}
    )
    assert (settings.access_token, settings.client_id, settings.sandbox) == (None, None, False)
    assert settings.origins == {}


@pytest.mark.parametrize(
    ("api_url", "issuer"),
    [
        ("", "https://ims.bentley.com"),
        ("https://api.bentley.com", "https://ims.bentley.com"),
        ("https://qa-api.bentley.com/", "https://qa-ims.bentley.com"),
        ("https://dev-api.bentley.com", "https://qa-ims.bentley.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("https://mirror.example", "https://ims.bentley.com"),
    ],
)
def test_issuer_url_follows_api_url(api_url: str, issuer: str) -> None:
    assert read_settings({"ITWIN_API_URL": api_url}).issuer_url == issuer
    assert read_settings({"ITWIN_API_URL": api_url, "ITWIN_ISSUER_URL": "https://x.example/"}).issuer_url == (
        "https://x.example"
    )


def test_read_settings_prefers_our_variables_to_bentleys() -> None:
    theirs = {
        "ITP_API_URL": "https://qa-api.bentley.com",
        "ITP_ISSUER_URL": "https://qa-ims.bentley.com/",
        "ITP_SERVICE_CLIENT_ID": "service-theirs",
        "ITP_SERVICE_CLIENT_SECRET": "canary-theirs",
        "ITP_ITWIN_ID": "an-itwin",
    }
    assert set(theirs) == set(ALIASES)
    settings = read_settings(theirs)
    assert (settings.api_url, settings.issuer_url) == ("https://qa-api.bentley.com", "https://qa-ims.bentley.com")
    assert (settings.client_id, settings.itwin_id) == ("service-theirs", "an-itwin")
    assert settings.secrets == ("canary-theirs",)
    assert settings.origins["client_secret"] == "ITP_SERVICE_CLIENT_SECRET"
    combined = read_settings(theirs | {"ITWIN_API_URL": "https://api.bentley.com", "ITWIN_CLIENT_ID": "native-ours"})
    assert (combined.api_url, combined.origins["api_url"]) == ("https://api.bentley.com", "ITWIN_API_URL")
    assert (combined.client_id, combined.client_secret) == ("native-ours", None), "a secret belongs to its client id"


def test_origins_name_the_flag_or_variable_of_each_value() -> None:
    environment = {"ITWIN_PROFILE": "one", "ITWIN_MCP_READ_ONLY": "1", "ITWIN_MCP_RATE_PER_MINUTE": "30"}
    settings = read_settings(environment, profile="two", sandbox=True)
    assert (settings.profile, settings.rate_per_minute) == ("two", 30)
    assert settings.origins == {
        "profile": "--profile",
        "sandbox": "--sandbox",
        "read_only": "ITWIN_MCP_READ_ONLY",
        "rate_per_minute": "ITWIN_MCP_RATE_PER_MINUTE",
    }


def test_read_settings_expands_tilde_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "secret").write_text("s" * 40)
    (tmp_path / "files").mkdir()
    environment = {
        "ITWIN_ACCESS_TOKEN_FILE": "~/token",
        "ITWIN_CLIENT_ID": "service-x",
        "ITWIN_CLIENT_SECRET_FILE": "~/secret",
        "ITWIN_MCP_CAPABILITIES": os.pathsep.join(["~/a.yaml", "b~.yaml"]),
        "ITWIN_MCP_FILES_ROOT": "~/files",
        "ITWIN_MCP_POLICY": "~/policy.yaml",
        "ITWIN_MCP_AUDIT_LOG": "~/audit.jsonl",
        "ITWIN_MCP_STATE_DIR": "~/state",
        "ITWIN_MCP_CACHE_DIR": "~",
    }
    settings = read_settings(environment, sandbox_db=Path("~/s.db"), capabilities=[Path("~/c.yaml")])
    assert settings.access_token_file == tmp_path / "token"
    assert settings.client_secret is not None
    assert settings.client_secret_file == tmp_path / "secret"
    assert settings.capabilities == (tmp_path / "a.yaml", Path("b~.yaml"), tmp_path / "c.yaml")
    assert settings.files_roots == (tmp_path / "files",)
    assert settings.policy == tmp_path / "policy.yaml"
    assert settings.audit_log == tmp_path / "audit.jsonl"
    assert (settings.state_dir, settings.cache_dir) == (tmp_path / "state", tmp_path)
    assert settings.sandbox_db == tmp_path / "s.db"
    assert read_settings({}, policy=Path("~/p.yaml")).policy == tmp_path / "p.yaml"
    assert read_settings({}, policy=Path("~other")).policy == Path("~other")


def test_repr_of_settings_hides_secrets(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("canary-in-a-file\n")
    settings = read_settings(
        {
            "ITWIN_ACCESS_TOKEN": "Bearer canary-token",
            "ITWIN_CLIENT_ID": "service-x",
            "ITWIN_CLIENT_SECRET_FILE": str(file),
            "ITWIN_MCP_HTTP_TOKEN": "canary-http",
        }
    )
    assert settings.secrets == ("canary-token", "canary-in-a-file", "canary-http")
    assert settings.origins["client_secret"] == "ITWIN_CLIENT_SECRET_FILE"
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ITWIN_CLIENT_SECRET": "canary"}, "ITWIN_CLIENT_SECRET is set without ITWIN_CLIENT_ID"),
        ({"ITP_SERVICE_CLIENT_ID": "x"}, "without ITP_SERVICE_CLIENT_SECRET"),
        ({"ITWIN_CLIENT_ID": "x", "ITWIN_CLIENT_SECRET_FILE": "/no/such/file"}, "/no/such/file cannot be read"),
        ({"ITWIN_ISSUER_URL": "http://ims.bentley.com"}, "ITWIN_ISSUER_URL must be https"),
        ({"ITP_ISSUER_URL": "ims.bentley.com"}, "ITP_ISSUER_URL must be https"),
        ({"ITWIN_API_URL": "https://u:canary@api.bentley.com"}, "ITWIN_API_URL must be a plain URL"),
        ({"ITWIN_API_URL": "https://api.bentley.com/v2"}, "without a path"),
        ({"ITWIN_REDIRECT_URI": "https://evil.example/cb"}, "must be http://localhost:PORT/PATH"),
        ({"ITWIN_REDIRECT_URI": "http://localhost/cb"}, "must be http://localhost:PORT/PATH"),
        ({"ITWIN_PROFILE": "../x"}, "The profile"),
        ({"ITWIN_MCP_RATE_PER_MINUTE": "0"}, "whole number from 1"),
        ({"ITWIN_MCP_DEADLINE_SECONDS": "fast"}, "seconds between 1 and 3600"),
    ],
)
def test_read_settings_reports_an_invalid_value(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(environment)
    assert words in str(refused.value)
    assert "canary" not in str(refused.value)


def test_every_command_option_comes_from_the_settings_table() -> None:
    flags = {row.flag: row.describe(for_variable=False) for row in SETTINGS.values() if row.flag}
    helps = {option.opts[0]: option.help for option in serve.params if isinstance(option, click.Option)}
    assert len(flags) > 10
    assert {flag: helps.get(flag) for flag in flags} == flags


def test_settings_table_has_every_variable_option_and_default() -> None:
    table = "\n".join(render_settings_tables().values())
    for row in ALL_SETTINGS:
        for name in (*row.variables, *filter(None, [row.flag])):
            assert f"| `{name}` |" in table, name
        assert not row.default or f"Default: {row.default}." in table
    assert "Default: `50000`." in ENVIRONMENT["ITWIN_MCP_MAX_RESULT_BYTES"]


def test_options_override_variables_and_extend_lists(tmp_path: Path) -> None:
    environment = {"ITWIN_MCP_CONFIRM": "person", "ITWIN_MCP_CAPABILITIES": "a.yaml", "ITWIN_MCP_LOG_LEVEL": "ERROR"}
    settings = read_settings(environment, confirm="two-step", capabilities=(Path("b:c.yaml"),), job_seconds=0.0)
    assert (settings.confirm, settings.two_step, settings.log_level) == ("two-step", True, "error")
    assert settings.capabilities == (Path("a.yaml"), Path("b:c.yaml"))
    assert settings.job_seconds == 0.0
    assert (settings.origins["confirm"], settings.origins["capabilities"]) == ("--confirm", "--capabilities")
    with pytest.raises(TypeError, match="colour"):
        read_settings({}, colour="red")


def test_redirect_uri_has_a_documented_default() -> None:
    assert DEFAULT_REDIRECT_URI in ENVIRONMENT["ITWIN_REDIRECT_URI"]
    assert read_settings({}).redirect_uri == DEFAULT_REDIRECT_URI
    assert read_settings({"ITWIN_REDIRECT_URI": "http://localhost:3000/cb"}).redirect_uri == "http://localhost:3000/cb"


@pytest.mark.parametrize("text", ["0", "1999", "-1", "many", "1e5"])
def test_max_result_bytes_outside_its_bounds_is_rejected(text: str) -> None:
    assert read_settings({"ITWIN_MCP_MAX_RESULT_BYTES": "2000"}).max_result_bytes == 2_000
    assert read_settings({"ITWIN_MCP_MAX_RESULT_BYTES": "9"}, max_result_bytes=60_000).max_result_bytes == 60_000
    with pytest.raises(SettingsError, match="ITWIN_MCP_MAX_RESULT_BYTES is"):
        read_settings({"ITWIN_MCP_MAX_RESULT_BYTES": text})
    with pytest.raises(SettingsError, match="--max-result-bytes is"):
        read_settings({"ITWIN_MCP_MAX_RESULT_BYTES": "2000"}, max_result_bytes=text)


def test_policy_and_audit_log_are_read_with_their_defaults() -> None:
    unset = read_settings({"ITWIN_MCP_STATE_DIR": "/state"})
    assert (unset.policy, unset.audit_log) == (None, Path("/state/audit.jsonl"))
    environment = {"ITWIN_MCP_POLICY": "/etc/policy.yaml", "ITWIN_MCP_AUDIT_LOG": "-"}
    settings = read_settings(environment)
    assert (settings.policy, settings.audit_log) == (Path("/etc/policy.yaml"), None)
    assert read_settings({"ITWIN_MCP_AUDIT_LOG": "/var/log/a.jsonl"}).audit_log == Path("/var/log/a.jsonl")
    flag = read_settings(environment, policy=Path("mine.yaml"))
    assert (flag.policy, flag.origins["policy"]) == (Path("mine.yaml"), "--policy")
