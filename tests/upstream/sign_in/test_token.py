"""Access tokens from the settings: StaticToken, TokenFile, and parsing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from itwin_mcp.errors import NotSignedIn
from itwin_mcp.upstream.sign_in.static_token import StaticToken
from itwin_mcp.upstream.sign_in.token import Token, read_claims, read_expiry, read_token
from itwin_mcp.upstream.sign_in.token_file import TokenFile

from .identity import jwt  # noqa: TID252

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("text", ["abc", "Bearer abc", "bearer abc", "  BEARER \t abc \n", "abc\r\n"])
async def test_read_token_accepts_pasted_forms(text: str) -> None:
    assert (await StaticToken(text).get_token()).value == "abc"


@pytest.mark.parametrize(
    "text", ["", "  ", "Bearer", "Bearer ", "secret\r\nX: y", "secret secret", "secré", "a\x00b", "x" * 200_000]
)
def test_read_token_rejects_invalid_text_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match="access token") as caught:
        StaticToken(text)
    assert "secr" not in str(caught.value)


async def test_static_token_returns_same_token_after_refusal() -> None:
    source = StaticToken("abc")
    token = await source.get_token()
    assert await source.get_token(stale=token) is token


def test_read_token_reads_expiry_and_issuer() -> None:
    token = read_token(jwt(exp=1_900_000_000, iss="https://ims.bentley.com", scope=["itwin-platform"]))
    assert (token.expires_at, token.issuer) == (1_900_000_000.0, "https://ims.bentley.com")


@pytest.mark.parametrize(
    "value", ["opaque", "a.b.c", "a.!!.c", f"a.{'A' * 10}.c", "..", "x." * 100_000, jwt(exp="soon"), jwt(exp=True)]
)
def test_read_expiry_of_invalid_claims_is_none(value: str) -> None:
    assert read_expiry(read_claims(value)) is None


def test_repr_hides_tokens() -> None:
    assert "abc" not in f"{Token('abc')!r} {Token('abc')} {StaticToken('abc')!r}"


async def test_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("Bearer first\n")
    source = TokenFile(path)
    assert (await source.get_token()).value == "first"
    path.write_text("second-longer")
    assert (await source.get_token()).value == "second-longer"


async def test_token_file_is_read_again_after_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    state = path.stat()
    source = TokenFile(path)
    token = await source.get_token()
    path.write_text("secnd")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (await source.get_token(stale=token)).value == "secnd"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"secret secret", b"x" * 300_000])
async def test_unusable_token_file_raises_not_signed_in(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotSignedIn, match="token file") as caught:
        await TokenFile(path).get_token()
    assert "secret" not in str(caught.value)
    path.write_text("good")
