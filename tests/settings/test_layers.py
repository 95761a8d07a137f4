"""Which place wins, at the level of the sources: the command line, the environment, the config file, the default."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from ews_sync.settings.config_file import Tree
from ews_sync.settings.demo import DemoKeys
from ews_sync.settings.environment import Given, read_overrides
from ews_sync.settings.keys import ConfigKeys, read_keys
from ews_sync.settings.layers import Layered
from ews_sync.settings.option_keys import OptionKeys, SharedKeys, read_options
from ews_sync.settings.options import BIND, DEMO_ONLY, DEMO_SHARED, OPTIONS, OVERRIDES, SHARD_NAME, Option
from ews_sync.settings.problems import Problems
from ews_sync.settings.values import Bind

if TYPE_CHECKING:
    from pathlib import Path

PLACES = ("command_line", "environment", "config_file")


class Sample(Layered):
    key: str = "default"
    other: str = "default"


@pytest.mark.parametrize("places", [some for size in range(4) for some in itertools.combinations(PLACES, size)])
def test_the_strongest_place_wins(places: tuple[str, ...]) -> None:
    layers: dict[str, Any] = {place: {"key": place} for place in places}
    found = Sample.from_layers(**layers)
    assert (found.key, found.other) == (next(iter(places), "default"), "default")
    assert found.model_fields_set == ({"key"} if places else set())


def test_every_place_counts_for_what_the_stronger_ones_leave_out() -> None:
    found = Sample.from_layers(command_line={"key": "typed"}, config_file={"key": "file", "other": "file"})
    assert (found.key, found.other) == ("typed", "file")


@pytest.mark.parametrize("model", [ConfigKeys, OptionKeys, DemoKeys])
def test_settings_are_pydantic_settings(model: type[Layered]) -> None:
    assert issubclass(model, BaseSettings)


def test_the_environment_of_the_process_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("key", "exported")
    monkeypatch.setenv("KEY", "exported")
    assert Sample.from_layers().key == "default"


def test_a_value_that_does_not_count_is_not_checked() -> None:
    assert ConfigKeys.from_layers(environment={"port": "81"}, config_file={"port": ["wrong"]}).port == 81
    with pytest.raises(ValidationError):
        ConfigKeys.from_layers(environment={"port": "wrong"}, config_file={"port": 81})


@pytest.mark.parametrize("key", ["_env_file", "_build_sources", "command_line", "config_file", "self", "Port"])
def test_no_key_of_the_file_reaches_the_library(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ConfigKeys.from_layers(config_file={key: "x"})
    assert [(detail["type"], detail["loc"]) for detail in caught.value.errors()] == [("extra_forbidden", (key,))]


@pytest.mark.parametrize("arguments", [{}, {"bind": "typed:1"}])
@pytest.mark.parametrize("environ", [{}, {"REINFER_EWS_BIND": "exported:1"}, {"REINFER_EWS_BIND": " "}])
def test_the_name_in_problem_lines_is_of_the_place_that_won(arguments: dict[str, str], environ: dict[str, str]) -> None:
    keys, given = read_options(OptionKeys, OPTIONS, arguments, environ, Problems())
    bind = {"--bind": Bind("typed", 1), "REINFER_EWS_BIND": Bind("exported", 1)}
    assert keys.bind == (bind[given[BIND].label] if BIND in given else Bind())


def test_a_wrong_option_is_kept_from_the_rest() -> None:
    problems = Problems()
    arguments = {"shard_name": "none", "total_shards": "3"}
    keys, given = read_options(OptionKeys, OPTIONS, arguments, {"REINFER_EWS_SHARD_NAME": "ews-1"}, problems)
    assert (keys.shard_name, keys.total_shards) == (None, 3)
    assert given[SHARD_NAME] == Given("none", "--shard-name")
    assert "--shard-name" in problems


@pytest.mark.parametrize(("model", "options"), [(OptionKeys, OPTIONS), (DemoKeys, (*DEMO_ONLY, *DEMO_SHARED))])
def test_every_option_has_a_field(model: type[SharedKeys], options: tuple[Option, ...]) -> None:
    assert model.model_fields.keys() == {option.name for option in options}


def test_every_override_has_a_key() -> None:
    assert {variable.key for variable in OVERRIDES} < ConfigKeys.model_fields.keys()


def test_a_secret_that_cannot_be_read_is_not_replaced_by_the_file(tmp_path: Path) -> None:
    problems = Problems()
    tree = Tree({"auth_user": "filed", "auth_password": "filed"}, "the given config", problems)
    missing = str(tmp_path / "none")
    read_overrides(tree, {"REINFER_EWS_AUTH_USER": "exported", "REINFER_EWS_AUTH_PASS_FILE": missing}, problems)
    keys = read_keys(tree)
    assert (keys.auth_user, keys.auth_password) == ("exported", None)
    assert "REINFER_EWS_AUTH_PASS_FILE" in problems
