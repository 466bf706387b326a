"""Removes secrets from text and data of other servers."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from itwin_mcp.text import clean_text

MAX_MESSAGE = 2000
"""The maximum number of characters of a server's text in an error."""

MIN_SECRET = 8
"""Characters. Shorter known secrets are not replaced, because they may occur in ordinary words."""

HIDDEN = "[hidden]"

# --- names ------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"passw(?:or)?d|pwd|passphrase|passcode|secret(?!ar)|credential|cookie|connectionstring|connstr|jwt|accesssignature"
    r"|(?:client|saml)assertion|codeverifier|auth(?:orization)?code|(?:recovery|backup|verification)codes?$|onetimecode"
    r"|(?:api|access|account|subscription|private|share|signing|encryption|functions?|symmetric|ssh|storage|master|hmac)keys?"
    r"|authorization(?:header)?$|^(?:sas|sig|otp|totp|pat|dsn|bearer|auth)$|sas$|signature$"
    r"|token(?:s|value|string|text|hash|secret)?$"
)
_PAGING_TOKEN = re.compile(r"(?:page|skip|continuation|next|sync|delta)tokens?$")
_ABOUT_A_SECRET = re.compile(
    r"(?:id|ids|name|type|types|kind|count|length|hint|policy|required|enabled|expir\w{0,8}|expires(?:at|on|in)|updated"
    r"|(?:created|changed|rotated|modified|last\w{0,12})(?:at|on|date|time)?|url|uri|endpoint|status|version|permissions?)$"
)
_SECRET_IN_QUERY = frozenset({"key", "code"})
"""Names that mean a secret only in the query of a URL."""


def is_secret_name(name: str) -> bool:
    """Return whether this is the name of a secret, in any spelling: `privateKey`, `x-api-key`, `sas_token`.

    Names of properties of a secret (`passwordPolicy`, `tokenType`) and of paging tokens do not count.
    """
    plain = re.sub(r"[^a-z0-9]", "", name[:200].lower())
    if not _SECRET_NAME.search(plain) or _PAGING_TOKEN.search(plain):
        return False
    return not _ABOUT_A_SECRET.search(plain)


# --- data -------------------------------------------------------------------------------------------------------


def remove_secrets(value: Any) -> Any:
    """Return a JSON value without members with the name of a secret, and without links that contain credentials.

    In other text only the secret is replaced. An `authentication` object keeps only its type.
    """
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, list):
        return [remove_secrets(child) for child in value if not _is_secret_link(child)]
    if not isinstance(value, dict):
        return value
    if _is_secret_pair(value):
        value = {name: child for name, child in value.items() if name.lower() != "value"}
    public = {
        name: {key: kind for key, kind in child.items() if key == "type"} if _is_authentication(name, child) else child
        for name, child in value.items()
        if not (_is_secret_member(name, child) or _is_secret_link(child))
    }
    cleaned = {hide_secrets(name): remove_secrets(child) for name, child in public.items()}
    # An object that became empty is left out, because all that it had was secret.
    return {name: child for name, child in cleaned.items() if child != {} or value.get(name) == {}}


def _is_secret_member(name: str, value: Any) -> bool:
    # true, false and null only say whether a secret exists.
    return is_secret_name(name) and not isinstance(value, bool) and value is not None


def _is_secret_pair(value: dict[str, Any]) -> bool:
    """Return whether an object is `{"name": "x-api-key", "value": …}`, the usual form of headers and parameters."""
    return any(
        name.lower() in ("name", "key") and isinstance(child, str) and is_secret_name(child)
        for name, child in value.items()
    )


def _is_authentication(name: str, value: Any) -> bool:
    return name.lower() == "authentication" and isinstance(value, dict)


def _is_secret_link(value: Any) -> bool:
    """Return whether a value is a URL that contains a credential, without other text."""
    if not isinstance(value, str) or "://" not in value[:40] or re.search(r"\s", value.strip()):
        return False
    return hide_secrets(value) != value


# --- text -------------------------------------------------------------------------------------------------------

# Every pattern takes linear time. Unbounded repetitions are possessive (`++`, `*+`), so they never backtrack. They
# begin at the start of a word or after characters that they do not repeat, so a run of characters is scanned only once.
_VALUE = r"""[^\s&;,"'<>\\]++"""
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*+"?|'(?:[^'\\]|\\.)*+'?)"""

