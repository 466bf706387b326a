"""The eleven steps of the format's public tutorial, through MCP against a loopback stand-in for their back ends."""

# ruff: noqa: E501

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import connect
from tests.upstream.loopback import Asked, loopback

pytestmark = pytest.mark.anyio

TUTORIAL = Path(os.environ.get("ITWIN_MCP_SHARED", Path(__file__).parents[3] / "shared")) / "naftiko" / "tutorial"
MOCKS = "https://mocks.naftiko.net/rest"
REGISTRY = "/naftiko-shipyard-maritime-registry-api/1.0.0-alpha2"
DOCKYARD = "/naftiko-shipyard-legacy-dockyard-api/1.0.0-alpha2"
SHIP = {
    "imo_number": "IMO-1",
    "vessel_name": "Northern Star",
    "vessel_type": "cargo",
    "flag_code": "NO",
    "operational_status": "active",
    "year_built": 2015,
    "gross_tonnage": 42000,
    "dimensions": {"length_overall": 229},
    "assignedCrew": ["C-2"],
}
CREW = [{"crewId": "C-1", "fullName": "Ada", "role": "cook"}, {"crewId": "C-2", "fullName": "Bo", "role": "captain"}]
CARGO = [{"cargoId": "G-1", "type": "steel", "description": "Coils", "weight": 12.5, "hazardous": False}]
VOYAGE = {
    "voyageId": "V-1",
    "shipImo": "IMO-1",
    "departurePort": "Oslo",
    "arrivalPort": "Rotterdam",
    "departureDate": "2026-01-01",
    "arrivalDate": "2026-01-03",
    "crewIds": ["C-2"],
    "cargoIds": ["G-1"],
    "status": "planned",
}
ANSWERS: dict[str, Any] = {
    f"GET {REGISTRY}/ships": [SHIP],
    f"GET {REGISTRY}/ships/IMO-1": SHIP,
    f"GET {REGISTRY}/crew": CREW,
    f"GET {REGISTRY}/cargo": CARGO,
    f"GET {REGISTRY}/voyages/V-1": VOYAGE,
    f"POST {REGISTRY}/voyages": VOYAGE,
    f"GET {DOCKYARD}/vessels": b"<vessels><vessel><vesselCode>L1</vesselCode><vesselName>Old</vesselName></vessel></vessels>",
}
FLAT = {"imo": "IMO-1", "name": "Northern Star", "type": "cargo", "flag": "NO", "status": "active"}
SPECS = {"specs": {"yearBuilt": 2015, "tonnage": 42000, "length": 229}}
LEGACY = {"vesselCode": "L1", "name": "Old", "type": None, "flag": None, "status": None}
SAILED = {
    "shipImo": "IMO-1",
    "departurePort": 'Oslo "A"',
    "arrivalPort": "R",
    "departureDate": "a",
    "arrivalDate": "b",
    "crewIds": ["C-2"],
}
MADE = {
    "voyageId": "V-1",
    "shipImo": "IMO-1",
    "route": {"from": "Oslo", "to": "Rotterdam"},
    "dates": {"departure": "2026-01-01", "arrival": "2026-01-03"},
    "crewIds": ["C-2"],
    "cargoIds": ["G-1"],
    "status": "planned",
}
CREWED = {**FLAT, "yearBuilt": 2015, "tonnage": 42000, "length": 229, "crew": [{"fullName": "Bo", "role": "captain"}]}


async def answer_as_back_end(request: Asked) -> None:
    content = ANSWERS[f"{request.method} {request.path}"]
    await request.answer(200, content if isinstance(content, bytes) else json.dumps(content).encode())


def copy_tutorial(folder: Path, origin: str, step: int) -> Path:
    """Copy the tutorial with the address of the stand-in for that of its public mocks. Return the file of a step."""
    for source in TUTORIAL.rglob("*.y*ml"):
        target = folder / source.relative_to(TUTORIAL)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8").replace(MOCKS, origin), encoding="utf-8")
    (file,) = folder.glob(f"step-{step}-*.yml")
    return file


CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "list-ships": ({"status": "active"}, {"result": [FLAT]}),
    "list-legacy-vessels": ({}, {"result": [LEGACY]}),
    "create-voyage": (SAILED, MADE),
    "get-ship-with-crew": ({"imo": "IMO-1"}, CREWED),
    "get-voyage-manifest": (
        {"voyageId": "V-1"},
        {
            "voyageId": "V-1",
            "status": "planned",
            "route": {"from": "Oslo", "to": "Rotterdam"},
            "ship": {"name": "Northern Star", "type": "cargo", "flag": "NO"},
            "crew": [{"fullName": "Bo", "role": "captain"}],
            "cargo": [{"type": "steel", "description": "Coils", "weight": 12.5, "hazardous": False}],
        },
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(not TUTORIAL.is_dir(), reason=f"the format's tutorial is not at {TUTORIAL}; set ITWIN_MCP_SHARED")
@pytest.mark.parametrize("step", range(1, 12))
async def test_step_of_the_tutorial_answers_correctly(tmp_path: Path, step: int) -> None:
    async with loopback(answer_as_back_end) as backend:
        file = copy_tutorial(tmp_path, backend.origin, step)
        async with connect(capabilities=[file]) as client:
            served = {tool.name for tool in (await client.list_tools()).tools}
            if step == 1:
                answer = await client.call_tool("get-ship", {"imo_number": "IMO-9"})
                assert answer.structured_content == {**FLAT, "imo": "IMO-9"}
                return
            answers = {"get-ship": ({"imo": "IMO-1"}, FLAT | (SPECS if step > 3 else {})), **CALLS}
            asked = answers.keys() & served
            assert {"get-ship", "list-ships"} <= asked
            assert step < 11 or asked == answers.keys()
            for name in sorted(asked):
                arguments, expected = answers[name]
                answer = await client.call_tool(name, arguments)
                assert answer.structured_content == expected, name
    if 2 < step < 11:
        assert {request.headers.get("authorization") for request in backend.requests} <= {"Bearer dummy-token", None}
        assert "Bearer dummy-token" in {request.headers.get("authorization") for request in backend.requests}
        assert "1.0.0-alpha2" in {request.headers.get("registry-version") for request in backend.requests}
    bodies = [json.loads(request.body) for request in backend.requests if request.body]
    assert bodies == ([SAILED] if "create-voyage" in asked else [])
