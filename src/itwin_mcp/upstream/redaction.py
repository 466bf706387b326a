"""Removes secrets from text and data that others wrote."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from itwin_mcp.text import clean_text

MAX_MESSAGE = 2000
"""Characters of foreign text that an error carries."""

MIN_SECRET = 8
"""Characters; a shorter value would be found in ordinary words."""

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
"""Names that say secret only in the query of a URL."""


def is_secret_name(name: str) -> bool:
    """Return whether a member of this name holds a secret, in any spelling: `privateKey`, `x-api-key`, `sas_token`.

    Names that only say something about a secret (`passwordPolicy`, `tokenType`) and paging tokens hold none.
    """
    plain = re.sub(r"[^a-z0-9]", "", name[:200].lower())
    if not _SECRET_NAME.search(plain) or _PAGING_TOKEN.search(plain):
        return False
    return not _ABOUT_A_SECRET.search(plain)


# --- data -------------------------------------------------------------------------------------------------------


def remove_secrets(value: Any) -> Any:
    """Return a JSON value without members whose name says that they hold a secret and without links with credentials.

    In other text only the secret is replaced. Of an `authentication` its type stays.
    """
    if isinstance(value, str):
        return hide_secrets(value)
    if isinstance(value, list):
        return [remove_secrets(child) for child in value if not _is_secret_link(child)]
    if not isinstance(value, dict):
        return value
    if _is_secret_pair(value):
        value = {name: child for name, child in value.items() if name.lower() != "value"}
    kept = {
        name: {key: kind for key, kind in child.items() if key == "type"} if _is_authentication(name, child) else child
        for name, child in value.items()
        if not (_is_secret_member(name, child) or _is_secret_link(child))
    }
    opened = {hide_secrets(name): remove_secrets(child) for name, child in kept.items()}
    return {name: child for name, child in opened.items() if child != {} or value.get(name) == {}}


def _is_secret_member(name: str, value: Any) -> bool:
    # true, false and null only say whether there is a secret.
    return is_secret_name(name) and not isinstance(value, bool) and value is not None


def _is_secret_pair(value: dict[str, Any]) -> bool:
    """Return whether it is `{"name": "x-api-key", "value": …}`, as headers and parameters are listed."""
    names = [child for name, child in value.items() if name.lower() in ("name", "key") and isinstance(child, str)]
    return any(is_secret_name(name) for name in names)


def _is_authentication(name: str, value: Any) -> bool:
    return name.lower() == "authentication" and isinstance(value, dict)


def _is_secret_link(value: Any) -> bool:
    """Return whether a text is nothing but a URL with a credential in it."""
    if not isinstance(value, str) or "://" not in value[:40] or re.search(r"\s", value.strip()):
        return False
    return hide_secrets(value) != value


# --- text -------------------------------------------------------------------------------------------------------

# Every pattern is linear: what it repeats without a bound is possessive (`++`, `*+`), so that nothing is tried twice,
# and begins at a word's beginning or after characters that it does not repeat itself, so that nothing is read twice.
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


def hide_secrets(text: str, *known: str) -> str:
    """Replace `known` values and everything shaped like a credential, in linear time."""
    for value in known:
        if len(value) >= MIN_SECRET:
            text = text.replace(value, HIDDEN)
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


def redact(text: str, limit: int = MAX_MESSAGE, *known: str) -> str:
    """Return foreign text for a message: cleaned, without secrets, in at most `limit` characters.

    Only four times the limit is read. A word that this cuts is dropped, because it may be half a secret.
    """
    if len(text) > 4 * limit:
        cut = text[: 4 * limit]
        text = cut[: max((place for place, sign in enumerate(cut) if sign.isspace()), default=len(cut))]
    return clean_text(hide_secrets(clean_text(text, 4 * limit), *known), limit)


def _hide_if(is_secret: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    """Return a replacement that hides what follows the first group if the second is the name of a secret."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}{HIDDEN}" if is_secret(match[2]) else match[0]

    return replace


def _is_query_secret(name: str) -> bool:
    plain = name.lower().rpartition(".")[2]
    return plain in _SECRET_IN_QUERY or is_secret_name(name)


def _hide_assigned(match: re.Match[str]) -> str:
    """Hide the value of `name=value`; after an ambiguous name such as `sig` (stress, signature) only a random value."""
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
    """Hide a JWT in a run of its characters: from `eyJ` on, if a dot follows."""
    run = match[0]
    begin = run.find("eyJ")
    return f"{run[:begin]}{HIDDEN}" if begin >= 0 and "." in run[begin + 8 : -1] else run


def _hide_token(match: re.Match[str]) -> str:
    """Hide what follows `Basic` or `Bearer` if it looks like a credential: both are words, too ("bearer structure")."""
    scheme, value = match[1].strip().lower(), match[2]
    secret = _is_basic(value) or _looks_random(value) if scheme == "basic" else _looks_random(value)
    return f"{match[1]}{HIDDEN}" if secret else match[0]


def _is_basic(value: str) -> bool:
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
