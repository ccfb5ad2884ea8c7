"""Every sample of the documents runs: programs in processes of their own, servers as servers, files as their readers
would take them."""

from __future__ import annotations

import configparser
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

import pyscope
from pyscope import cli, config
from tests.docs.samples import ROOT, Block, Section, Terminal, sections

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
# Their samples run elsewhere.
ELSEWHERE = {"taskflow.md": "tests/integration/test_taskflow_docs.py"}
DOCUMENTS = sorted(path for path in DOCS.glob("*.md") if path.name not in ELSEWHERE)
SECTIONS = [section for document in DOCUMENTS for section in sections(document) if section.title]
BEGINNING = sections(DOCS / "integration.md")[0]

# What the last command of a section must have printed, among other things.
PRINTED = {
    "A FastAPI service": ["N+1 queries: Order.items", "shop_watched.totals"],
    "A Django service": ["N+1 queries: Order.items", "__main__.totals"],
    "A Flask service": ["N+1 queries: Order.items", "shop_flask.totals"],
    "A script": ["240", "N+1 queries: Order.items", "totals"],
    "A worker": ["the limit is exceeded; see", "ValueError", "[0, 2, 9]", "3 processes, 3 jobs"],
    "Dumping a running service": ["2 processes", "shop_stuck.waits_for_ever", "open"],
    "After a crash": ["it died", "Recovered", "1k"],
    "Find out what you have": ["shop.price"],
    "C calls": ["sum"],
    "gunicorn": ["3 processes", "2 processes", "N+1 queries: Order.items", "shop_wsgi.totals"],
    "Tests with pytest": ["3 passed", "test_an_order_costs_what_its_items_do"],
}

