"""The protocol's official conformance suite against what we ship, at both revisions that it has requirements for.

Most of its scenarios call fixtures (`test_simple_text`, …) that a product does not have: `conformance-<revision>.yml`
names those, and the suite fails if one that is not named fails or one that is named passes.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.interop import makers
from tests.interop.driver import PATIENCE
from tests.server.processes import Served

pytestmark = pytest.mark.interop

EVERY_SERVER = {"tools-list", "resources-list", "dns-rebinding-protection", "server-sse-multiple-streams"}
OF_REVISION = {
    "2025-11-25": {"server-initialize", "server-session-lifecycle", "ping"},
    "2026-07-28": {
        "sep-2164-resource-not-found",
        "http-header-validation",
        "input-required-result-unsupported-methods",
    },
}


@pytest.mark.parametrize("revision", OF_REVISION)
def test_the_conformance_suite_finds_nothing_but_its_own_fixtures_missing(
    revision: str, served: Served, environment: dict[str, str], tmp_path: Path
) -> None:
    expected = Path(__file__).with_name(f"conformance-{revision}.yml")
    command = [*makers.conformance(), "server", "--url", served.url, "--requirements", revision]
    options = ["--expected-failures", str(expected), "-o", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=2 * PATIENCE, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    passed = set(re.findall(r"^✓ ([\w-]+): [1-9]\d* passed, 0 failed", said, re.MULTILINE))
    assert EVERY_SERVER | OF_REVISION[revision] <= passed, said


@pytest.mark.parametrize("scenario", ["sep-2640-skills-enumeration", "sep-2640-skills-manifest"])
def test_the_conformance_suite_finds_nothing_wrong_with_the_skills(
    scenario: str, served: Served, environment: dict[str, str], tmp_path: Path
) -> None:
    # --force: an extension is not on the timeline of the protocol's revisions.
    command = [*makers.conformance(), "server", "--url", served.url, "--scenario", scenario, "--force"]
    command += ["-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "SKIPPED" not in said
    assert re.search(r"Passed: (\d+)/\1, 0 failed, 0 warnings", said), said
