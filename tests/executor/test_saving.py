"""`save-list` writes whole lists to local files, in flat memory and without spreadsheet formulas."""

# ruff: noqa: ASYNC240 - the files of a test are small

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from itwin_mcp.errors import CallError
from itwin_mcp.executor import paging
from tests.executor.bench import Bench, bench, hang_up, never, saying
from tests.executor.test_paging import Store

pytestmark = pytest.mark.anyio

ODD = [
    {"id": "1", "name": "plain"},
    {"id": "2", "name": 'has "quotes", commas\r\nand lines'},
    {"id": "3", "name": "=1+1"},
    {"id": "4", "name": "+A1"},
    {"id": "5", "name": "-2"},
    {"id": "6", "name": "@SUM(A1)"},
    {"id": "7", "name": "\t=1"},
    {"id": "8", "name": None},
    {"id": "9", "name": "Brücke 桥"},
    {"id": "10", "name": "mid = dle"},
]


def read_rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.reader(text))


async def test_save_list_quotes_csv_texts_and_disarms_formulas(tmp_path: Path) -> None:
    async with bench("things.yaml", saying(200, {"things": ODD}), roots=[tmp_path]) as harness:
        answer = await harness.save("list-things", "odd.csv")
    file = tmp_path / "odd.csv"
    assert answer["saved"] == {"path": str(file), "items": 10, "bytes": file.stat().st_size}
    assert answer["page"] == {"returned": 10, "complete": True, "total": 10}
    content = file.read_bytes()
    assert content.startswith(b'id,name\r\n1,plain\r\n2,"has ""quotes"", commas\r\nand lines"\r\n3,\'=1+1\r\n')
    assert [cells[1] for cells in read_rows(file)[3:]] == [
        "'=1+1", "'+A1", "'-2", "'@SUM(A1)", "'\t=1", "", "Brücke 桥", "mid = dle"
    ]  # fmt: skip


async def test_save_list_flattens_objects_and_writes_lists_as_json(tmp_path: Path) -> None:
    inner = (
        'size: {type: number, mapping: "$.size"}, made: {type: boolean, mapping: "$.made"}, '
        'by: {type: object, mapping: "$.by", properties: {name: {type: string, mapping: "$.name"}}}, '
        'tags: {type: array, mapping: "$.tags", items: {type: string, mapping: "$"}}, '
        'raw: {type: object, mapping: "$.raw", properties: {}}, '
    )
    thing = {"id": "1", "size": -2.5, "made": True, "by": {"name": "=x"}, "tags": ["a", "b"], "raw": {"k": 1}}
    replacing = {"properties: {id: {type: string,": f"properties: {{{inner}id: {{type: string,"}
    handler = saying(200, {"things": [thing, {"id": "2"}]})
    async with bench("things.yaml", handler, replacing=replacing, roots=[tmp_path]) as harness:
        await harness.save("list-things", "deep.CSV")
    assert read_rows(tmp_path / "deep.CSV") == [
        ["size", "made", "by.name", "tags", "raw", "id", "name"],
        ["-2.5", "true", "'=x", '["a","b"]', '{"k":1}', "1", ""],
        ["", "", "", "", "", "2", ""],
    ]


async def test_save_list_writes_json_as_one_array(tmp_path: Path) -> None:
    async with bench("things.yaml", saying(200, {"things": ODD}), roots=[tmp_path]) as harness:
        await harness.save("list-things", str(tmp_path / "odd.json"))
    assert json.loads((tmp_path / "odd.json").read_text(encoding="utf-8")) == ODD
    async with bench("things.yaml", saying(200, {"things": []}), roots=[tmp_path]) as harness:
        empty = await harness.save("list-things", "none.json")
        await harness.save("list-things", "none.csv")
    assert (empty["first"], empty["saved"]["items"]) == ([], 0)
    assert json.loads((tmp_path / "none.json").read_text()) == []
    assert (tmp_path / "none.csv").read_bytes() == b"id,name\r\n"


