"""Where weights come from: paths, revisions, the hub's cache, and what is told without them."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import test_kronos
import test_tirex
import test_tirex2
import test_toto
import test_toto2
import torch
import yaml
from forecasters import random_context
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from safetensors.torch import load_file, save_file

from fastsim.cli import main
from fastsim.errors import ConfigError, ForecastError
from fastsim.experiment.config import TrainConfig
from fastsim.forecast import hub, naming
from fastsim.forecast.features import ForecastConfig
from fastsim.forecast.hub import HELD, HubFile, held_revision
from fastsim.forecast.models import prior, tirex, tirex2, toto
from fastsim.forecast.models import tirex_official as official
from fastsim.forecast.registry import load_ensemble, load_forecaster, load_network
from fastsim.forecast.weights import find_first

COMMIT = "a" * 40
CONTEXT = random_context(3, length=200)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no way to the hub itself."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return folder


@pytest.fixture(scope="module")
def small_tirex(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    model = tirex.TiRexModel.random(test_tirex.SMALL, seed=1)
    test_tirex.save_checkpoint(model, folder / "model.ckpt")
    return folder


@pytest.fixture
def any_tirex(monkeypatch, small_tirex) -> Path:
    """A small checkpoint that the loaders take for one of the official size."""
    count = tirex.read_checkpoint(small_tirex / "model.ckpt").card.parameters
    for module in (tirex, official):
        monkeypatch.setattr(module, "CARD", replace(tirex.CARD, parameters=count))
    return small_tirex


def put(cache: Path, hub_id: str, commit: str, files: Path, *, ref: str | None = "main") -> None:
    """Lay files out as the hub's own client caches them."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in files.iterdir():
        shutil.copy(file, snapshot / file.name)
    if ref is not None:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(commit)


def test_a_path_or_a_revision_may_stand_in_the_name(any_tirex, cache):
    by_path = load_forecaster(f"tirex:{any_tirex}")
    assert by_path.key == load_forecaster("tirex", path=any_tirex).key
    assert by_path.key == load_forecaster(f"tirex:{any_tirex / 'model.ckpt'}").key
    put(cache, "NX-AI/TiRex", COMMIT, any_tirex)
    by_revision = load_forecaster(f"tirex@{COMMIT}")
    assert COMMIT in by_revision.key
    wanted = by_path.forecast(CONTEXT, 5).quantiles
    assert torch.equal(by_revision.forecast(CONTEXT, 5).quantiles, wanted)
    assert load_network(f"tirex:{any_tirex}").card.max_context == 256


def test_a_path_may_be_named_wherever_a_forecaster_is(any_tirex, capsys, tmp_path):
    name = f"tirex:{any_tirex}"
    assert TrainConfig(forecaster=f"{name},fastsim-prior").forecaster.startswith(name)
    members = load_ensemble([name, "fastsim-prior"]).members
    assert members[0].key == load_forecaster(name).key
    main(["forecast", "show", "AAPL", "--forecaster", name, "--horizon", "3"])
    assert "AAPL from" in capsys.readouterr().out
    few = ["--source", "tech4", "--step", "900", "--horizons", "1", "--context", "100"]
    main(["forecast", "evaluate", *few, "--forecaster", name])
    assert "tirex" in capsys.readouterr().out
    out = tmp_path / "tirex.pt"
    settings = ["--context", "64", "--horizon", "4", "--precision", "float32"]
    main(["export", name, "--out", str(out), *settings])
    assert load_forecaster(str(out)).card.name == "tirex"


def test_the_official_package_forecasts_what_ours_does(any_tirex):
    name = f"tirex:{any_tirex}"
    ours, theirs = load_forecaster(name), load_forecaster(name, implementation="official")
    context = random_context(4, length=200)
    context.bars[1, :90] = torch.nan
    context.bars[2, 60:75] = torch.nan
    expected = ours.forecast(context, 64).quantiles
    found = theirs.forecast(context, 64).quantiles
    deviation = context.close[0].std()
    assert float((found - expected).abs().max() / deviation) < 1e-4
    assert "tirex-ts" in theirs.identity.implementation
    assert ours.key != theirs.key
    alone = type(context)(context.bars[1:2], context.timestamps[1:2])
    row = theirs.forecast(alone, 64).quantiles[0]
    assert float((row - found[1]).abs().max() / deviation) < 1e-4
    both = load_ensemble([name, "fastsim-prior"], implementation="official")
    assert both.members[0].key == theirs.key
    assert ForecastConfig(implementation="official").implementation == "official"


