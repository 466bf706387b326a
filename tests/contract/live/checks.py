"""Checks of the contract: a sentence, requests, and whether a check writes or answers an open question."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.contract.live.wire import Wire

Body = Callable[[Wire], Awaitable[None]]


@dataclass(frozen=True)
class Check:
    """`unknown` is the number in `report.UNKNOWNS`; without one, what it asserts is proven."""

    sentence: str
    body: Body
    writes: bool
    unknown: int | None

    def __str__(self) -> str:
        return self.sentence


CHECKS: list[Check] = []


def check(sentence: str, *, writes: bool = False, unknown: int | None = None) -> Callable[[Body], Body]:
    """Register a check under its sentence."""

    def register(body: Body) -> Body:
        CHECKS.append(Check(sentence, body, writes, unknown))
        return body

    return register
