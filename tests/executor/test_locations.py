"""Things whose path names no iTwin: the policy reads them first, and judges by the iTwin in the answer."""

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
class Fence:
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


def fence(**itwins: str | None) -> Fence:
    files = {FILE_ID: {"id": FILE_ID, "iTwinId": OURS}, OTHER_FILE: {"id": OTHER_FILE, "iTwinId": THEIRS}}
    return Fence(Platform(files | {key: {"id": key, "iTwinId": value} for key, value in itwins.items()}))


async def test_a_fence_judges_a_file_by_the_itwin_that_its_own_page_names() -> None:
    it = fence()
    await it.judge(f"/storage/files/{FILE_ID}")
    with pytest.raises(PolicyRefused, match=f"the file {OTHER_FILE} is in none of the iTwins") as refused:
        await it.judge(f"/storage/files/{OTHER_FILE}")
    assert THEIRS not in str(refused.value)
    assert it.platform.asked == [f"GET /storage/files/{FILE_ID}", f"GET /storage/files/{OTHER_FILE}"]


async def test_a_fence_finds_files_in_a_body_and_refuses_too_many() -> None:
    it = fence()
    with pytest.raises(PolicyRefused, match=f"the file {OTHER_FILE} is in none"):
        await it.judge("/storage/moves", body={"fileIds": [FILE_ID, OTHER_FILE]})
    before = len(it.platform.asked)
    with pytest.raises(PolicyRefused, match=f"looks at {MAX_THINGS} at most"):
        await it.judge("/storage/moves", body={"fileIds": [f"{index}" for index in range(MAX_THINGS + 1)]})
    assert len(it.platform.asked) == before


@pytest.mark.parametrize("described", [{"id": FILE_ID}, {"id": FILE_ID, "iTwinId": None}, {"id": OTHER_FILE}, {}])
async def test_a_fence_refuses_a_file_whose_page_names_no_itwin_of_it(described: dict[str, Any]) -> None:
    it = fence()
    it.platform.files[FILE_ID] = described
    with pytest.raises(PolicyRefused, match="in which iTwin this file is"):
        await it.judge(f"/storage/files/{FILE_ID}")


async def test_the_itwin_of_a_thing_that_may_move_is_remembered_per_caller_for_a_minute() -> None:
    it = fence()
    for _ in range(2):
        await it.judge(f"/storage/files/{FILE_ID}")
    assert len(it.platform.asked) == 1
    await it.judge(f"/storage/files/{FILE_ID}", BERT)
    assert len(it.platform.asked) == 2
    it.time = SECONDS
    it.platform.files[FILE_ID] = {"id": FILE_ID, "iTwinId": THEIRS}
    with pytest.raises(PolicyRefused):
        await it.judge(f"/storage/files/{FILE_ID}")


def test_policy_paths_of_the_package_refuse_an_unknown_kind() -> None:
    text = FILE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="unknown kind"):
        read_policy_paths(text.replace("within   POST              /imodels/{imodel}/clone", "inside POST /imodels"))
