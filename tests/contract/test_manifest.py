"""The manifest of the desktop extension matches the catalog, the project and the settings."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from PIL import Image

from itwin_mcp import __version__
from itwin_mcp.capability.selection import ALL, DEFAULT_TOOLSETS, DYNAMIC, SESSION
from itwin_mcp.runtime import read_catalog
from itwin_mcp.settings import ENVIRONMENT, read_settings
from tests.contract.snapshots import UPDATING

ROOT = Path(__file__).parents[2]
MANIFEST, ICON = ROOT / "manifest.json", ROOT / "icon.png"


def manifest() -> dict[str, Any]:
    return dict(json.loads(MANIFEST.read_text(encoding="utf-8")))


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def test_manifest_matches_catalog_and_pyproject() -> None:
    written, about = manifest(), project()["project"]
    usual = read_catalog(read_settings({"ITWIN_CLIENT_ID": "native-x"}))
    every = read_catalog(read_settings({"ITWIN_CLIENT_ID": "native-x"}, toolsets="all"))
    optional = [name for name in every.toolsets if name not in DEFAULT_TOOLSETS]
    served = [name for name in DEFAULT_TOOLSETS if name != SESSION]
    derived = {
        "version": __version__,
        "keywords": about["keywords"],
        "license": about["license"],
        "compatibility": written["compatibility"] | {"runtimes": {"python": about["requires-python"]}},
        "tools": [
            {"name": tool.name, "description": tool.description.split(". ")[0].rstrip(".") + "."}
            for tool in usual.tools.values()
        ],
        "prompts": [
            {
                "name": prompt.name,
                "description": prompt.description,
                "arguments": [name for name, *_ in prompt.arguments],
                "text": "\n\n".join(re.sub(r"{{ *(.+?) *}}", r"${arguments.\1}", text) for _, text in prompt.messages),
            }
            for prompt in usual.prompts.values()
        ],
    }
    whole = {key: derived.get(key, value) for key, value in written.items()}
    whole["user_config"]["toolsets"]["description"] = (
        f"Names, separated by commas: {', '.join(served)} (these when empty), {', '.join(optional)}; "
        f"{ALL}; or {DYNAMIC}, few tools that run all."
    )
    text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    if UPDATING:
        MANIFEST.write_text(text, encoding="utf-8")
    assert MANIFEST.read_text(encoding="utf-8") == text, "run UPDATE_SNAPSHOTS=1 pytest tests/contract"


def test_manifest_passes_every_setting_by_the_environment() -> None:
    settings, server = manifest()["user_config"], manifest()["server"]["mcp_config"]
    passed = {
        found[1]: name for name, text in server["env"].items() if (found := re.search(r"user_config\.(\w+)", text))
    }
    assert set(passed) == set(settings)
    assert {name for name in server["env"] if name != "PYTHONPATH"} <= set(ENVIRONMENT)
    assert "user_config" not in json.dumps(server["args"])
    assert {name for name, one in settings.items() if one.get("sensitive")} == {"access_token", "client_secret"}
    assert not any(one["required"] for one in settings.values())


def test_read_settings_ignores_unfilled_manifest_values() -> None:
    environment = manifest()["server"]["mcp_config"]["env"]
    untouched = read_settings(environment)
    for emptied in ("", " ", "null", "undefined"):
        filled = {name: re.sub(r"\$\{user_config\.\w+\}", emptied, text) for name, text in environment.items()}
        assert read_settings(filled) == untouched
    assert untouched.origins == {"bundle": "ITWIN_MCP_BUNDLE"}
    assert read_settings({"ITWIN_PROFILE": "null"}).profile == "null", "elsewhere it is a word like any other"


def test_manifest_icon_is_a_png_of_512_by_512() -> None:
    assert manifest()["icon"] == ICON.name
    with Image.open(ICON) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (512, 512))


def test_desktop_group_is_the_dependencies_without_pillow() -> None:
    read = project()
    needed = [one for one in read["project"]["dependencies"] if not one.startswith("pillow")]
    assert read["dependency-groups"]["desktop"] == needed