async def test_save_list_saves_10_000_items_in_flat_memory(tmp_path: Path) -> None:
    async def peak(total: int, name: str) -> int:
        store = Store(total, padding="x" * 500)
        async with bench("things.yaml", store, roots=[tmp_path]) as harness:
            await harness.call("list-things", limit=1)
            tracemalloc.start()
            answer = await harness.save("list-things", name)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert answer["saved"]["items"] == total
            assert answer["page"] == {"returned": total, "complete": True, "total": total}
            assert [item["id"] for item in answer["first"]] == ["t0", "t1", "t2"]
            assert len(harness.asked) == 1 + 1 + total // 1000  # the first list is counted, too
            assert harness.listener.told[-1][0] == total - 1_000
        return most

    small, large = await peak(3_000, "small.csv"), await peak(10_000, "large.csv")
    assert large < small * 1.3, f"{small} bytes for 3,000 items, {large} for 10,000"
    assert [cells[0] for cells in read_rows(tmp_path / "large.csv")[1:]] == [f"t{n}" for n in range(10_000)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.csv", "small.csv"]


async def test_save_list_keeps_earlier_items_if_a_page_fails(tmp_path: Path) -> None:
    store = Store(5_000)
    store.broken[3_000] = hang_up
    async with bench("things.yaml", store, roots=[tmp_path]) as harness:
        answer = await harness.save("list-things", "part.json")
    assert answer["saved"]["items"] == 3_000
    assert answer["page"]["complete"] is False
    assert "the next page failed" in answer["page"]["stoppedBecause"]
    assert answer["page"]["error"]["code"]
    assert "cursor" not in str(answer["page"])
    assert len(json.loads((tmp_path / "part.json").read_text())) == 3_000


async def test_save_list_beyond_max_saved_is_not_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_SAVED", 2_500)
    async with bench("things.yaml", Store(5_000), roots=[tmp_path]) as harness:
        answer = await harness.save("list-things", "bound.csv")
    assert answer["saved"]["items"] == 2_500
    assert answer["page"]["complete"] is False
    assert "at most 2500 items are saved" in answer["page"]["stoppedBecause"]
    assert "total" not in answer["page"]


async def catch_refusal(harness: Bench, path: str, **arguments: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await harness.save("list-things", path, **arguments)
    return caught.value


async def test_save_list_rejects_existing_and_outside_files_before_any_request(tmp_path: Path) -> None:
    root = tmp_path / "allowed"
    root.mkdir()
    (root / "there.csv").write_text("mine")
    async with bench("things.yaml", never, roots=[root]) as harness:
        assert "exists already" in str(await catch_refusal(harness, "there.csv"))
        assert "exists already" in str(await catch_refusal(harness, "there"))
        assert "lies outside" in str(await catch_refusal(harness, str(tmp_path / "out.csv")))
        assert "without cursor" in str(await catch_refusal(harness, "a.csv", cursor="c"))
    assert (root / "there.csv").read_text() == "mine"
    async with bench("things.yaml", never) as harness:
        assert "--files-root" in (await catch_refusal(harness, "a.csv")).hint


async def test_save_list_takes_the_format_from_the_file_extension(tmp_path: Path) -> None:
    async with bench("things.yaml", saying(200, {"things": ODD}), roots=[tmp_path]) as harness:
        assert (await harness.save("list-things", "start.sh"))["saved"]["path"] == str(tmp_path / "start.sh.csv")
        assert (await harness.save("list-things", "list.JSON"))["saved"]["path"] == str(tmp_path / "list.JSON")


async def test_save_list_saves_at_most_limit_items(tmp_path: Path) -> None:
    async with bench("things.yaml", Store(5_000), roots=[tmp_path]) as harness:
        answer = await harness.save("list-things", "some.csv", limit=7)
    assert answer["saved"]["items"] == 7
    assert answer["page"]["stoppedBecause"] == "at most 7 items are saved: raise limit"


async def test_save_list_that_fails_leaves_no_file(tmp_path: Path) -> None:
    async with bench(
        "things.yaml", saying(403, {"error": {"code": "No", "message": "No."}}), roots=[tmp_path]
    ) as harness:
        await catch_refusal(harness, "a.csv")
    assert list(tmp_path.iterdir()) == []
