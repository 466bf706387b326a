"""Requirements before a server listens, and the messages if they are not met."""

import os
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import SettingsError
from itwin_mcp.hosted_server import check_exposure, check_replicas, find_missing
from itwin_mcp.settings import HostedSettings, read_settings
from tests.hosting.issuer import AUDIENCE, ISSUER

AUTH = {"ITWIN_MCP_AUTH_ISSUER": ISSUER, "ITWIN_MCP_AUTH_AUDIENCE": AUDIENCE}
APPLICATION = {"ITWIN_CLIENT_ID": "service-x", "ITWIN_CLIENT_SECRET": "s3cr3t-canary"}
BEYOND_LOOPBACK = {
    "ITWIN_MCP_ALLOWED_HOSTS": "mcp.example",
    "ITWIN_MCP_ALLOWED_ORIGINS": "none",
    "ITWIN_MCP_STATE_SECRET": "s" * 32,
}


def read_refusal(environment: dict[str, str], host: str, **flags: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        check_exposure(read_settings({**os.environ, **environment}, **flags), host)
    return str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "mcp.example"])
def test_check_exposure_lists_what_is_missing_beyond_loopback(host: str) -> None:
    message = read_refusal({}, host, sandbox=True)
    for name in ("AUTH_ISSUER", "AUTH_AUDIENCE", "ALLOWED_HOSTS", "ALLOWED_ORIGINS", "POLICY", "STATE_SECRET"):
        assert f"ITWIN_MCP_{name}" in message
    for name, value in BEYOND_LOOPBACK.items():
        message = read_refusal(
            AUTH | APPLICATION | {other: text for other, text in BEYOND_LOOPBACK.items() if other != name}, host
        )
        assert name in message and "s" * 32 not in message, value
    assert find_missing(read_settings(AUTH | BEYOND_LOOPBACK).hosted, Path("policy.yaml")) == []
    assert "(ITWIN_MCP_POLICY)" in find_missing(read_settings(AUTH | BEYOND_LOOPBACK).hosted, None)[0]


def test_check_exposure_on_loopback() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_exposure(read_settings({}), host)
        check_exposure(read_settings(AUTH | APPLICATION), host)
        check_exposure(read_settings(AUTH, sandbox=True), host)
        for credentials in ({}, {"ITWIN_ACCESS_TOKEN": "token-canary"}, {"ITWIN_CLIENT_ID": "native"}):
            message = read_refusal(AUTH | credentials, host)
            assert "acts as a service application" in message and "canary" not in message


def test_check_exposure_refuses_shared_files_and_tokens(tmp_path: Path) -> None:
    message = read_refusal(AUTH | APPLICATION | {"ITWIN_MCP_FILES_ROOT": str(tmp_path)}, "127.0.0.1")
    assert "each other's files" in message
    assert "ITWIN_MCP_HTTP_TOKEN" in read_refusal(
        AUTH | APPLICATION | {"ITWIN_MCP_HTTP_TOKEN": "canary-of-mine"}, "::1"
    )


def test_check_replicas_needs_a_secret_and_no_two_step() -> None:
    message = read_refusal(AUTH | APPLICATION | {"ITWIN_MCP_REPLICAS": "2"}, "127.0.0.1")
    assert "ITWIN_MCP_STATE_SECRET" in message
    hosted = read_settings(AUTH | BEYOND_LOOPBACK | {"ITWIN_MCP_REPLICAS": "2"}).hosted
    assert hosted is not None
    check_replicas(hosted, two_step=False)
    check_replicas(HostedSettings(ISSUER, AUDIENCE), two_step=True)
    with pytest.raises(SettingsError, match="used once on each"):
        check_replicas(hosted, two_step=True)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ITWIN_MCP_AUTH_ISSUER": ISSUER}, "without ITWIN_MCP_AUTH_AUDIENCE"),
        ({"ITWIN_MCP_AUTH_AUDIENCE": AUDIENCE}, "without ITWIN_MCP_AUTH_ISSUER"),
        (AUTH | {"ITWIN_MCP_AUTH_ISSUER": "http://issuer.example"}, "must be https"),
        (AUTH | {"ITWIN_MCP_AUTH_AUDIENCE": "mcp.example"}, "must be https"),
        (AUTH | {"ITWIN_MCP_AUTH_AUDIENCE": "https://user@mcp.example/mcp"}, "plain URL"),
        (AUTH | {"ITWIN_MCP_AUTH_JWKS_URL": "http://issuer.example/jwks"}, "must be https"),
        (AUTH | {"ITWIN_MCP_AUTH_SCOPE": "admin"}, "read, write or delete"),
        (AUTH | {"ITWIN_MCP_ALLOWED_HOSTS": "*"}, "no `\\*`"),
        (AUTH | {"ITWIN_MCP_ALLOWED_HOSTS": "https://mcp.example"}, "write a name"),
        (AUTH | {"ITWIN_MCP_ALLOWED_ORIGINS": "*"}, "write https://name"),
        (AUTH | {"ITWIN_MCP_ALLOWED_ORIGINS": "https://a.example/page"}, "write https://name"),
        (AUTH | {"ITWIN_MCP_ALLOWED_ORIGINS": "none,https://a.example"}, "write https://name"),
        (AUTH | {"ITWIN_MCP_STATE_SECRET": "short"}, "less than 32 bytes"),
        (AUTH | {"ITWIN_MCP_STATE_SECRET": f"{'a' * 32},short"}, "less than 32 bytes"),
        (AUTH | {"ITWIN_MCP_REPLICAS": "0"}, "whole number from 1"),
        (AUTH | {"ITWIN_MCP_METRICS_PORT": "99999"}, "whole number from 1 to 65535"),
        (AUTH | {"ITWIN_MCP_CALLER_CONCURRENCY": "many"}, "whole number"),
    ],
)
def test_invalid_hosted_setting_is_refused_with_a_message(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read_settings(environment)
    assert "short" not in str(caught.value)


def test_check_exposure_refuses_symmetric_and_no_signatures() -> None:
    for algorithm in ("HS256", "none", "rs256"):
        assert algorithm in read_refusal(AUTH | APPLICATION | {"ITWIN_MCP_AUTH_ALGORITHMS": algorithm}, "127.0.0.1")


def test_state_secrets_are_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"{'canary-new-' * 4}\n\n{'canary-old-' * 4}\n")
    settings = read_settings(AUTH | {"ITWIN_MCP_STATE_SECRET_FILE": str(file)})
    assert settings.hosted is not None
    assert [secret.get_secret_value()[:10] for secret in settings.hosted.state_secrets] == ["canary-new", "canary-old"]
    assert "canary" not in repr(settings)
    assert set(settings.secrets) == {"canary-new-" * 4, "canary-old-" * 4}
