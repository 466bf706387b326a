"""The lock file: only public sources, and a small first download of the desktop extension on every system."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parents[2]
MOST_PACKAGES, MOST_BYTES = 40, 20_000_000
PUBLIC = {"pypi.org", "files.pythonhosted.org"}
GLIBC = range(39, 16, -1)
SYSTEMS = {
    "Linux x86-64": ("linux", "x86_64", [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64"]),
    "Linux arm64": (
        "linux",
        "aarch64",
        [*(f"manylinux_2_{minor}_aarch64" for minor in GLIBC), "manylinux2014_aarch64"],
    ),
    "macOS arm64": ("darwin", "arm64", [*mac_platforms((14, 0), "arm64")]),
    "macOS x86-64": ("darwin", "x86_64", [*mac_platforms((14, 0), "x86_64")]),
    "Windows x86-64": ("win32", "AMD64", ["win_amd64"]),
}


@pytest.fixture(scope="module")
def lock() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8")))


def test_lock_names_only_the_public_index() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"[a-z]+://([^/\"]+)", text)) == PUBLIC


def test_lock_matches_the_declared_dependencies(lock: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    made = root(lock)["metadata"]
    assert made["requires-dev"].keys() == {"desktop"} == project["dependency-groups"].keys()
    assert specifiers(made["requires-dev"]["desktop"]) == declared(project["dependency-groups"]["desktop"])
    by_extra: dict[str, list[Any]] = {}
    for one in made["requires-dist"]:
        found = re.search(r"extra == '([\w-]+)'", one.get("marker", ""))
        by_extra.setdefault(found[1] if found else "", []).append(one)
    wanted = {"": project["project"]["dependencies"]} | project["project"]["optional-dependencies"]
    hint = "run `uv lock`"
    assert by_extra.keys() == wanted.keys(), hint
    assert {extra: specifiers(ones) for extra, ones in by_extra.items()} == {
        extra: declared(ones) for extra, ones in wanted.items()
    }, hint


def specifiers(locked: list[dict[str, str]]) -> dict[str, SpecifierSet]:
    return {one["name"]: SpecifierSet(one.get("specifier", "")) for one in locked}


def declared(requirements: list[str]) -> dict[str, SpecifierSet]:
    return {one.name: one.specifier for one in map(Requirement, requirements)}


@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13), (3, 14)])
@pytest.mark.parametrize("system", SYSTEMS)
def test_desktop_dependencies_are_few_small_and_prebuilt(
    lock: dict[str, Any], system: str, python: tuple[int, int]
) -> None:
    ranks = ranks_of(system, python)
    wheels = {package["name"]: wheel(package, ranks) for package in installed(lock, system, python)}
    assert [name for name, chosen in wheels.items() if chosen is None] == []
    assert 20 < len(wheels) <= MOST_PACKAGES
    assert sum(chosen["size"] for chosen in wheels.values() if chosen is not None) <= MOST_BYTES


def root(lock: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in lock["package"] if one["name"] == "itwin-mcp")


def installed(lock: dict[str, Any], system: str, python: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Yield the packages of the group on one system and version of Python."""
    platform, machine, _ = SYSTEMS[system]
    version = f"{python[0]}.{python[1]}"
    environment = {
        "sys_platform": platform,
        "platform_machine": machine,
        "os_name": "nt" if platform == "win32" else "posix",
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    seen: set[tuple[str, str]] = set()
    open_ends = list(root(lock)["dev-dependencies"]["desktop"])
    while open_ends:
        wanted = open_ends.pop()
        if "marker" in wanted and not Marker(wanted["marker"]).evaluate(environment):
            continue
        package = next(
            one
            for one in lock["package"]
            if one["name"] == wanted["name"] and wanted.get("version") in (None, one["version"])
        )
        for extra in ("", *wanted.get("extra", ())):
            if (package["name"], extra) in seen:
                continue
            seen.add((package["name"], extra))
            if extra:
                open_ends += package["optional-dependencies"][extra]
            else:
                open_ends += package.get("dependencies", ())
                yield package


def ranks_of(system: str, python: tuple[int, int]) -> dict[Tag, int]:
    """Return the tags of wheels that a system accepts, with the best at the lowest rank."""
    platforms = SYSTEMS[system][2]
    fitting = [*cpython_tags(python, platforms=platforms)]
    fitting += compatible_tags(python, f"cp{python[0]}{python[1]}", platforms)
    return {tag: rank for rank, tag in reversed(list(enumerate(fitting)))}


def wheel(package: dict[str, Any], ranks: dict[Tag, int]) -> dict[str, Any] | None:
    """Return the wheel that an installer chooses; None if it would have to compile."""
    fitting = [
        (min(ranks[tag] for tag in found), number)
        for number, one in enumerate(package.get("wheels", ()))
        if (found := parse_wheel_filename(one["url"].rpartition("/")[2])[3] & ranks.keys())
    ]
    return dict(package["wheels"][min(fitting)[1]]) if fitting else None
