"""Bentley's published TypeScript clients work against the sandbox as they do against the platform."""

from typing import Any

import pytest

from tests.interop.bentley.outcomes import AREAS, Outcomes, read_sentences

pytestmark = pytest.mark.interop

CHECKS = [pytest.param(area, sentence, id=f"{area} {sentence}") for area in AREAS for sentence in read_sentences(area)]


@pytest.mark.parametrize(("area", "sentence"), CHECKS)
def test_bentley_client_passes_each_check(area: str, sentence: str, outcomes: Outcomes) -> None:
    outcome: dict[str, Any] | None = outcomes.of(area).get(sentence)
    assert outcome is not None, f"the script ended before this check:\n{outcomes.errors(area)}"
    assert outcome["holds"], outcome["came"]


@pytest.mark.parametrize("area", AREAS)
def test_bentley_scripts_report_exactly_their_checks(area: str, outcomes: Outcomes) -> None:
    answer = read_sentences(area)
    assert len(set(answer)) == len(answer)
    assert set(outcomes.of(area)) == set(answer)
    assert outcomes.errors(area) == ""
