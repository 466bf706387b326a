"""The lock file has only public sources, and few and small packages for the desktop extension on every system."""

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
MAX_PACKAGES, MAX_BYTES = 40, 20_000_000
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
    metadata = find_own_package(lock)["metadata"]
    assert metadata["requires-dev"].keys() == {"desktop"} == project["dependency-groups"].keys()
    desktop = project["dependency-groups"]["desktop"]
    assert read_locked(metadata["requires-dev"]["desktop"]) == read_declared(desktop)
    locked_by_extra: dict[str, list[Any]] = {}
    for dependency in metadata["requires-dist"]:
        extra = re.search(r"extra == '([\w-]+)'", dependency.get("marker", ""))
        locked_by_extra.setdefault(extra[1] if extra else "", []).append(dependency)
    declared_by_extra = {"": project["project"]["dependencies"]} | project["project"]["optional-dependencies"]
    assert {extra: read_locked(dependencies) for extra, dependencies in locked_by_extra.items()} == {
        extra: read_declared(requirements) for extra, requirements in declared_by_extra.items()
    }, "run `uv lock`"


def read_locked(dependencies: list[dict[str, str]]) -> dict[str, SpecifierSet]:
    return {dependency["name"]: SpecifierSet(dependency.get("specifier", "")) for dependency in dependencies}


def read_declared(requirements: list[str]) -> dict[str, SpecifierSet]:
    return {requirement.name: requirement.specifier for requirement in map(Requirement, requirements)}


@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13), (3, 14)])
@pytest.mark.parametrize("system", SYSTEMS)
def test_desktop_dependencies_are_few_small_and_prebuilt(
    lock: dict[str, Any], system: str, python: tuple[int, int]
) -> None:
    ranks = rank_tags(system, python)
    packages = list_desktop_packages(lock, system, python)
    wheels = {package["name"]: choose_wheel(package, ranks) for package in packages}
    assert [name for name, wheel in wheels.items() if wheel is None] == []
    assert 20 < len(wheels) <= MAX_PACKAGES
    assert sum(wheel["size"] for wheel in wheels.values() if wheel is not None) <= MAX_BYTES


def find_own_package(lock: dict[str, Any]) -> dict[str, Any]:
    return next(package for package in lock["package"] if package["name"] == "itwin-mcp")


def list_desktop_packages(lock: dict[str, Any], system: str, python: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Yield the packages that the desktop extension installs on a system with a version of Python."""
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
    pending = list(find_own_package(lock)["dev-dependencies"]["desktop"])
    while pending:
        dependency = pending.pop()
        if "marker" in dependency and not Marker(dependency["marker"]).evaluate(environment):
            continue
        package = next(
            package
            for package in lock["package"]
            if package["name"] == dependency["name"] and dependency.get("version") in (None, package["version"])
        )
        for extra in ("", *dependency.get("extra", ())):
            if (package["name"], extra) in seen:
                continue
            seen.add((package["name"], extra))
            if extra:
                pending += package["optional-dependencies"][extra]
            else:
                pending += package.get("dependencies", ())
                yield package


def rank_tags(system: str, python: tuple[int, int]) -> dict[Tag, int]:
    """Return the wheel tags that a system accepts with their ranks. The best tag has the lowest rank."""
    platforms = SYSTEMS[system][2]
    tags = [*cpython_tags(python, platforms=platforms)]
    tags += compatible_tags(python, f"cp{python[0]}{python[1]}", platforms)
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def choose_wheel(package: dict[str, Any], ranks: dict[Tag, int]) -> dict[str, Any] | None:
    """Return the wheel that an installer chooses, or None if it would have to compile the package."""
    candidates = []
    for number, wheel in enumerate(package.get("wheels", ())):
        tags = parse_wheel_filename(wheel["url"].rpartition("/")[2])[3] & ranks.keys()
        if tags:
            candidates.append((min(ranks[tag] for tag in tags), number))
    return dict(package["wheels"][min(candidates)[1]]) if candidates else None
