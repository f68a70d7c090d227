"""What a model has seen of markets: its day, by whom it is known, and what is made of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from forecasters import CARD, Counting
from safetensors.torch import save_file

from fastsim.cli import main
from fastsim.cli.seen import apart, first_scored
from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.evaluate import common_windows, rolling_origins
from fastsim.forecast.foreign import ForeignForecaster
from fastsim.forecast.interface import UNKNOWN, Identity
from fastsim.forecast.known import FORECASTERS
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.record import ForecasterRecord
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.seen import doubt, latest_day, may_remember, of_a_path, seen_in_words
from fastsim.forecast.unpublished import FITS

DAYS = np.arange("2024-05-30", "2024-06-03", dtype="datetime64[h]").astype("datetime64[ns]")
KRONOS = FORECASTERS["kronos"].card


def of(day, source="they say so"):
    return replace(CARD, known_until=day, known_source=source)


class Dated(Counting):
    """One that has seen markets until a day within the bars of tech4."""

    def __init__(self, day="2009-06-30") -> None:
        super().__init__(name="dated")
        self.card = replace(self.card, known_until=day, known_source="this test")


dated = ForecasterRecord(name="dated", load=lambda path: Dated())


def test_bars_until_the_end_of_the_day_may_be_remembered():
    seen = may_remember(of("2024-05-31"), DAYS)
    assert seen.sum() == 48
    assert DAYS[seen][-1] == np.datetime64("2024-05-31T23")
    assert not may_remember(of(None), DAYS).any()
    assert may_remember(of(UNKNOWN), DAYS).all()


@pytest.mark.parametrize("wrong", ["2024", "20240531", "2024-02-30", "", 2024, "never"])
def test_a_day_is_a_day(wrong):
    with pytest.raises(ConfigError, match="known_until of tiny must be a day"):
        of(wrong)


def test_several_have_seen_what_any_has():
    assert latest_day([of(None), of("2020-01-02"), of("2019-12-31")]) == "2020-01-02"
    assert latest_day([of("2020-01-02"), of(UNKNOWN)]) == UNKNOWN
    assert latest_day([of(None), of(None)]) is None
    members = [Dated("2020-01-02"), trailing_random_walk(), Dated("2021-01-02")]
    card = Ensemble(members).card
    assert card.known_until == "2021-01-02"
    assert "dated: this test" in card.known_source


def test_every_model_says_what_it_has_seen_or_that_nobody_knows():
    for name, record in FORECASTERS.items():
        if record in FITS:
            continue  # each of its folders says so itself
        card = record.load(None).card if record.card is None else record.card
        assert card.known_source, name
        assert card.name in seen_in_words(card)
    assert KRONOS.known_until == "2024-05-31"
    assert FORECASTERS["fastsim-prior"].card.known_until is None
    assert FORECASTERS["tirex"].card.known_until == UNKNOWN


def test_what_is_known_of_the_training_data_changes_no_key():
    first, later = of("2020-01-02"), of(UNKNOWN, "")
    assert Identity(card=first).key == Identity(card=later).key
    assert Identity(card=first).key != Identity(card=replace(first, max_context=63)).key
    one, other = Dated("2020-01-02"), Dated(UNKNOWN)
    keys = {ForeignForecaster(each, "dated", "1").key for each in (one, other)}
    assert len(keys) == 1


def test_weights_from_a_path_need_not_be_the_published_ones(tmp_path):
    shipped = load_forecaster("fastsim-prior")
    save_file(shipped.model.state_dict(), tmp_path / "prior.safetensors")
    other = load_forecaster(f"fastsim-prior:{tmp_path / 'prior.safetensors'}")
    assert other.card.known_until == UNKNOWN
    assert "which these need not be" in other.card.known_source
    assert other.key == shipped.key
    assert of_a_path(KRONOS, KRONOS).known_until == "2024-05-31"
    assert "which these need not be" in of_a_path(KRONOS, KRONOS).known_source
    fitted = replace(KRONOS, known_until="2025-01-01", known_source="fitted")
    assert of_a_path(fitted, KRONOS) == fitted
    assert of_a_path(of(UNKNOWN), of(UNKNOWN)) == of(UNKNOWN)


def test_doubts_are_said_or_raised():
    assert doubt(of(None), DAYS, bars="bars") == ""
    assert doubt(KRONOS, DAYS[48:], bars="bars") == ""
    said = doubt(KRONOS, DAYS, bars="scored bars")
    assert "kronos-small has seen markets until 2024-05-31" in said
    assert "48 of 96" in said
    with pytest.raises(ForecastError, match="unknown: it may remember the tested bars"):
        doubt(of(UNKNOWN), DAYS, bars="tested bars", strict=True)


def test_scores_are_set_apart_by_the_first_scored_bar():
    bars = sample_bars("tech4").take(slice(0, 400))
    walk = trailing_random_walk()
    day = str(bars.timestamps[205].astype("datetime64[D]"))
    forecaster, horizons = Dated(day), (2, 5)
    origins = [200, 203, 204, 210, 220]
    windows = common_windows(bars, [walk, forecaster], horizons, origins, 100)
    own, other = (
        rolling_origins(bars, one, horizons, origins, 100, windows=windows)
        for one in (forecaster, walk)
    )
    scored = first_scored(bars.timestamps, windows, horizons)
    sides = apart(forecaster.card, own, other, scored)
    assert sides is not None
    early, late = (
        rolling_origins(bars, forecaster, horizons, rows, 100)
        for rows in (origins[:2], origins[2:])
    )
    walked = rolling_origins(bars, walk, horizons, origins[2:], 100)
    assert sides.before.windows == int(early.windows.sum())
    assert sides.after.windows == int(late.windows.sum())
    wanted = float(late.quantile_loss.mean() / walked.quantile_loss.mean())
    assert sides.after.relative.estimate == pytest.approx(wanted, rel=1e-9)
    for day in (None, UNKNOWN, "1999-01-01", "2030-01-01"):
        assert apart(Dated(day).card, own, other, scored) is None


def test_evaluate_shows_both_sides_and_refuses_if_strict(capsys, tmp_path):
    arguments = [
        *("forecast", "evaluate", "--source", "tech4", "--step", "200", "--horizons", "1"),
        *("--forecaster", "test_seen:dated,fastsim-prior", "--baselines", "none"),
    ]
    main([*arguments, "--json", str(tmp_path / "scores.json")])
    told = " ".join(capsys.readouterr().out.split())
    assert "Scores before and after the last day" in told
    assert "Beware: dated has seen markets until 2009-06-30" in told
    assert "fastsim-prior has seen no market (trained on simulated paths only)." in told
    walk, ours, prior = json.loads((tmp_path / "scores.json").read_text())["forecasters"]
    assert ours["known_until"] == "2009-06-30"
    total = ours["apart"]["before"]["windows"] + ours["apart"]["after"]["windows"]
    assert total == ours["windows"] == prior["windows"]
    assert walk["apart"] is prior["apart"] is prior["known_until"] is None
    with pytest.raises(SystemExit):
        main([*arguments, "--strict"])
    assert "dated has seen markets until 2009-06-30" in capsys.readouterr().err


def test_show_and_models_say_it_too(capsys):
    shown = ["forecast", "show", "AAPL", "--source", "tech4", "--forecaster", "test_seen:dated"]
    main(shown)
    told = capsys.readouterr().out
    assert "dated has seen markets until 2009-06-30 (this test)." in told
    assert "Beware" not in told
    main([*shown, "--date", "2008-03-03"])
    assert "Beware: it may remember what came next" in capsys.readouterr().out
    main(["models"])
    assert "2024-05-31" in capsys.readouterr().out


def test_an_artefact_has_seen_what_its_model_has(tmp_path):
    from forecasters import TinyModel, random_context  # noqa: PLC0415

    from fastsim.forecast.artifacts.export import export, load_artifact  # noqa: PLC0415

    model = TinyModel()
    model.card = of("2020-01-02")
    export(model, tmp_path / "tiny.pt", windows=random_context(33), horizon=4, precision="float32")
    card = load_artifact(tmp_path / "tiny.pt").card
    assert (card.known_until, card.known_source) == ("2020-01-02", "they say so")
    assert torch.equal(torch.tensor(card.levels), torch.tensor(CARD.levels))
