"""Findings of a conformance run by scenario, and the short report that is committed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ON_EVERY_FRAME = "wire-schema-valid"
"""A check that every scenario has and that proves nothing about the scenario."""
_STAMP = re.compile(r"^server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass(frozen=True)
class Found:
    """Checks of one scenario. Skipped checks and warnings do not count as passed."""

    passed: int
    failed: int
    other: int
    own: int
    """Return the number of passed checks that are specific to the scenario."""

    @property
    def verdict(self) -> str:
        if self.failed:
            return "fails"
        return "passes" if self.own else "tests nothing"


def read(folder: Path) -> dict[str, Found]:
    """Read the findings by scenario from the output folder of the suite."""
    findings: dict[str, Found] = {}
    for file in sorted(folder.glob("server-*/checks.json")):
        name = _STAMP.fullmatch(file.parent.name)
        assert name is not None, file
        checks = json.loads(file.read_text())
        statuses = Counter(check["status"] for check in checks)
        own = sum(check["status"] == "SUCCESS" and check["id"] != ON_EVERY_FRAME for check in checks)
        passed, failed = statuses["SUCCESS"], statuses["FAILURE"] + statuses["WARNING"]
        findings[name["scenario"]] = Found(passed, failed, len(checks) - passed - failed, own)
    return findings


def section(
    title: str, about: str, findings: Mapping[str, Found], required: list[str], reasons: Mapping[str, str]
) -> str:
    """Format a run as Markdown. Scenarios in `reasons` are expected to fail, for the given reason."""
    counted = [name for name in required if findings[name].verdict == "passes" and name not in reasons]
    lines = [f"## {title}", "", about, "", f"**{len(counted)} of {len(required)} scenarios pass.**", ""]
    lines += ["| Scenario | Checks passed | Failed | Not applicable | |", "|---|---|---|---|---|"]
    for name in required:
        finding = findings[name]
        why = reasons.get(name, "" if finding.verdict == "passes" else finding.verdict)
        lines.append(f"| {name} | {finding.passed} | {finding.failed} | {finding.other} | {why} |")
    return "\n".join(lines) + "\n"


def reasons_of(baseline: Path) -> dict[str, str]:
    """Read why scenarios are expected to fail: the comment above each in the suite's file."""
    reasons: dict[str, str] = {}
    above: list[str] = []
    fresh = True
    for line in baseline.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            above = [*([] if fresh else above), text.removeprefix("#").strip()]
            fresh = False
        elif text.startswith("- "):
            fresh = True
            scenario = text.removeprefix("- ").partition(":")[0]
            assert above, f"{baseline.name}: nothing is said about {scenario}"
            reasons[scenario] = " ".join(above)
    return reasons
