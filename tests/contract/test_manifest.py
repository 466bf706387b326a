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


def read_manifest() -> dict[str, Any]:
    return dict(json.loads(MANIFEST.read_text(encoding="utf-8")))


def read_project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def test_manifest_matches_catalog_and_pyproject() -> None:
    manifest, project = read_manifest(), read_project()["project"]
    default = read_catalog(read_settings({"ITWIN_CLIENT_ID": "native-x"}))
    complete = read_catalog(read_settings({"ITWIN_CLIENT_ID": "native-x"}, toolsets="all"))
    optional = [name for name in complete.toolsets if name not in DEFAULT_TOOLSETS]
    served = [name for name in DEFAULT_TOOLSETS if name != SESSION]
    derived = {
        "version": __version__,
        "keywords": project["keywords"],
        "license": project["license"],
        "compatibility": manifest["compatibility"] | {"runtimes": {"python": project["requires-python"]}},
        "tools": [
            {"name": tool.name, "description": tool.description.split(". ")[0].rstrip(".") + "."}
            for tool in default.tools.values()
        ],
        "prompts": [
            {
                "name": prompt.name,
                "description": prompt.description,
                "arguments": [name for name, *_ in prompt.arguments],
                "text": "\n\n".join(re.sub(r"{{ *(.+?) *}}", r"${arguments.\1}", text) for _, text in prompt.messages),
            }
            for prompt in default.prompts.values()
        ],
    }
    expected = {key: derived.get(key, value) for key, value in manifest.items()}
    expected["user_config"]["toolsets"]["description"] = (
        f"Names, separated by commas: {', '.join(served)} (these when empty), {', '.join(optional)}; "
        f"{ALL}; or {DYNAMIC}, few tools that run all."
    )
    text = json.dumps(expected, indent=2, ensure_ascii=False) + "\n"
    if UPDATING:
        MANIFEST.write_text(text, encoding="utf-8")
    assert MANIFEST.read_text(encoding="utf-8") == text, "run UPDATE_SNAPSHOTS=1 pytest tests/contract"


def test_manifest_passes_every_setting_by_the_environment() -> None:
    settings, server = read_manifest()["user_config"], read_manifest()["server"]["mcp_config"]
    passed_settings = re.findall(r"user_config\.(\w+)", " ".join(server["env"].values()))
    assert set(passed_settings) == set(settings)
    assert {name for name in server["env"] if name != "PYTHONPATH"} <= set(ENVIRONMENT)
    assert "user_config" not in json.dumps(server["args"])
    sensitive = {name for name, setting in settings.items() if setting.get("sensitive")}
    assert sensitive == {"access_token", "client_secret"}
    assert not any(setting["required"] for setting in settings.values())


def test_read_settings_ignores_unfilled_manifest_values() -> None:
    environment = read_manifest()["server"]["mcp_config"]["env"]
    defaults = read_settings(environment)
    for unfilled in ("", " ", "null", "undefined"):
        replaced = {name: re.sub(r"\$\{user_config\.\w+\}", unfilled, text) for name, text in environment.items()}
        assert read_settings(replaced) == defaults
    assert defaults.origins == {"bundle": "ITWIN_MCP_BUNDLE"}
    assert read_settings({"ITWIN_PROFILE": "null"}).profile == "null", "outside of the extension, null is a name"


def test_manifest_icon_is_a_png_of_512_by_512() -> None:
    assert read_manifest()["icon"] == ICON.name
    with Image.open(ICON) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (512, 512))


def test_desktop_group_is_the_dependencies_without_pillow() -> None:
    project = read_project()
    expected = [item for item in project["project"]["dependencies"] if not item.startswith("pillow")]
    assert project["dependency-groups"]["desktop"] == expected
