"""The README's samples run."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
    assert len(PYTHON) == 2
    shop(tmp_path)
    for number, sample in enumerate(PYTHON):
        work = r"\1from shop.prices import total\n\n\1total(['pear', 'fig'])"
        body = re.sub(r"^( *)\.\.\.$", work, sample, flags=re.M)
        assert body != sample, "the sample records nothing"
        script = tmp_path / f"sample_{number}.py"
        script.write_text(
            body + "\nprint(sorted({f.qualname for f in getattr(trace, 'functions', trace)}))\n"
        )
        assert "'price', 'total'" in run(tmp_path, script.name)


def test_the_test_in_the_readme_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [sample] = re.findall(
        r"^(    from pyscope\.testing.*?)\n\n\S", README.read_text(encoding="utf-8"), re.M | re.S
    )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("from shop.repo import insert as order\n")
    (tmp_path / "shop" / "repo.py").write_text("def insert(row):\n    return row\n")
    (tmp_path / "test_shop.py").write_text("import shop\n" + textwrap.dedent(sample))
    monkeypatch.setenv(
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"
    )  # other plugins of this environment take seconds
    assert "1 passed" in run(tmp_path, "-m", "pytest", "-q", "-p", "pyscope.testing", "test_shop.py")


def test_it_does_not_send_readers_to_another_project_of_that_name() -> None:
    assert not re.search(r'pip install ["\']?pyscope', README.read_text(encoding="utf-8"))


def test_the_commands_for_ones_own_service_run(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    shop(tmp_path)
    commands = re.findall(r"^    pyscope (run|report|export|recover|doctor)(.*?)(?:  +#.*)?$", text, re.M)
    assert [name for name, _ in commands] == ["doctor", "run", "report", "report", "export", "recover"]
    for name, rest in commands:
        words = [word.strip("'") for word in rest.split() if word not in ("--port", "8080")]
        output = run(tmp_path, "-m", "pyscope", name, *words)
        if "--html" in words:
            assert "shop.prices" in (tmp_path / words[-1]).read_text("utf-8")
        elif name == "report":
            assert "shop.prices.total" in output
