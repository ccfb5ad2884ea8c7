"""`make audit`: known vulnerabilities of the versions that are installed here of what PyScope declares, by pip-audit.

pip-audit runs from an environment of its own in build/, so that it is no dependency itself. The exit code is 1 if one
is known, 2 if some could not be audited.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120


def declared() -> set[str]:
    """The distributions that pyproject.toml names, in every extra that a user can install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for name in extras if name not in ("dev", "bench") for line in extras[name]),
    ]
    names = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower() for line in lines}
    return names - {"pyscope"}


def main() -> int:
    """Audits, and prints what pip-audit says."""
    tool = ROOT / "build" / "audit"
    python = tool / "bin" / "python"
    if not (tool / "bin" / "pip-audit").exists():
        subprocess.run([sys.executable, "-m", "venv", tool], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "pip-audit"], check=True)
    pins = []
    for name in sorted(declared()):
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name} is not installed here: not audited")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(pins))
        requirements.flush()
        command = [
            tool / "bin" / "pip-audit",
            "--no-deps",
            "--disable-pip",
            "-f",
            "json",
            "-r",
            requirements.name,
        ]
        try:
            done = subprocess.run(
                [*command, "--progress-spinner", "off"], stdout=subprocess.PIPE, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            print(f"the database of vulnerabilities did not answer in {SECONDS} s", file=sys.stderr)
            return 2
    found = json.loads(done.stdout)["dependencies"]
    skipped = [row["name"] for row in found if "skip_reason" in row]
    known = [(row["name"], row["version"], bad["id"]) for row in found for bad in row.get("vulns", ())]
    for name, version, identity in known:
        print(f"{name} {version}: {identity}")
    if skipped:  # pip-audit itself takes these for sound
        print(f"{len(skipped)} of {len(found)} could not be audited: {', '.join(skipped)}", file=sys.stderr)
    print(f"{len(found) - len(skipped)} distributions audited, {len(known)} vulnerabilities known")
    return 1 if known else 2 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
