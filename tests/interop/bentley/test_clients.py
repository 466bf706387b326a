"""Bentley's published TypeScript clients work against the sandbox as against the platform."""

from typing import Any

import pytest

from tests.interop.bentley.outcomes import AREAS, Outcomes, sentences

pytestmark = pytest.mark.interop

CHECKS = [pytest.param(area, sentence, id=f"{area} {sentence}") for area in AREAS for sentence in sentences(area)]


@pytest.mark.parametrize(("area", "sentence"), CHECKS)
def test_bentley_client(area: str, sentence: str, outcomes: Outcomes) -> None:
    outcome: dict[str, Any] | None = outcomes.of(area).get(sentence)
    assert outcome is not None, f"the script ended before this check:\n{outcomes.said(area)}"
    assert outcome["holds"], outcome["came"]


@pytest.mark.parametrize("area", AREAS)
def test_scripts_report_exactly_their_checks(area: str, outcomes: Outcomes) -> None:
    found = sentences(area)
    assert len(set(found)) == len(found)
    assert set(outcomes.of(area)) == set(found)
    assert outcomes.said(area) == ""
