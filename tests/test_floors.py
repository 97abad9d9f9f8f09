"""Who may import whom: the floors in ``.importlinter`` hold, and every module stands on one."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def test_no_module_imports_from_a_higher_floor():
    done = subprocess.run([sys.executable, "-c", LINT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("package", ["tracker", "densemarks_model"])
def test_every_module_stands_on_one_floor(package):
    config = ConfigParser()
    config.read(ROOT / ".importlinter", encoding="utf-8")
    layers = config["importlinter:contract:floors"]["layers"].split("\n")
    named = [module.strip() for line in layers for module in line.replace("|", ":").split(":") if module.strip()]
    there = [f"{package}.{m.name}" for m in pkgutil.iter_modules([str(ROOT / package)]) if m.name != "__main__"]
    assert sorted(n for n in named if n.startswith(f"{package}.")) == sorted(there)
