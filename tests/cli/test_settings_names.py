"""What is wrong is called as the person typed it: a flag, a key of a file, a field of Python."""

import io
import re
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest
import yaml

from fastsim.cli import COMMANDS, command_of, main, parse
from fastsim.cli.data import CheckCommand, FactsCommand
from fastsim.cli.flags import flags_of
from fastsim.cli.train import AblateCommand, EvaluateCommand, TrainCommand
from fastsim.config import from_mapping, to_mapping
from fastsim.errors import ConfigError
from fastsim.experiment.config import TrainConfig
from fastsim.settings import as_keys, places_of

PLACES = places_of(TrainConfig)


def settings_of(cls, path: str = ""):
    """Every setting of a class and of those in it: class, name, dotted path and annotation."""
    hints = get_type_hints(cls)
    for entry in fields(cls):
        hint = hints[entry.name]
        yield cls, entry.name, f"{path}{entry.name}", hint
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner):
                yield from settings_of(inner, f"{path}{entry.name}.")


SETTINGS = list(settings_of(TrainConfig))
LEAVES = [each for each in SETTINGS if not is_dataclass(each[3])]
NUMBERS = [
    each
    for each in LEAVES
    if {int, float} & {each[3], *get_args(each[3])}
    and get_origin(each[3]) in (None, Union, UnionType)
]


def dashed(path: str) -> str:
    return f"--{path.replace('_', '-')}"


@pytest.fixture(scope="module")
def flags() -> set[str]:
    told = io.StringIO()
    with redirect_stdout(told), pytest.raises(SystemExit):
        parse(["train", "--help"])
    return set(re.findall(r"--[\w.-]+", told.getvalue()))


def test_every_class_stands_in_one_place():
    owners: dict[str, set[str]] = {}
    for cls, _, path, _ in SETTINGS:
        owners.setdefault(cls.__name__, set()).add(path.rpartition(".")[0])
    assert {name: places for name, places in owners.items() if len(places) > 1} == {}
    assert len(owners) > 15


@pytest.mark.parametrize("command", [TrainCommand, AblateCommand])
@pytest.mark.parametrize(("cls", "name", "path", "hint"), LEAVES, ids=[each[2] for each in LEAVES])
def test_a_field_is_a_flag_that_the_command_has(cls, name, path, hint, command, flags):
    told = flags_of(command)(f"{cls.__name__}.{name} must be other, got 1")
    assert told == f"{dashed(path)} must be other, got 1"
    assert dashed(path) in flags


@pytest.mark.parametrize(("cls", "name", "path", "hint"), SETTINGS, ids=[s[2] for s in SETTINGS])
def test_a_field_is_a_key_of_the_file(cls, name, path, hint):
    told = as_keys(f"{cls.__name__}.{name} must be other", TrainConfig)
    assert told == f"{path} must be other"
    inner = to_mapping(TrainConfig())
    for part in path.split("."):
        assert part in inner
        inner = inner[part]


@pytest.mark.parametrize(("cls", "name", "path", "hint"), NUMBERS, ids=[n[2] for n in NUMBERS])
def test_a_number_out_of_all_ranges_is_called_so_by_every_front(
    cls, name, path, hint, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    whole = int in {hint, *get_args(hint)}
    value = "nan" if not whole else "2.5"
    with pytest.raises(SystemExit) as end:
        main(["train", dashed(path), value])
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.count("\n") == 1
    assert told.startswith(f"fastsim: {dashed(path)}")
    assert not re.search(r"[A-Z]\w+Config|dummy", told)
    content: object = float("nan") if not whole else 2.5
    for part in reversed(path.split(".")):
        content = {part: content}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit):
        main(["train", "--config", "mine.yaml"])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"fastsim: mine.yaml: {path}")
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.|^TrainConfig\.") as caught:
        from_mapping(TrainConfig, content)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message", "told"),
    [
        (
            TrainCommand,
            "set gaps='halt' in CheckConfig (repair=True in DataConfig)",
            "set --data.repair",
        ),
        (CheckCommand, "set repair=True in DataConfig", "set --data.repair"),
        (FactsCommand, "set repair=True in DataConfig", "set --data.repair"),
        (EvaluateCommand, "EnvConfig.players = 2 is wrong", "env.players: 2 is wrong"),
        (
            TrainCommand,
            "EnvConfig.max_gross = 2.0 needs action=\"signed\", got action='logits'",
            "--env.max-gross 2.0 needs --env.action signed, got --env.action logits",
        ),
        (
            TrainCommand,
            'EpisodeConfig.staggered = False or True; use EnvConfig.autoreset = "next_step"',
            "--env.episode.no-staggered or True; use --env.autoreset next_step",
        ),
        (TrainCommand, "DataConfig: start must be a date", "--data.start must be a date"),
        (TrainCommand, "TrainConfig.ppo.clip must be", "--ppo.clip must be"),
        (TrainCommand, "PPOConfig.rate = -1e-05 is low", "PPOConfig.rate = -1e-05 is low"),
        (TrainCommand, "PPOConfig.clip = -1e-05 is low", "--ppo.clip -1e-05 is low"),
        (TrainCommand, "AAPL: BRK.B is no symbol; a=3", "AAPL: BRK.B is no symbol; a=3"),
        (AblateCommand, "AblateCommand.seeds must be", "--seeds must be"),
    ],
)
def test_remedies_are_what_can_be_typed(command, message, told):
    assert flags_of(command)(message) == told


def test_an_unknown_key_is_looked_for_where_it_was_written():
    assert as_keys("EnvConfig has no field 'x'", TrainConfig) == "env has no key 'x'"
    assert as_keys("PolicySpec has no field 'x'", TrainConfig) == "PolicySpec has no field 'x'"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_those_of_the_command_line(words):
    with redirect_stdout(io.StringIO()) as told, pytest.raises(SystemExit, match=r"^0$"):
        parse([*words, "--help"])
    assert command_of(words).__doc__.splitlines()[0].split(",")[0] in " ".join(
        told.getvalue().replace("│", " ").split()
    )


def test_a_repair_that_an_error_advises_can_be_typed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"2020-01-{day:02d},KO,{close}" for day, close in enumerate([10, "", 12, 11, 12], 1)]
    text = "\n".join(["timestamp,symbol,close", *rows, ""])
    (tmp_path / "gap.csv").write_text(text.replace(",,", ",KO,"))
    for arguments in (
        ["data", "check", "gap.csv"],
        ["data", "facts", "gap.csv"],
        ["forecast", "show", "KO", "--source", "gap.csv"],
        ["train", "--data.source", "gap.csv"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        told = capsys.readouterr().err
        assert "--data.repair" in told or "--repair" in told
        assert "CheckConfig" not in told
    main(["data", "check", "gap.csv", "--data.repair"])
    assert "gaps" in capsys.readouterr().out
