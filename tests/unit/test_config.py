"""pyscope.config: where a setting comes from, and what a bad one says."""

from __future__ import annotations

import os
import textwrap
import types
from pathlib import Path

import pytest

from pyscope.config import Settings, resolve
from pyscope.errors import ConfigError


@pytest.fixture(autouse=True)
def bare_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No PYSCOPE_* variable, and a working directory whose nearest pyproject.toml is an empty one."""
    for name in list(os.environ):
        if name.startswith("PYSCOPE_"):
            monkeypatch.delenv(name)
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_pyproject(folder: Path, body: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(textwrap.dedent(body))
    return file


def refusal(**arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(**arguments)
    return str(caught.value)


class TestLayers:
    def test_without_anything_the_defaults_hold(self) -> None:
        assert resolve() == Settings()
        assert resolve().source("ring_mb") == "default"

    def test_none_means_not_given(self) -> None:
        assert resolve(modules=None, ring_mb=None, disable=None) == Settings()

    def test_arguments_beat_environment_beats_pyproject(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write_pyproject(
            tmp_path,
            """
            [tool.pyscope]
            ring_mb = 1
            detail = "c_calls"
            modules = ["shop.*"]
            """,
        )
        monkeypatch.setenv("PYSCOPE_RING_MB", "2")
        monkeypatch.setenv("PYSCOPE_MODULES", "billing, web.*")
        settings = resolve(ring_mb=3)
        assert settings.ring_mb == 3
        assert settings.modules == ("billing", "web.*")
        assert settings.detail == "c_calls"
        assert settings.source("ring_mb") == "argument ring_mb="
        assert settings.source("modules") == "environment variable PYSCOPE_MODULES"
        assert settings.source("detail") == f"{file} [tool.pyscope]"

    def test_the_nearest_pyproject_upward_is_the_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_pyproject(tmp_path, "[tool.pyscope]\nring_mb = 7\n")
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        assert resolve().ring_mb == 7
        (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'a'\n")
        assert resolve().ring_mb == 64

    def test_paths_in_pyproject_are_relative_to_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_pyproject(tmp_path, "[tool.pyscope]\npath = 'logs/run.pyscope'\n")
        below = tmp_path / "below"
        below.mkdir()
        monkeypatch.chdir(below)
        assert resolve().path == str(tmp_path / "logs" / "run.pyscope")

    @pytest.mark.parametrize(
        ("variable", "value", "name", "expected"),
        [
            ("PYSCOPE_MODULES", "shop.*,billing", "modules", ("shop.*", "billing")),
            ("PYSCOPE_EXCLUDE", "shop.noise", "exclude", ("shop.noise",)),
            ("PYSCOPE_DETAIL", "c_calls", "detail", "c_calls"),
            ("PYSCOPE_MODE", "flight", "mode", "flight"),
            ("PYSCOPE_BACKEND", "frame", "backend", "frame"),
            ("PYSCOPE_RING_MB", "16", "ring_mb", 16),
            ("PYSCOPE_BUDGET", "3%", "budget", 0.03),
            ("PYSCOPE_KEEP", "shop.pay", "keep", ("shop.pay",)),
            ("PYSCOPE_OUTPUT", "x.pyscope", "path", "x.pyscope"),
            ("PYSCOPE_TOKEN", "secret", "token", "secret"),
            ("PYSCOPE_DISABLE", "1", "disable", True),
            ("PYSCOPE_RING_DIR", "/dev/shm", "ring_dir", "/dev/shm"),
            ("PYSCOPE_CHILDREN", "no", "children", False),
        ],
    )
    def test_each_environment_variable_sets_its_setting(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, expected: object
    ) -> None:
        monkeypatch.setenv(variable, value)
        assert getattr(resolve(), name) == expected

    def test_an_empty_variable_counts_as_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYSCOPE_RING_MB", "")
        assert resolve().ring_mb == 64

    def test_a_removed_working_directory_does_no_harm(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert resolve() == Settings()


class TestModules:
    def test_a_module_object_means_itself_and_a_package_all_below_it(self) -> None:
        module = types.ModuleType("billing")
        package = types.ModuleType("shop")
        package.__path__ = []  # type: ignore[attr-defined]
        assert resolve(modules=[module, package, "web.*"]).modules == ("billing", "shop.*", "web.*")

    def test_one_text_is_a_comma_separated_list(self) -> None:
        assert resolve(modules="a.*, b").modules == ("a.*", "b")

    def test_an_empty_list_selects_nothing_rather_than_everything(self) -> None:
        assert resolve(modules=[]).modules == ()

    @pytest.mark.parametrize("bad", [["shop/orders.py"], ["shop..x"], [""], [3], 3, types.ModuleType("m")])
    def test_what_is_no_module_is_refused(self, bad: object) -> None:
        assert "dotted globs" in refusal(modules=bad)


class TestBudget:
    @pytest.mark.parametrize(
        ("given", "fraction"), [("3%", 0.03), ("0.5 %", 0.005), (0.03, 0.03), (".02", 0.02)]
    )
    def test_it_is_a_percentage_or_a_fraction(self, given: object, fraction: float) -> None:
        assert resolve(budget=given).budget == pytest.approx(fraction)

    @pytest.mark.parametrize("bad", ["3", 3, 0, "0%", "100%", -0.1, "three", True, float("nan")])
    def test_anything_else_is_refused(self, bad: object) -> None:
        assert '"3%"' in refusal(budget=bad)


class TestRefusals:
    def test_one_names_setting_value_source_and_what_is_allowed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = refusal(detail="calsl")
        assert "detail = 'calsl'" in text
        assert "argument detail=" in text
        assert "'calls', 'c_calls'" in text
        assert "did you mean 'calls'?" in text

        monkeypatch.setenv("PYSCOPE_RING_MB", "lots")
        assert "ring_mb = 'lots' (environment variable PYSCOPE_RING_MB): must be a whole number" in refusal()
        monkeypatch.delenv("PYSCOPE_RING_MB")

        file = write_pyproject(tmp_path, "[tool.pyscope]\nmode = 3\n")
        assert f"mode = 3 ({file} [tool.pyscope]): must be one of 'stream', 'flight'" in refusal()

    def test_a_bad_value_is_refused_even_where_a_stronger_layer_overrides_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYSCOPE_RING_MB", "0")
        assert "PYSCOPE_RING_MB" in refusal(ring_mb=4)

    def test_an_unknown_key_in_pyproject_suggests_the_right_one(self, tmp_path: Path) -> None:
        write_pyproject(tmp_path, "[tool.pyscope]\nring-mb = 3\n")
        text = refusal()
        assert "unknown key 'ring-mb'; did you mean 'ring_mb'?" in text

    def test_a_pyproject_that_is_no_toml_is_named(self, tmp_path: Path) -> None:
        file = write_pyproject(tmp_path, "[tool.pyscope\n")
        assert str(file) in refusal()

    def test_an_unknown_argument_is_refused(self) -> None:
        assert "did you mean 'modules'?" in refusal(moduls=["x"])

    @pytest.mark.parametrize("bad", [0, -1, 1.5, True, "1.5", "64MB"])
    def test_the_ring_has_at_least_one_mebibyte(self, bad: object) -> None:
        assert "whole number of MiB" in refusal(ring_mb=bad)

    @pytest.mark.parametrize("bad", ["maybe", 2, 0.5])
    def test_a_switch_is_on_or_off(self, bad: object) -> None:
        assert "true or false" in refusal(disable=bad)


class TestJson:
    def test_settings_survive_the_way_to_a_child(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYSCOPE_EXCLUDE", "shop.noise")
        settings = resolve(
            path="run.pyscope", modules=["shop.*"], budget="3%", ring_mb=8, disable=False, token="secret"
        )
        back = Settings.from_json(settings.to_json())
        assert back == settings
        assert back.sources == settings.sources

    def test_defaults_survive_too(self) -> None:
        assert Settings.from_json(Settings().to_json()) == Settings()

    @pytest.mark.parametrize("text", ["", "[]", '{"ring_mb": 0}', '{"colour": 1}'])
    def test_damaged_text_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError):
            Settings.from_json(text)
