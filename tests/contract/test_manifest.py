"""The desktop extension's manifest: what can be derived is, and the rest fits what the server reads."""

import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from itwin_mcp import __version__
from itwin_mcp.capability.selection import ALL, DEFAULT_TOOLSETS, DYNAMIC, SESSION
from itwin_mcp.runtime import read_catalog
from itwin_mcp.settings import ENVIRONMENT, read_settings
from tests.contract import icon
from tests.contract.snapshots import UPDATING

ROOT = Path(__file__).parents[2]
MANIFEST, ICON = ROOT / "manifest.json", ROOT / "icon.png"


def manifest() -> dict[str, Any]:
    return dict(json.loads(MANIFEST.read_text(encoding="utf-8")))


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


def test_what_is_said_elsewhere_is_derived_from_there() -> None:
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


def test_every_setting_reaches_the_server_and_the_secret_ones_by_the_environment_alone() -> None:
    settings, server = manifest()["user_config"], manifest()["server"]["mcp_config"]
    passed = {
        found[1]: name for name, text in server["env"].items() if (found := re.search(r"user_config\.(\w+)", text))
    }
    assert set(passed) == set(settings)
    assert {name for name in server["env"] if name != "PYTHONPATH"} <= set(ENVIRONMENT)
    assert "user_config" not in json.dumps(server["args"])
    assert {name for name, one in settings.items() if one.get("sensitive")} == {"access_token", "client_secret"}
    assert not any(one["required"] for one in settings.values())


def test_an_extension_that_nobody_filled_in_is_as_good_as_unset() -> None:
    environment = manifest()["server"]["mcp_config"]["env"]
    untouched = read_settings(environment)
    for emptied in ("", " ", "null", "undefined"):
        filled = {name: re.sub(r"\$\{user_config\.\w+\}", emptied, text) for name, text in environment.items()}
        assert read_settings(filled) == untouched
    assert untouched.origins == {"bundle": "ITWIN_MCP_BUNDLE"}
    assert read_settings({"ITWIN_PROFILE": "null"}).profile == "null", "elsewhere it is a word like any other"


def test_the_icon_is_the_one_that_is_drawn() -> None:
    drawn = icon.draw()
    if UPDATING:
        ICON.write_bytes(drawn)
    # Compared as pictures: how a png is compressed depends on the version of zlib.
    kept, anew = Image.open(ICON), Image.open(io.BytesIO(drawn))
    assert kept.size == anew.size == (512, 512)
    assert ImageChops.difference(kept, anew).getbbox() is None
    assert manifest()["icon"] == ICON.name


def test_the_extension_installs_what_the_package_needs_but_for_pillow() -> None:
    read = project()
    needed = [one for one in read["project"]["dependencies"] if not one.startswith("pillow")]
    assert read["dependency-groups"]["desktop"] == needed
