#!/usr/bin/env python3
"""Check .glb files with Khronos's glTF validator.

Usage:  python tools/validate_gltf.py FILE.glb [FILE.glb ...]

It needs Node.js and the npm package ``gltf-validator``, installed anywhere outside the repository:

    npm install --prefix ~/gltf gltf-validator
    export GLTF_VALIDATOR=~/gltf/node_modules/gltf-validator

Without the variable, the package is looked for where Node.js looks for global packages. Exit code 0 means no errors and
no warnings in any file, 1 that there were some, 2 that the validator is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPT = """
const [packagePath, file] = process.argv.slice(1);
const bytes = new Uint8Array(require("fs").readFileSync(file));
require(packagePath).validateBytes(bytes, {maxIssues: 100}).then(
    report => console.log(JSON.stringify(report)),
    error => { console.error(String(error)); process.exit(1); });
"""
_SEVERITIES = ("error", "warning", "information", "hint")


def find_validator() -> tuple[str, Path] | str:
    """Node.js and the validator's folder, or a sentence that says what is missing."""
    node = shutil.which("node")
    if node is None:
        return "Node.js is not installed (no `node` on the PATH)"
    named = os.environ.get("GLTF_VALIDATOR")
    if named:
        folder = Path(named).expanduser().resolve()
        return (
            (node, folder) if (folder / "package.json").is_file() else f"GLTF_VALIDATOR={named} is not an npm package"
        )
    npm = shutil.which("npm")
    if npm is not None:
        root = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False).stdout.strip()
        folder = Path(root) / "gltf-validator"
        if root and (folder / "package.json").is_file():
            return node, folder
    return (
        "the npm package gltf-validator is not installed; set GLTF_VALIDATOR to its folder (see tools/validate_gltf.py)"
    )


def validate(path: Path, validator: tuple[str, Path]) -> dict[str, Any]:
    """The validator's report on one file, as it prints it.

    Raises:
        RuntimeError: the validator could not read the file.
    """
    node, folder = validator
    done = subprocess.run([node, "-e", _SCRIPT, str(folder), str(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{path}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    files = parser.parse_args().files
    validator = find_validator()
    if isinstance(validator, str):
        print(validator, file=sys.stderr)
        return 2
    faults = 0
    for path in files:
        issues = validate(path, validator)["issues"]
        faults += issues["numErrors"] + issues["numWarnings"]
        print(f"{path}: {issues['numErrors']} errors, {issues['numWarnings']} warnings, {issues['numInfos']} notes")
        for message in issues["messages"]:
            where = message.get("pointer", message.get("offset", ""))
            print(f"  {_SEVERITIES[message['severity']]}: {message['code']} {where}: {message['message']}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
