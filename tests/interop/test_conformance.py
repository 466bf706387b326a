"""The official MCP conformance suite, for both revisions with requirements.

It runs against the shipped server, where most scenarios find nothing to call, and against the same server with the
suite's fixtures, loaded like a user's own capability file. `conformance/<surface>-<revision>.yml` lists the expected
failures with their reasons. The suite fails if another scenario fails or an expected failure passes. Its reports are
stored in `.interop/conformance/`, and `conformance/REPORT.md` summarizes them.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.contract.snapshots import agree_between
from tests.interop import makers
from tests.interop.conformance import report
from tests.interop.driver import PATIENCE
from tests.server.processes import Served, serving

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent / "conformance"
REVISIONS = ["2025-11-25", "2026-07-28"]
GENERIC = {
    "2025-11-25": [
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
    ],
    "2026-07-28": [
        "tools-list",
        "resources-list",
        "prompts-list",
        "sep-2164-resource-not-found",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "input-required-result-unsupported-methods",
    ],
}
"""Scenarios that need no fixtures, so that they test the shipped server."""


def run(surface: str, revision: str, served: Served, environment: dict[str, str]) -> dict[str, report.Found]:
    """Run the suite and return its findings. Fails on any unexpected failure or pass."""
    folder = makers.CACHE / "conformance" / f"{surface}-{revision}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [*makers.conformance(), "server", "--url", served.url, "--requirements", revision]
    options = ["--expected-failures", str(HERE / f"{surface}-{revision}.yml"), "-o", str(folder)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=2 * PATIENCE, env=environment)
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return report.read(folder)


@pytest.fixture(scope="module")
def with_fixtures(environment: dict[str, str]) -> Iterator[Served]:
    with serving("tests.interop.conformance.server", environment=environment) as served:
        yield served


@pytest.mark.parametrize("revision", REVISIONS)
def test_shipped_server_passes_every_scenario_without_fixtures(
    revision: str, served: Served, environment: dict[str, str]
) -> None:
    answer = run("shipped", revision, served, environment)
    wanted = GENERIC[revision]
    assert {name: answer[name].verdict for name in wanted} == dict.fromkeys(wanted, "passes")
    about = f"The shipped server; the {len(wanted)} scenarios that call nothing of the suite's own."
    _agree(f"shipped {revision}", report.section(f"{revision}, as shipped", about, answer, wanted, {}))


@pytest.mark.parametrize("revision", REVISIONS)
def test_server_with_fixtures_passes_every_required_scenario(
    revision: str, with_fixtures: Served, environment: dict[str, str]
) -> None:
    answer = run("fixtures", revision, with_fixtures, environment)
    file = makers.conformance_requirements(revision)
    required = list(yaml.safe_load(file.read_text())["server"])
    reasons = report.reasons_of(HERE / f"fixtures-{revision}.yml")
    assert set(reasons) <= set(required)
    failing = {name for name in required if answer[name].verdict == "fails"}
    assert failing == set(reasons)
    about = (
        "All that the revision requires, of the same server with the suite's fixtures, which are loaded as a user's "
        "own capability file is. Where a fixture's answer is made in Python (sound, sampling, questions in several "
        "rounds, log messages), passing says that the server carries such answers, not that its own tools give them."
    )
    _agree(f"fixtures {revision}", report.section(f"{revision}, with fixtures", about, answer, required, reasons))


@pytest.mark.parametrize("scenario", ["sep-2640-skills-enumeration", "sep-2640-skills-manifest"])
def test_skills_pass_the_conformance_suite(
    scenario: str, served: Served, environment: dict[str, str], tmp_path: Path
) -> None:
    # --force: an extension is not on the timeline of the protocol's revisions.
    command = [*makers.conformance(), "server", "--url", served.url, "--scenario", scenario, "--force"]
    command += ["-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "SKIPPED" not in output
    assert re.search(r"Passed: (\d+)/\1, 0 failed, 0 warnings", output), output


def _agree(marker: str, text: str) -> None:
    agree_between(HERE / "REPORT.md", marker, f"\n{text}\n")