# Recordings that are written when a server ends, and of how many processes.
AT_THE_END = {"last.pyscope": 3, "uvicorn.pyscope": 3}
# Those whose requests have a route.
OF_REQUESTS = ("run.pyscope", "django.pyscope", "flask.pyscope", "incident.pyscope", "last.pyscope")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module that the samples share, and its database."""
    folder = tmp_path_factory.mktemp("shop")
    terminal = Terminal(folder)
    for block in BEGINNING.blocks:
        run(block, terminal)
    return folder


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_the_samples_of_a_section_run_in_their_order(
    section: Section, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for file in shop.glob("shop.*"):
        shutil.copy(file, tmp_path)
    terminal = Terminal(tmp_path)
    printed = []
    try:
        for block in section.blocks:
            printed.append(run(block, terminal))
    finally:
        terminal.close()
    for expected in PRINTED.get(section.title, []):
        assert expected in "".join(printed)
    for name, processes in AT_THE_END.items():
        if (tmp_path / name).exists():
            assert len(pyscope.load(tmp_path / name).processes) == processes
    for name in OF_REQUESTS:
        if (tmp_path / name).exists():
            assert "/totals" in {scope.route for scope in pyscope.load(tmp_path / name).scopes}
    for recording in tmp_path.glob("*.pyscope"):
        assert pyscope.load(recording).processes[0].state in ("stopped", "recovered"), recording.name
    assert list(tmp_path.glob("*.part")) == []


def run(block: Block, terminal: Terminal) -> str:
    if block.name and (EXAMPLES / block.name).exists():
        assert block.text.split("\n", 1)[1] == (EXAMPLES / block.name).read_text(), (
            f"not docs/examples/{block.name}"
        )
    if block.name:
        file = terminal.folder / block.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
    return READERS[block.language](block, terminal)


def python(block: Block, terminal: Terminal) -> str:
    if block.name:
        compile(block.text, block.name, "exec")
        return ""
    (terminal.folder / "sample.py").write_text(block.text)
    return terminal.type("python sample.py")


def sh(block: Block, terminal: Terminal) -> str:
    lines = block.text.replace("\\\n", " ").splitlines()
    return "".join(terminal.type(line) for line in lines if line and not line.startswith("#"))


def toml(block: Block, terminal: Terminal) -> str:
    if "[tool.pyscope]" in block.text:
        (terminal.folder / "pyproject.toml").write_text(block.text)
        said = terminal.type("pyscope doctor")
        for name in tomllib.loads(block.text)["tool"]["pyscope"]:
            assert name in said
    return block.text


def ini(block: Block, terminal: Terminal) -> str:
    """A unit of systemd, with what systemd itself says of it where it is installed."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.text)
    assert {"Unit", "Service", "Install"} <= set(unit.sections())
    check_settings(line.split("=", 1) for line in re.findall(r"^Environment=(.+)$", block.text, re.M))
    check_command(shlex.split(unit["Service"]["ExecStart"]))
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        # That this machine has not the shop's programs is not the unit's fault.
        there = re.sub(r"^(Exec\w+=-?)\S+", r"\1/bin/true", block.text, flags=re.M)
        (terminal.folder / block.name).write_text(there)
        done = subprocess.run(
            [verify, "verify", "--man=no", str(terminal.folder / block.name)],
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        about = [line for line in done.stderr.splitlines() if block.name in line]
        assert not about, about
    return block.text


def dockerfile(block: Block, terminal: Terminal) -> str:
    lines = block.text.replace("\\\n", " ").splitlines()[1:]
    instructions = dict(line.split(maxsplit=1) for line in lines if line)
    assert set(instructions) <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE", "CMD"}
    assert lines[0].startswith("FROM")
    check_settings(word.split("=", 1) for word in shlex.split(instructions["ENV"]))
    check_command(json.loads(instructions["CMD"]))
    for line in lines:
        if line.startswith("RUN pip install"):
            terminal.type(line.removeprefix("RUN "))
    return block.text


def yaml_file(block: Block, terminal: Terminal) -> str:
    found = yaml.safe_load(block.text)
    if "services" in found:
        [service] = found["services"].values()
        assert service["shm_size"] == "128m"
        assert {volume.split(":")[0] for volume in service["volumes"]} == set(found["volumes"])
    else:
        assert (found["apiVersion"], found["kind"]) == ("apps/v1", "Deployment")
        pod = found["spec"]["template"]
        assert pod["metadata"]["labels"].items() >= found["spec"]["selector"]["matchLabels"].items()
        [container] = pod["spec"]["containers"]
        check_settings((given["name"], given["value"]) for given in container["env"] if "value" in given)
        check_command(container["command"])
        mounted = {volume["name"] for volume in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    return block.text


def check_settings(environment: Iterable[Iterable[str]]) -> None:
    """Raises ConfigError for a PYSCOPE_* that means nothing, or has a value that is not allowed."""
    known = {f"PYSCOPE_{field.name.upper()}": field.name for field in dataclasses.fields(config.Settings)}
    for name, value in environment:
        if name.startswith("PYSCOPE_"):
            config.resolve(**{"path" if name == "PYSCOPE_OUTPUT" else known[name]: value})


def check_command(words: list[str]) -> None:
    """That `pyscope run` takes the options, and what it would start."""
    assert words[0].endswith("pyscope")
    program = cli.main(words[1:])
    assert program is not None
    assert program.arguments[0] == "-m"


def json_text(block: Block, terminal: Terminal) -> str:
    assert json.loads(block.text)
    return ""


def text(block: Block, terminal: Terminal) -> str:
    return ""


READERS = {
    "python": python,
    "sh": sh,
    "toml": toml,
    "ini": ini,
    "dockerfile": dockerfile,
    "yaml": yaml_file,
    "json": json_text,
    "text": text,
}


def test_every_block_says_what_it_is() -> None:
    for document in DOCUMENTS:
        for section in sections(document):
            for block in section.blocks:
                assert block.language in READERS, f"{section}: {block.language or 'no language'}"


def test_a_document_whose_samples_run_elsewhere_is_read_there() -> None:
    for name, test in ELSEWHERE.items():
        assert name in (ROOT / test).read_text()
        assert (DOCS / name).exists()


def test_every_example_stands_in_a_document() -> None:
    shown = {
        block.name for document in DOCUMENTS for section in sections(document) for block in section.blocks
    }
    assert {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file()} <= shown


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
