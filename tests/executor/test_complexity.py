"""Work on input from clients and the platform grows in proportion to its size."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from itwin_mcp.capability.catalog import Catalog
from itwin_mcp.capability.expressions import Argument
from itwin_mcp.capability.tool_actions import LookupStep
from itwin_mcp.executor.answers import Warnings
from itwin_mcp.executor.arguments import MAX_VALUES, compile_check
from itwin_mcp.executor.element_lookup import count_duplicates, drop_duplicates, look_up
from itwin_mcp.runtime import read_all
from itwin_mcp.settings import read_settings
from itwin_mcp.text import clean
from itwin_mcp.upstream.messages import Request, Response
from itwin_mcp.upstream.platform_errors import build_platform_error
from itwin_mcp.upstream.redaction import remove_secrets
from itwin_mcp.upstream.wire_format import read_json
from tests.steps import steps_of

VALUES: dict[str, Callable[[int], Any]] = {
    "empty lists": lambda size: [[] for _ in range(size)],
    "nested lists": lambda size: [[[["x"]]] for _ in range(size)],
    "texts": lambda size: ["0x1"] * size,
    "distinct texts": lambda size: [f"0x{n:x}" for n in range(size)],
    "objects": lambda size: [{"a": n, f"b{n}": None} for n in range(size)],
    "members": lambda size: {f"m{n}": n for n in range(size)},
    "odd characters": lambda size: "\u200d\U0001f3d7\ufe0f" * size,
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return read_all(read_settings({}))


def assert_proportional(measure: Callable[[int], int], size: int = 300) -> None:
    small, large = measure(size), measure(8 * size)
    assert large < 8 * small * 1.5


@pytest.mark.parametrize("shape", VALUES)
@pytest.mark.parametrize("tool", ["list-itwins", "acquire-locks", "update-imodel", "create-repository"])
def test_compile_check_takes_steps_in_proportion_to_the_arguments(catalog: Catalog, tool: str, shape: str) -> None:
    check = compile_check(catalog.tools[tool])
    names = [*catalog.tools[tool].input_schema["properties"], "unknown"]
    assert_proportional(lambda size: steps_of(lambda: check(dict.fromkeys(names, VALUES[shape](size // 4)))))


@pytest.mark.parametrize("shape", VALUES)
def test_compile_check_takes_bounded_steps_for_huge_arguments(catalog: Catalog, shape: str) -> None:
    check = compile_check(catalog.tools["acquire-locks"])
    assert steps_of(lambda: check({"objectIds": VALUES[shape](3 * MAX_VALUES)})) < 200 * MAX_VALUES


@pytest.mark.parametrize("shape", VALUES)
@pytest.mark.parametrize(
    "work", [clean, remove_secrets, drop_duplicates], ids=["clean", "remove_secrets", "drop_duplicates"]
)
def test_work_on_an_answer_takes_steps_in_proportion(work: Callable[[Any], Any], shape: str) -> None:
    assert_proportional(lambda size: steps_of(lambda: work(VALUES[shape](size))))


@pytest.mark.parametrize("shape", VALUES)
def test_build_platform_error_takes_steps_in_proportion(shape: str) -> None:
    def measure(size: int) -> int:
        error = {"code": "c", "message": "m", "details": VALUES[shape](size), "conflicting": VALUES[shape](size)}
        response = Response(422, {}, json.dumps({"error": error}).encode())
        request = Request("GET", "https://api.bentley.com", "/itwins")
        return steps_of(lambda: build_platform_error(response, request, now=0.0))

    assert_proportional(measure)


def test_look_up_and_count_duplicates_take_steps_in_proportion() -> None:
    step = LookupStep("s", "i", "id", Argument("ids"), ("id",), None, None, count="times")

    def measure(size: int) -> int:
        ids = [f"{n}" for n in range(size)]
        compared = Compared(0)
        elements = [{"id": Id(identity, compared)} for identity in ids]
        steps = steps_of(
            lambda: look_up(step, elements, [Id(identity, compared) for identity in reversed(ids)], Warnings())
        )
        return steps + compared.times + steps_of(lambda: count_duplicates(elements, "times"))

    assert_proportional(measure)


class Compared:
    """Counts the comparisons between ids."""

    def __init__(self, times: int) -> None:
        self.times = times


class Id(str):
    """An id that counts its comparisons, because lists compare in C where steps cannot be counted."""

    compared: Compared

    def __new__(cls, text: str, compared: Compared) -> Id:
        identity = super().__new__(cls, text)
        identity.compared = compared
        return identity

    def __eq__(self, other: object) -> bool:
        self.compared.times += 1
        return str(self) == other

    __hash__ = str.__hash__


def test_read_json_takes_steps_in_proportion() -> None:
    for shape in VALUES.values():
        bodies = {size: json.dumps({"iTwin": shape(size)}).encode() for size in (300, 2_400)}
        assert_proportional(lambda size, bodies=bodies: steps_of(lambda: read_json(Response(200, {}, bodies[size]))))