def test_the_official_package_runs_from_the_command_line(any_tirex, capsys):
    flags = ["--forecaster", f"tirex:{any_tirex}", "--horizon", "2", "--implementation", "official"]
    main(["forecast", "show", "AAPL", *flags])
    assert "AAPL from" in capsys.readouterr().out


def test_what_only_our_code_runs_has_no_official_implementation():
    told = "official implementation of fastsim-prior, only of tirex, tirex2, fracast: leave it out"
    with pytest.raises(ConfigError, match=told):
        load_forecaster("fastsim-prior", implementation="official")
    with pytest.raises(ConfigError, match="no official implementation of fastsim-prior, theta"):
        load_ensemble(["fastsim-prior", "theta"], implementation="official")
    same = load_forecaster("fracast", implementation="official")
    assert same.key == load_forecaster("fracast").key, "it runs in its own package anyway"
    with pytest.raises(ConfigError, match="must be fastsim or official, got 'theirs'"):
        load_forecaster("fastsim-prior", implementation="theirs")
    with pytest.raises(ConfigError, match="implementation must be one of"):
        ForecastConfig(implementation="theirs")


def test_the_official_package_says_what_to_install_and_what_it_cannot(any_tirex, monkeypatch):
    half = load_forecaster(f"tirex:{any_tirex}", implementation="official", precision="bfloat16")
    with pytest.raises(ForecastError, match=r"runs in float32 alone, not in torch\.bfloat16"):
        half.forecast(CONTEXT, 3)
    damaged = any_tirex / "damaged.ckpt"
    damaged.write_bytes(b"nothing")
    with pytest.raises(ForecastError, match=r"damaged\.ckpt is damaged or not this architecture"):
        load_forecaster("tirex", path=damaged, implementation="official")
    monkeypatch.setitem(sys.modules, "tirex.models.tirex", None)
    with pytest.raises(ForecastError, match=r"pip install 'fastsim-rl\[tirex\]'"):
        load_forecaster(f"tirex:{any_tirex}", implementation="official")


@pytest.mark.parametrize("newer", [True, False], ids=["safetensors", "ckpt"])
def test_either_form_of_tirex2_loads_from_a_folder_and_from_the_hub(
    newer, tmp_path, cache, monkeypatch
):
    network = tirex2.random_tirex2(test_tirex2.TINY, seed=0).network
    folder = tmp_path / "weights"
    folder.mkdir()
    if newer:
        test_tirex2.save(network, folder)
    else:
        torch.save({"state_dict": network.state_dict()}, folder / "model.ckpt")
        (folder / "model-config.yaml").write_text(yaml.safe_dump(test_tirex2.TINY))
    count = sum(weight.numel() for weight in network.parameters())
    monkeypatch.setattr(tirex2, "CARD", replace(tirex2.CARD, parameters=count))
    wanted = tirex2.random_tirex2(test_tirex2.TINY, seed=0)(CONTEXT.close, horizon=6)
    put(cache, "NX-AI/TiRex-2", COMMIT, folder)
    for name in (f"tirex2:{folder}", "tirex2", f"tirex2@{COMMIT}"):
        found = load_forecaster(name).forecast(CONTEXT, 6).quantiles
        torch.testing.assert_close(found, wanted.sort(-1).values)


