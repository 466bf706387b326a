"""Report of differences between the platform and the sandbox, as JSON and Markdown, without data of the account.

It omits from the platform's answers every text, the claims of the token about its owner, ids, addresses and links. From
messages it omits every word that could be a name, because the sandbox's own sources do not have it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from itwin_mcp import sandbox
from tests.contract.live.shapes import differences
from tests.contract.live.wire import Seen, Wire, scrub

# Section 11 of our notes on the platform: what nobody has seen.
UNKNOWNS = {
    1: "Statuses of conflicts and quotas",
    2: "Bodies of user permissions, role permissions and shares",
    3: "Details of what is invalid in clones, forks, named versions, changesets and briefcases",
    4: "Accept, Content-Type and malformed ids",
    5: "Deleting what is not empty; default orders; Prefer on one iTwin",
    6: "Continuation tokens",
    7: "Headers about rate limits",
    8: "What makes two repositories the same",
}
SHORTEST = 3  # letters of a text that is removed everywhere
_WORD = re.compile(r"[^\W_][\w-]*")
_SOURCES = Path(sandbox.__file__).parent
_OURS = ("status", "field", "type", "null", "note", "step", "expectation")  # reported only in our own words
_OF_THE_ACCOUNT = ("portfolio.py", "seed.py")  # the sandbox's own account is treated like any other


@dataclass(frozen=True)
class Difference:
    """One thing that the two do differently."""

    check: str
    unknown: int | None  # of UNKNOWNS
    step: str
    what: str  # status, header, code, field, type, null, note …
    where: str
    sandbox: str
    platform: str


@dataclass
class Report:
    """All differences of one run."""

    found: list[Difference] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def compare(self, check: str, unknown: int | None, emulated: Wire, platform: Wire) -> list[Difference]:
        """Note what differs between two runs of one check."""
        self.secrets |= platform.secrets
        new = [Difference(check, unknown, *one) for one in _compare(emulated, platform)]
        if platform.limits - emulated.limits:
            names = ", ".join(sorted(platform.limits - emulated.limits))
            new.append(Difference(check, 7, "any", "header", "rate limits", "none of them", names))
        self.found += [one for one in new if one not in self.found]
        self.checks.append(check)
        return new

    def unexpected(self, check: str, unknown: int | None, line: str) -> None:
        """Note a line of a check that did not hold on the platform."""
        self.found.append(Difference(check, unknown, "the check itself", "expectation", line, "holds", "does not hold"))

    def write(self, folder: Path) -> None:
        """`differences.json` and `differences.md`, the open questions first."""
        folder.mkdir(parents=True, exist_ok=True)
        ordered = sorted(self._redacted(), key=lambda one: (one.unknown is None, one.unknown or 0, one.what == "null"))
        body = {"checks": self.checks, "unknowns": UNKNOWNS, "differences": [asdict(one) for one in ordered]}
        (folder / "differences.json").write_text(json.dumps(body, indent=2) + "\n")
        (folder / "differences.md").write_text(_markdown(self.checks, ordered))

    def _redacted(self) -> Iterator[Difference]:
        known = vocabulary()
        secret = _pattern(self.secrets, known)
        for one in self.found:
            theirs = None if one.what in _OURS else secret
            pair = [_redact(text, theirs, known, message=one.what == "message") for text in (one.sandbox, one.platform)]
            yield Difference(one.check, one.unknown, one.step, one.what, one.where, *pair)


def _compare(emulated: Wire, platform: Wire) -> Iterator[tuple[str, str, str, str, str]]:
    theirs = {seen.step: seen for seen in platform.seen}
    for ours in emulated.seen:
        other = theirs.pop(ours.step, None)
        if other is None:
            yield ours.step, "step", "", "asked", "not reached"
            continue
        yield from ((ours.step, *found) for found in _compare_answers(ours, other))
    for step in theirs:
        yield step, "step", "", "not reached", "asked"
    for what in emulated.notes.keys() | platform.notes.keys():
        pair = emulated.notes.get(what, "not noted"), platform.notes.get(what, "not noted")
        if pair[0] != pair[1]:
            yield "what it adds up to", "note", what, *pair


def _compare_answers(ours: Seen, theirs: Seen) -> Iterator[tuple[str, str, str, str]]:
    if ours.status != theirs.status:
        yield "status", "", str(ours.status), str(theirs.status)
    for name in sorted(ours.headers.keys() | theirs.headers.keys()):
        pair = ours.headers.get(name, "missing"), theirs.headers.get(name, "missing")
        if pair[0].lower() != pair[1].lower():
            yield "header", name, *pair
    left, right = dict(ours.errors), dict(theirs.errors)
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name):
            yield name.partition(".")[2] or name, name, left.get(name, "missing"), right.get(name, "missing")
    if not ours.errors and not theirs.errors:
        yield from differences(ours.shape, theirs.shape)


def vocabulary() -> frozenset[str]:
    """Words that are nobody's name: those of the sandbox's sources."""
    sources = [file.read_text() for file in _SOURCES.glob("*.py") if file.name not in _OF_THE_ACCOUNT]
    return frozenset(word.lower() for text in sources for word in _WORD.findall(text))


def _pattern(secrets: Iterable[str], known: frozenset[str]) -> re.Pattern[str] | None:
    words = {text for text in secrets if len(text) >= SHORTEST and text.lower() not in known}
    if not words:
        return None
    return re.compile("|".join(re.escape(text) for text in sorted(words, key=len, reverse=True)), re.IGNORECASE)


def _redact(text: str, secret: re.Pattern[str] | None, known: frozenset[str], *, message: bool) -> str:
    text = scrub(text)
    text = secret.sub("…", text) if secret else text
    if message:
        # A lower-case word is a word; anything else might be a name or a number of somebody's.
        text = _WORD.sub(lambda found: found[0] if found[0].islower() or found[0].lower() in known else "…", text)
    return text[:400]


def _markdown(checks: list[str], found: list[Difference]) -> str:
    lines = ["# How the platform differs from the sandbox", "", f"{len(checks)} checks, {len(found)} differences."]
    for number, title in [*UNKNOWNS.items(), (None, "Everything else")]:
        mine = [one for one in found if one.unknown == number]
        heading = title if number is None else f"Unknown {number}: {title}"
        lines += ["", f"## {heading}", ""]
        if not mine:
            lines.append("No difference.")
            continue
        lines += ["| Check | Step | What | Sandbox | Platform |", "|---|---|---|---|---|"]
        for one in mine:
            cells = (one.check, one.step, f"{one.what} {one.where}".strip(), one.sandbox, one.platform)
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
