"""The README's samples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
PYTHON = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
SHOP = "def price(item):\n    return len(item)\n\n\ndef total(items):\n    return sum(map(price, items))\n"


def shop(folder: Path) -> None:
    package = folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "prices.py").write_text(SHOP)
    (package / "serve.py").write_text("from shop.prices import total\n\nprint(total(['pear', 'fig']))\n")


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_python_sample_runs_and_records_what_its_block_calls(tmp_path: Path) -> None:
    assert PYTHON
    shop(tmp_path)
    for number, sample in enumerate(PYTHON):
        body = sample.replace(
            "    ...\n", "    from shop.prices import total\n\n    total(['pear', 'fig'])\n"
        )
        assert body != sample, "the sample records nothing"
        script = tmp_path / f"sample_{number}.py"
        script.write_text(body + "\nprint(sorted(f.qualname for f in trace.functions))\n")
        assert "'price', 'total'" in run(tmp_path, script.name)


def test_the_commands_for_ones_own_service_run(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    shop(tmp_path)
    commands = re.findall(r"^    pyscope (run|report|recover|doctor)(.*?)(?:  +#.*)?$", text, re.M)
    assert [name for name, _ in commands] == ["doctor", "run", "report", "recover"]
    for name, rest in commands:
        words = [word.strip("'") for word in rest.split() if word not in ("--port", "8080")]
        output = run(tmp_path, "-m", "pyscope", name, *words)
        if name == "report":
            assert "shop.prices.total" in output