@pytest.mark.parametrize("there", ["model.safetensors", "model.ckpt", ""])
def test_the_hub_is_asked_for_either_form_and_says_when_it_has_none(
    there, tmp_path, cache, monkeypatch
):
    """A hub that knows some files, in the words of its own client."""
    asked = []

    def download(hub_id, filename, *, revision, etag_timeout):
        asked.append((filename, revision))
        if filename == there:
            path = tmp_path / COMMIT / filename
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"weights")
            return str(path)
        raise RemoteEntryNotFoundError("404", response=httpx_response())

    monkeypatch.setattr(hub, "_require_hub", lambda: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    wanted = {"hub_id": "NX-AI/TiRex-2", "revision": None, "path": None}
    if not there:
        with pytest.raises(ForecastError, match=r"has no model\.safetensors or model\.ckpt: name"):
            find_first("tirex2", tirex2.CHECKPOINTS, **wanted)
        return
    assert find_first("tirex2", tirex2.CHECKPOINTS, **wanted).name == there
    assert held_revision("NX-AI/TiRex-2").revision == COMMIT
    find_first("tirex2", tirex2.CHECKPOINTS, **wanted)
    assert (there, COMMIT) in asked, "the second time the revision met first is asked for"


def httpx_response():
    """What the client's errors carry."""
    library = pytest.importorskip(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    return library.Response(404, request=library.Request("HEAD", "http://hub"))


def test_other_sizes_of_toto2_load_by_their_path(tmp_path):
    import toto2 as package  # noqa: PLC0415

    test_toto2.official_model(package, test_toto2.SMALL).save_pretrained(tmp_path)
    found = load_forecaster(f"toto2-4m:{tmp_path}")
    weights = load_file(tmp_path / "model.safetensors")
    assert found.card.name != "Toto-2.0-4m" and found.card.hub_id is None
    assert found.card.parameters < sum(weight.numel() for weight in weights.values()) + 1
    assert found.forecast(CONTEXT, 3).quantiles.isfinite().all()


def test_kronos_finds_its_tokenizer_in_the_folder(tmp_path):
    network = test_kronos.official_network(test_kronos.CONFIGS["mini"])
    network.save_pretrained(tmp_path)
    tokenizer = test_kronos.official_tokenizer(test_kronos.TOKENIZER_CONFIGS["mini"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert load_forecaster(f"kronos-mini:{tmp_path}").card.name == "kronos-mini"


def test_the_revision_met_first_is_written_down_and_held_to(any_tirex, cache, tmp_path):
    put(cache, "NX-AI/TiRex", COMMIT, any_tirex)
    first = load_forecaster("tirex")
    held = held_revision("NX-AI/TiRex")
    assert held.revision == COMMIT
    assert held.files == {"model.ckpt": hub.sha256(any_tirex / "model.ckpt")}
    later = tmp_path / "later"
    later.mkdir()
    test_tirex.save_checkpoint(
        tirex.TiRexModel.random(test_tirex.SMALL, seed=2), later / "model.ckpt"
    )
    put(cache, "NX-AI/TiRex", "b" * 40, later)  # main is now another
    assert load_forecaster("tirex").key == first.key
    assert load_forecaster(f"tirex@{'b' * 40}").key != first.key
    snapshot = cache / "models--NX-AI--TiRex" / "snapshots" / COMMIT / "model.ckpt"
    shutil.copy(later / "model.ckpt", snapshot)
    with pytest.raises(ForecastError, match="is not the file that was met first") as caught:
        load_forecaster("tirex")
    assert HELD in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_with_a_pinned_revision_is_not_written_down(cache, tmp_path, monkeypatch):
    torch.manual_seed(0)
    folder = tmp_path / "toto"
    folder.mkdir()
    model = toto.TotoModel(test_toto.SMALL)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(test_toto.official_settings(test_toto.SMALL)))
    count = sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr(toto, "CARD", replace(toto.CARD, parameters=count))
    put(cache, "Datadog/Toto-Open-Base-1.0", toto.CARD.revision, folder, ref=None)
    assert load_forecaster("toto").forecast(CONTEXT, 3).quantiles.isfinite().all()
    assert not (cache / HELD).exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"NX-AI/TiRex": 3}', '{"NX-AI/TiRex": {}}'])
def test_a_damaged_record_of_revisions_is_named(content, any_tirex, cache):
    put(cache, "NX-AI/TiRex", COMMIT, any_tirex)
    (cache / HELD).write_text(content)
    with pytest.raises(ForecastError, match=f"{HELD} does not say which revisions .* delete it"):
        load_forecaster("tirex")


def test_models_are_told_with_package_weights_revision_and_digest(any_tirex, cache, capsys):
    main(["models"])
    told = capsys.readouterr().out
    shipped = Path(prior.__file__).parent / "weights" / "prior.safetensors"
    for words in ("tirex-ts-", "tirex-2-", "hf download NX-AI/TiRex", "0411ceb27bdf"):
        assert words in told
    assert hub.sha256(shipped)[:12] in told
    put(cache, "NX-AI/TiRex", COMMIT, any_tirex)
    main(["models"])
    told = capsys.readouterr().out
    assert COMMIT[:12] in told
    assert hub.sha256(any_tirex / "model.ckpt")[:12] in told


def test_the_advice_fetches_what_the_loader_wants(cache):
    for name, revision in (("toto", "0411ceb27bdf7fc3e4892e99edc8ad08192dc3c5"), ("tirex", None)):
        wanted = f"--revision {revision}`" if revision else "hf download NX-AI/TiRex`"
        with pytest.raises(ForecastError, match=wanted):
            load_forecaster(name)
    with pytest.raises(ForecastError, match=f"hf download NX-AI/TiRex --revision {COMMIT}`"):
        load_forecaster(f"tirex@{COMMIT}")


@pytest.mark.parametrize("name", ["tirex", "tirex2", "toto", "toto2-4m", "kronos"])
def test_without_a_network_it_says_so_at_once(name, cache, capsys):
    started = time.perf_counter()
    with pytest.raises(ForecastError, match="no way to http") as caught:
        load_forecaster(name)
    assert time.perf_counter() - started < 15.0, "its client alone tries for 26 s"
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "show", "AAPL", "--forecaster", name])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert str(caught.value) in error


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tirex@", "names no revision after @"),
        ("tirex:", "names no path after the colon"),
        (f"tirex@{COMMIT}:/weights", "a revision of the hub and a path: give one of them"),
        ("fastsim-prior@2", "'fastsim-prior' takes no revision .* tirex, tirex2, toto"),
        ("random-walk-60@1", "'random-walk-60' takes no revision"),
        ("tirx:/weights", "no forecaster is called 'tirx:/weights'"),
        ("tirx@main", "no forecaster is called 'tirx'"),
        ("@main", "no forecaster is called ''"),
    ],
)
def test_names_that_cannot_be_are_refused_before_anything_is_done(name, told, capsys):
    for read in (naming.read_name, load_forecaster, load_network):
        with pytest.raises(ConfigError, match=told) as caught:
            read(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=told):
        TrainConfig(forecaster=name)
    for command in (
        ["forecast", "show", "AAPL", "--forecaster", name],
        ["forecast", "evaluate", "--forecaster", name],
        ["export", name],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
        assert str(caught.value) in capsys.readouterr().err


def test_a_path_is_given_once(any_tirex):
    with pytest.raises(ConfigError, match="says where its weights come from, and so does path"):
        load_forecaster(f"tirex:{any_tirex}", path=any_tirex)


HUBBED = ("tirex", "tirex2", "toto", "toto2-4m", "kronos-mini", "fastsim-prior")


@pytest.mark.parametrize("name", HUBBED)
def test_paths_without_weights_are_named_the_same_in_python_and_on_the_command_line(
    name, tmp_path, capsys, cache
):
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (tmp_path / "nowhere", empty):
        with pytest.raises(ForecastError, match=f"no weights at .*{path.name}") as caught:
            load_forecaster(f"{name}:{path}")
        assert "\n" not in str(caught.value)
        with pytest.raises(SystemExit) as ended:
            main(["forecast", "show", "AAPL", "--forecaster", f"{name}:{path}"])
        assert ended.value.code == 2
        assert str(caught.value) in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"text\n" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
@pytest.mark.parametrize("name", HUBBED)
def test_damaged_weights_are_named_in_one_line(name, content, tmp_path, capsys):
    shipped = {"tirex": "model.ckpt"}.get(name, "model.safetensors")
    (tmp_path / shipped).write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / shipped if name == "fastsim-prior" else tmp_path
    with pytest.raises(ForecastError) as caught:
        load_forecaster(f"{name}:{path}")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["forecast", "show", "AAPL", "--forecaster", f"{name}:{path}"])
    assert ended.value.code == 2
    assert str(caught.value) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "settings", "change"),
    [
        ("toto", lambda: test_toto.official_settings(test_toto.SMALL), change)
        for change in (
            {"num_heads": 0},
            {"patch_size": 0, "stride": 0},
            {"num_layers": -4},
            {"embed_dim": "wide"},
            {"num_layers": 2.5},
            {"mlp_hidden_dim": None},
            {"spacewise_every_n_layers": 0},
        )
    ]
    + [
        (
            "toto2-4m",
            lambda: (
                json.loads(json.dumps(test_toto2.asdict(test_toto2.SMALL)))
                | {name: ours for name, (_, ours) in test_toto2.OPTIONS.items()}
            ),
            change,
        )
        for change in (
            {"num_heads": 0},
            {"patch_size": -1},
            {"layer_group_size": 0},
            {"d_model": "wide"},
            {"d_ff": 1.5},
            {"num_layers": None},
        )
    ],
)
def test_settings_that_make_no_network_are_named_in_one_line(name, settings, change, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps(settings() | change))
    with pytest.raises(ForecastError, match="architecture") as caught:
        load_forecaster(f"{name}:{tmp_path}")
    told = str(caught.value)
    assert str(tmp_path) in told and next(iter(change)) in told and "\n" not in told


def test_a_file_says_how_to_get_it():
    file = HubFile(hub_id="a/b", filename="c", revision="d")
    assert file.advice == "hf download a/b --revision d"
    assert replace(file, revision=None).advice == "hf download a/b"
