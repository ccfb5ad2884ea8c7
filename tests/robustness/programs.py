"""Programs as a user would write them, run in processes of their own, with PyScope recording them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ["frame", "setprofile"] if sys.version_info < (3, 12) else ["monitoring", "frame", "setprofile"]
BACKENDS = [*NATIVE, "python"]


class Programs:
    """Writes programs into a folder and runs them there. Rings lie in `rings`, on tmpfs, and nowhere else."""

    def __init__(self, folder: Path, rings: Path) -> None:
        self.folder = folder
        self.rings = rings

    def write(self, source: str, name: str = "program.py") -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(source))
        return path

    def environment(self, **variables: object) -> dict[str, str]:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYSCOPE_RING_DIR": str(self.rings),
            "PYSCOPE_RING_MB": "4",
            **{name: str(value) for name, value in variables.items()},
        }

    def begin(self, program: Path, *arguments: object, **variables: object) -> subprocess.Popen[str]:
        """Starts a program; its standard output is a pipe."""
        return subprocess.Popen(
            [sys.executable, str(program), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        source: str,
        *arguments: object,
        code: int | None = 0,
        flags: tuple[str, ...] = (),
        **variables: object,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end and checks its exit code (None: any)."""
        done = subprocess.run(
            [sys.executable, *flags, str(self.write(source)), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=100,
        )
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def left_behind(self) -> list[str]:
        """Rings and parts that nobody has cleaned up."""
        return sorted(path.name for path in [*self.rings.glob("*"), *self.folder.glob("*.part")])
