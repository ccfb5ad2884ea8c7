"""`make audit`: known vulnerabilities of the versions that are installed here of what PyScope declares, by pip-audit.

pip-audit runs from an environment of its own in build/, so that it is no dependency itself. Where its database cannot
be reached, `AUDIT_ARGS="--database FOLDER"` reads a clone of https://github.com/pypa/advisory-database instead. The
exit code is 1 if one is known, 2 if some could not be audited.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def installed() -> dict[str, str]:
    """Their versions, of those that are there."""
    found = {}
    for name in sorted(declared()):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name} is not installed here: not audited")
    return found


def by_pip_audit(versions: dict[str, str]) -> list[dict[str, Any]] | None:
    """What pip-audit says of each distribution; None where its database does not answer."""
    tool = ROOT / "build" / "audit"
    if not (tool / "bin" / "pip-audit").exists():
        subprocess.run([sys.executable, "-m", "venv", tool], check=True)
        subprocess.run([tool / "bin" / "python", "-m", "pip", "install", "-q", "pip-audit"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(f"{name}=={version}" for name, version in versions.items()))
        requirements.flush()
        command = [
            tool / "bin" / "pip-audit", "--no-deps", "--disable-pip", "-f", "json", "-r", requirements.name,
            "--progress-spinner", "off",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return None
    found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return found


def by_database(versions: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    """The same from the advisories in a folder."""
    return [
        {
            "name": name,
            "version": version,
            "vulns": [{"id": identity} for identity in affecting(folder, name, version)],
        }
        for name, version in versions.items()
    ]


def affecting(folder: Path, name: str, version: str) -> Iterator[str]:
    """The advisories (OSV, https://ossf.github.io/osv-schema) that a version falls under."""
    import yaml
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    for path in sorted((folder / "vulns" / canonicalize_name(name)).glob("*.yaml")):
        advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
        for affected in () if "withdrawn" in advisory else advisory.get("affected", ()):
            hit = version in map(str, affected.get("versions", ()))
            for scope in affected.get("ranges", ()):
                inside = False
                for event in scope["events"] if scope["type"] == "ECOSYSTEM" else ():
                    [(kind, at)] = event.items()
                    reached = str(at) == "0" or Version(version) >= Version(str(at))
                    if kind == "introduced":
                        inside = inside or reached
                    elif kind == "fixed":
                        inside = inside and not reached
                    elif kind == "last_affected":
                        inside = inside and Version(version) <= Version(str(at))
                hit = hit or inside
            if hit:
                yield advisory["id"]
                break


def main() -> int:
    """Audits, and prints what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", type=Path, metavar="FOLDER", help="a clone of pypa/advisory-database")
    options = parser.parse_args()
    versions = installed()
    if options.database is not None:
        if not (options.database / "vulns").is_dir():
            parser.error(f"{options.database} is no clone of pypa/advisory-database: it has no folder vulns")
        found: list[dict[str, Any]] | None = by_database(versions, options.database)
    else:
        found = by_pip_audit(versions)
    if found is None:
        print(
            f"the database of vulnerabilities did not answer in {SECONDS} s: clone "
            'https://github.com/pypa/advisory-database and run make audit AUDIT_ARGS="--database FOLDER"',
            file=sys.stderr,
        )
        return 2
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