_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^-]*+")
_AUTHORITY = re.compile(r"://([^/?#\s\"'<>]*+)")
_QUERY = re.compile(r"(?<=[?&;#])((?:amp;)?([\w.%\[\]-]{1,60})=)[^\s&#\"'<>]++")
_ENCODED_QUERY = re.compile(r"((?:%3f|%26|(?<![\w.%-]))([\w.-]{1,60})%3d)(?:(?!%26)[^\s&#\"'<>])++", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?<![\w.-])(([\w.-]{{2,60}})[ ]?=[ ]?)({_QUOTED}|{_VALUE})")
_MEMBER = re.compile(
    r"""(\\?["']([\w. -]{2,60})\\?["']\s{0,20}:\s{0,20})(?:\\"(?:[^"\\]|\\[^"])*+(?:\\")?|"""
    + _QUOTED
    + r"""|-?[0-9.]++)"""
)
_HEADER = re.compile(
    r"(?<![\w.-])((?:proxy-)?authorization|x-[\w-]{0,40}(?:key|token|secret)|ocp-apim-subscription-key"
    r"|(?:set-)?cookie)(\s?[:=]\s?)[^\r\n\"'<>]++",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?<!\w)((?:bearer|basic)\s{1,20})([A-Za-z0-9+/=._~-]{8,}+)", re.IGNORECASE)
_RUN = re.compile(r"(?<![\w.+/~=-])[\w.+/~=-]{20,}+")


def hide_secrets(text: str, *secrets: str) -> str:
    """Replace the known `secrets`, and everything with the form of a credential, in linear time."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            text = text.replace(secret, HIDDEN)
    if "-----BEGIN" in text:
        text = _PRIVATE_KEY.sub(rf"\1{HIDDEN}", text)
    if "eyJ" in text:
        text = _RUN.sub(_hide_jwt, text)
    if "://" in text and "@" in text:
        text = _AUTHORITY.sub(_hide_user_info, text)
    if ":" in text or "=" in text:
        text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
        text = _MEMBER.sub(_hide_if(is_secret_name), text)
    if "=" in text:
        text = _QUERY.sub(_hide_if(_is_query_secret), text)
        text = _ASSIGNED.sub(_hide_assigned, text)
    if "%3" in text:
        text = _ENCODED_QUERY.sub(_hide_if(_is_query_secret), text)
    return _SCHEME.sub(_hide_token, text)


def redact(text: str, limit: int = MAX_MESSAGE, *secrets: str) -> str:
    """Return a server's text for a message: cleaned, without secrets, in at most `limit` characters.

    Only the first four times `limit` characters are read. A word that is cut there is dropped, because it may be half a
    secret, which no pattern would recognise.
    """
    if len(text) > 4 * limit:
        cut = text[: 4 * limit]
        text = cut[: max((index for index, character in enumerate(cut) if character.isspace()), default=len(cut))]
    return clean_text(hide_secrets(clean_text(text, 4 * limit), *secrets), limit)


def _hide_if(is_secret: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    """Return a replacement function for `re.sub`.

    If group 2 of the match is the name of a secret, it hides everything after group 1, which ends before the value.
    """

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}{HIDDEN}" if is_secret(match[2]) else match[0]

    return replace


def _is_query_secret(name: str) -> bool:
    last_part = name.lower().rpartition(".")[2]
    return last_part in _SECRET_IN_QUERY or is_secret_name(name)


def _hide_assigned(match: re.Match[str]) -> str:
    """Hide the value of `name=value`; with an ambiguous name such as `sig` (stress or signature) only if it is random.

    It is a replacement function for `re.sub`.
    """
    name, value = match[2], match[3].strip("\"'")
    if HIDDEN in value or not is_secret_name(name):
        return match[0]
    if name.lower() in ("sig", "auth", "pat", "sas", "signature") and not _looks_random(value):
        return match[0]
    return f"{match[1]}{HIDDEN}"


def _hide_user_info(match: re.Match[str]) -> str:
    user, _, host = match[1].rpartition("@")
    return f"://{HIDDEN}@{host}" if user else match[0]


def _hide_jwt(match: re.Match[str]) -> str:
    """Hide a JWT in a run of the characters that JWTs consist of: from `eyJ` to the end, if a dot follows."""
    run = match[0]
    begin = run.find("eyJ")
    return f"{run[:begin]}{HIDDEN}" if begin >= 0 and "." in run[begin + 8 : -1] else run


def _hide_token(match: re.Match[str]) -> str:
    """Hide the word after `Basic` or `Bearer` if it looks like a credential, unlike in "bearer structure"."""
    scheme, value = match[1].strip().lower(), match[2]
    secret = _is_basic(value) or _looks_random(value) if scheme == "basic" else _looks_random(value)
    return f"{match[1]}{HIDDEN}" if secret else match[0]


def _is_basic(value: str) -> bool:
    """Return whether the value is `user:password` in Base64."""
    try:
        return b":" in base64.b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), validate=True)
    except ValueError:
        return False


def _looks_random(value: str) -> bool:
    """Return whether a part of at least 12 characters mixes letters and digits, or cases within a word."""
    for part in re.split(r"[-._~/ ]", value):
        mixed = re.search(r"[A-Za-z]", part) is not None and re.search(r"[0-9]", part) is not None
        inner = re.search(r"[a-z][A-Z]{2}|[a-z][A-Z][a-z]?[A-Z]", part) is not None
        if len(part) >= 12 and (mixed or inner):
            return True
    return False
