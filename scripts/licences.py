#!/usr/bin/env python3
"""Prints the licences of what a program is built from: scripts/licences.py SBOM

The SBOM is cargo-cyclonedx's, in JSON. First comes each crate with its licence, as an SPDX expression, then each text
that a crate brings, once, under the names of the crates that have it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NAME = re.compile(r"(licen[cs]e|copying|notice|unlicense)([-._].*)?", re.IGNORECASE)
SOURCE = {".rs", ".c", ".h", ".py", ".pl"}


def main() -> None:
    components = json.loads(Path(sys.argv[1]).read_text())["components"]
    metadata = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"], check=True, capture_output=True, text=True
    )
    packages = {(package["name"], package["version"]): package for package in json.loads(metadata.stdout)["packages"]}
    texts: dict[str, list[str]] = defaultdict(list)
    for component in components:
        package = packages[component["name"], component["version"]]
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or 'see its text'}")
        for text in licence_texts(Path(package["manifest_path"]).parent):
            texts[text].append(name)
    for text, names in texts.items():
        print("\n" + "-" * 100 + "\n" + ", ".join(names) + "\n\n" + text)


def licence_texts(directory: Path) -> list[str]:
    """The texts that a crate brings, those of what it has copied too."""
    files = sorted(path for path in directory.rglob("*") if NAME.fullmatch(path.name) and path.suffix not in SOURCE)
    return list(dict.fromkeys(path.read_text(errors="replace").strip() for path in files if path.is_file()))


if __name__ == "__main__":
    main()
