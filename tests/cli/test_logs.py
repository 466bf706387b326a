"""Logs on standard error: JSON lines, quiet by default, without secrets."""

import json
import logging
import warnings

import pytest

from itwin_mcp.logs import JsonLines, set_up_logs

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJlLWNhbmFyeQ"


@pytest.mark.parametrize(
    "message",
    [
        "sent Authorization: Bearer canary-123456789",
        f"the token {TOKEN} was refused",
        "GET https://x.blob.core.windows.net/a?sv=1&sig=canary%2Fabc&se=2",
        'body {"refresh_token": "canary-refresh"}',
        "client_secret=canary-client",
        "the known one: canary-known-secret!",
    ],
)
def test_json_lines_hide_secrets_in_messages(message: str) -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s", (message,), None)
    line = JsonLines(["canary-known-secret!"]).format(record)
    assert "canary" not in line
    assert TOKEN not in line
    assert json.loads(line)["level"] == "info"


def test_json_lines_hide_secrets_in_exceptions() -> None:
    try:
        raise ValueError(f"Bearer {TOKEN}")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), (ValueError, error, None))
    line = json.loads(JsonLines([]).format(record))
    assert TOKEN not in line["exception"]
    assert "ValueError" in line["exception"]


@pytest.fixture
def restored_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.captureWarnings(False)  # an earlier test of this process may have left it on
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_set_up_logs_logs_warnings_but_not_info(restored_logging: object, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("warning")
    logging.getLogger("a.library").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        set_up_logs("warning")
        warnings.warn("careful", stacklevel=1)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [json.loads(line) for line in err.splitlines()]
    assert len(lines) == 1
    assert "careful" in lines[0]["message"]
