"""Files are written completely or not at all."""

import errno
import os
import threading
from pathlib import Path

import pytest

from itwin_mcp import atomic_files
from itwin_mcp.atomic_files import FileStat, move_into_place, part_of, write_file

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_write_file_sets_exactly_these_permissions(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "file", b"x", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_failed_write_file_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_file(file, b"previous")

    def fail_fsync(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", fail_fsync)
    with pytest.raises(OSError, match="No space"):
        write_file(file, b"new")
    assert file.read_bytes() == b"previous"
    assert list(tmp_path.iterdir()) == [file]


def test_write_file_without_replace_succeeds_for_one_writer(tmp_path: Path) -> None:
    file, refused = tmp_path / "key", []

    def create(content: bytes) -> None:
        try:
            write_file(file, content, replace=False)
        except FileExistsError:
            refused.append(content)

    writers = [threading.Thread(target=create, args=(bytes([number]) * 32,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(refused) == 7
    assert file.read_bytes() not in refused
    assert list(tmp_path.iterdir()) == [file]


def test_move_into_place_replaces_only_the_expected_version(tmp_path: Path) -> None:
    target = tmp_path / "report.csv"
    target.write_text("previous")
    expected = FileStat.of(target)
    target.write_text("changed since")
    with part_of(target) as part:
        part.write_text("new")
        with pytest.raises(FileExistsError):
            move_into_place(part, target, expected)
        with pytest.raises(FileExistsError):
            move_into_place(part, target)
        assert target.read_text() == "changed since"
        move_into_place(part, target, FileStat.of(target))
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
