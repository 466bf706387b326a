"""The policy reads a thing to find its iTwin if the path does not name gate."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from itwin_mcp.capability.policy_paths import FILE, read_policy_paths
from itwin_mcp.errors import PolicyRefused
from itwin_mcp.executor.context import Caller
from itwin_mcp.executor.policy.gatekeeper import MAX_THINGS, Gatekeeper
from itwin_mcp.executor.policy.rules import Policy, Rule
from itwin_mcp.executor.policy.thing_locations import SECONDS
from itwin_mcp.upstream.messages import JsonBody, Request, Response

pytestmark = pytest.mark.anyio

OURS, THEIRS = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
FILE_ID, OTHER_FILE = "33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
ANNA, BERT = Caller("anna"), Caller("bert")
PLATFORM = "https://api.bentley.com"
TABLE = """
paths = '''
within GET,PATCH /storage/files/{file}
within POST /storage/moves
'''

[ids]

[names]
"*" = { fileIds = "file" }

[locations.file]
called = "file"
read = "/storage/files/{id}"
accept = "application/vnd.bentley.itwin-platform.v1+json"
permission = "storage_read"
item = "file"
itwin = "iTwinId"
"""


@dataclass
class Platform:
    """A platform with files, and a record of what was read."""

    files: dict[str, dict[str, Any]]
    asked: list[str] = field(default_factory=list)
    platform: str = PLATFORM

    async def send(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path}")
        described = self.files.get(request.path.rpartition("/")[2], {})
        return Response(200, {}, json.dumps({"file": described}).encode())


@dataclass
class LimitedGate:
    platform: Platform
    time: float = 0.0

    def __post_init__(self) -> None:
        rule = Rule({"entry": "policy.yaml:2"}, frozenset({OURS}), create_itwins=False, allow={"all": ""}, deny={})
        self.keeper = Gatekeeper(
            self.platform, {}, Policy("policy.yaml", rule), now=lambda: self.time, paths=read_policy_paths(TABLE)
        )

    async def judge(self, path: str, caller: Caller = ANNA, body: Any = None) -> None:
        method = "GET" if body is None else "POST"
        sent = Request(method, PLATFORM, path, body=None if body is None else JsonBody(body))  # type: ignore[arg-type]
        await self.keeper.gate("get-file", caller).judge(sent)


def limited_gate(**itwins: str | None) -> LimitedGate:
    files = {FILE_ID: {"id": FILE_ID, "iTwinId": OURS}, OTHER_FILE: {"id": OTHER_FILE, "iTwinId": THEIRS}}
    return LimitedGate(Platform(files | {key: {"id": key, "iTwinId": value} for key, value in itwins.items()}))


async def test_judge_reads_the_itwin_of_a_file() -> None:
    gate = limited_gate()
    await gate.judge(f"/storage/files/{FILE_ID}")
    with pytest.raises(PolicyRefused, match=f"the file {OTHER_FILE} is in none of the iTwins") as refused:
        await gate.judge(f"/storage/files/{OTHER_FILE}")
    assert THEIRS not in str(refused.value)
    assert gate.platform.asked == [f"GET /storage/files/{FILE_ID}", f"GET /storage/files/{OTHER_FILE}"]


async def test_judge_finds_files_in_a_body_and_limits_their_number() -> None:
    gate = limited_gate()
    with pytest.raises(PolicyRefused, match=f"the file {OTHER_FILE} is in none"):
        await gate.judge("/storage/moves", body={"fileIds": [FILE_ID, OTHER_FILE]})
    before = len(gate.platform.asked)
    with pytest.raises(PolicyRefused, match=f"looks at {MAX_THINGS} at most"):
        await gate.judge("/storage/moves", body={"fileIds": [f"{index}" for index in range(MAX_THINGS + 1)]})
    assert len(gate.platform.asked) == before


@pytest.mark.parametrize("described", [{"id": FILE_ID}, {"id": FILE_ID, "iTwinId": None}, {"id": OTHER_FILE}, {}])
async def test_judge_refuses_a_file_of_unknown_itwin(described: dict[str, Any]) -> None:
    gate = limited_gate()
    gate.platform.files[FILE_ID] = described
    with pytest.raises(PolicyRefused, match="in which iTwin this file is"):
        await gate.judge(f"/storage/files/{FILE_ID}")


async def test_locations_cache_movable_things_per_caller_for_a_minute() -> None:
    gate = limited_gate()
    for _ in range(2):
        await gate.judge(f"/storage/files/{FILE_ID}")
    assert len(gate.platform.asked) == 1
    await gate.judge(f"/storage/files/{FILE_ID}", BERT)
    assert len(gate.platform.asked) == 2
    gate.time = SECONDS
    gate.platform.files[FILE_ID] = {"id": FILE_ID, "iTwinId": THEIRS}
    with pytest.raises(PolicyRefused):
        await gate.judge(f"/storage/files/{FILE_ID}")


def test_read_policy_paths_rejects_an_unknown_kind() -> None:
    text = FILE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="unknown kind"):
        read_policy_paths(text.replace("within   POST              /imodels/{imodel}/clone", "inside POST /imodels"))
