"""`python -m jaxfit`: its commands, and what it says for a bug report."""

import importlib.metadata
from pathlib import Path

import jax
import pytest

from jaxfit.__main__ import COMMANDS, main


def test_without_a_command_it_lists_all_of_them(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown and what in shown for name, what in COMMANDS.items())


def test_version_prints_the_versions_and_the_devices(capsys):
    assert main(["version"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["jax"] == jax.__version__ and rows["optax"] == importlib.metadata.version("optax")
    assert all(f"{device.platform}:{device.id}" in rows["devices"] for device in jax.devices())


@pytest.mark.parametrize(("words", "shown"), [(["fit"], "'fit'"), (["version", "now"], "got now")])
def test_an_unknown_command_or_argument_is_named(words, shown, capsys):
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2 and shown in capsys.readouterr().err


def test_its_commands_are_those_of_the_modules(capsys):
    folder = Path(__file__).parent.parent / "experiments"
    assert main(["experiments", str(folder), "four_rates", "--list"]) == 0
    assert capsys.readouterr().out.startswith("four_rates: ")
    assert main(["worker", "no_such_module:problem", "store"]) == 1
    assert "no_such_module" in capsys.readouterr().err
