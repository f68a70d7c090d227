"""Searching: no trial is lost, what is chosen is scored on bars that none saw, and says so."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from test_fit import bars_of, planted

from fastsim.cli import main
from fastsim.data.read import write_bars
from fastsim.errors import CheckpointError, ConfigError, DataError, ForecastError
from fastsim.forecast.digests import fingerprint
from fastsim.forecast.ensemble import Ensemble
from fastsim.forecast.interface import ModuleForecaster
from fastsim.forecast.models.prior import load_prior
from fastsim.forecast.networks.nhits import NhitsModel
from fastsim.forecast.registry import load_forecaster
from fastsim.forecast.seen import seen_in_words
from fastsim.forecast.training.config import FitConfig
from fastsim.forecast.training.course import Course
from fastsim.forecast.training.keep import save_fit
from fastsim.forecast.tuning import study as studies
from fastsim.forecast.tuning.config import SearchConfig
from fastsim.forecast.tuning.score import cut_off, judge_of_test
from fastsim.forecast.tuning.spaces import OF_MODES, OF_NETWORKS, candidate, usual_space
from fastsim.forecast.tuning.study import ATTEMPTS, Study, pruned
from fastsim.forecast.tuning.tune import tune
from fastsim.progress import SILENT
from fastsim.space import require_fit, space_of

FEW = FitConfig(
    mode="head",
    steps=6,
    evaluate_every=2,
    batch_size=8,
    validation_windows=40,
    warmup=1,
    sure=False,
    horizons=(1, 3),
)
RATES = space_of({"learning_rate": {"log": [1e-4, 1e-1]}, "weight_decay": [0.0, 0.1]})
SEARCH = SearchConfig(trials=5, test=0.25)


@pytest.fixture(scope="module")
def bars():
    return bars_of(planted(420, 2)[0])


def searched(bars, config=FEW, search=SEARCH, space=RATES, **given):
    return tune(load_prior(), bars, config, search=search, space=space, progress=SILENT, **given)


@pytest.fixture(scope="module")
def result(bars):
    return searched(bars, name="mine")


def test_the_best_on_validation_is_what_comes_out_with_the_number_of_trials(result):
    report, losses = result.report, [each.loss for each in result.attempts]
    assert report.trials == len(result.attempts) == 5
    assert report.completed + report.pruned + report.failed == 5 and report.again == 0
    assert report.validation_loss == min(losses) == result.fit.report.tried_loss
    assert result.attempts[report.best].values == dict(report.values)
    assert result.config.learning_rate == report.values["learning_rate"]
    assert result.fit.model.card.trials == 5
    assert report.sentence.startswith("Best of 5 trials")
    assert "which no trial saw" in report.sentence
    assert len({each.values["learning_rate"] for each in result.attempts}) == 5


def test_the_number_of_trials_stands_beside_what_came_of_them(result, tmp_path):
    save_fit(result.fit, tmp_path / "mine", result.config, tuned=result.report.to_json())
    about = json.loads((tmp_path / "mine" / "fit.json").read_text())
    assert about["trials"] == about["tuned"]["trials"] == 5
    assert about["tuned"]["final"]["loss"] == result.report.final.loss
    loaded = load_forecaster(f"fit:{tmp_path / 'mine'}")
    assert loaded.card.trials == 5
    assert "best of 5 trials on validation" in seen_in_words(loaded.card)
    assert Ensemble([loaded, load_forecaster("fastsim-prior")]).card.trials == 5
    same = ModuleForecaster(result.fit.model)
    assert loaded.key == same.key  # how often it was tried changes no forecast


def test_no_trial_saw_the_test(bars, result):
    parts = cut_off(bars, SEARCH)
    later = bars.timestamps >= parts.start
    assert later.sum() == 105 and len(parts.learned) == 315
    assert result.fit.model.card.known_until == str(parts.learned.timestamps[-1])[:10]
    closes = bars.close.copy()
    closes[later] = closes[later] * np.linspace(1.0, 2.0, later.sum())[:, None] ** 3
    other = searched(replace(bars, close=closes), name="mine")
    assert [each.loss for each in other.attempts] == [each.loss for each in result.attempts]
    assert fingerprint(other.fit.model) == fingerprint(result.fit.model)
    assert other.report.final.loss != result.report.final.loss


def test_targets_of_the_test_lie_a_gap_after_those_of_the_trials(bars):
    from fastsim.forecast.training.lesson import lesson_of  # noqa: PLC0415

    parts = cut_off(bars, SEARCH)
    lesson = lesson_of(load_prior().card, parts.learned, None, FEW, None)
    judge = judge_of_test(bars, parts.start, FEW, lesson)
    origins = np.concatenate([each.context.timestamps[:, -1] for each in judge.windows])
    start = parts.start.astype("datetime64[s]").astype(int)
    assert origins.min() == start + 86_400 * (FEW.reach - 1)
    with pytest.raises(DataError, match="no window for the test"):
        judge_of_test(bars, bars.timestamps[-2], FEW, lesson)


def test_a_search_that_was_stopped_ends_as_one_that_was_not(bars, result, tmp_path, monkeypatch):
    whole, calls = Course._evaluate, []

    def stopping(course):
        calls.append(course)
        if len(calls) in (5, 9):
            raise KeyboardInterrupt
        return whole(course)

    monkeypatch.setattr(Course, "_evaluate", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(bars, name="mine", folder=tmp_path)
    again = searched(bars, name="mine", folder=tmp_path)
    assert again.report._replace(again=0) == result.report
    assert again.report.again == 2
    assert fingerprint(again.fit.model) == fingerprint(result.fit.model)
    plain = [(each.number, each.state, each.loss, each.values) for each in again.attempts]
    assert plain == [(each.number, each.state, each.loss, each.values) for each in result.attempts]
    kept = list((tmp_path / "trials").glob("*/checkpoint.pt"))
    assert [path.parent.name for path in kept] == [f"{result.report.best:04d}"]


def test_a_folder_of_another_search_is_refused(bars, tmp_path):
    few = SearchConfig(trials=1, test=0.25)
    searched(bars, search=few, folder=tmp_path)
    with pytest.raises(CheckpointError, match="a search of another model"):
        searched(bars, replace(FEW, seed=1), few, folder=tmp_path)
    with pytest.raises(CheckpointError, match="another space"):
        searched(bars, FEW, few, space_of({"learning_rate": [0.1]}), folder=tmp_path)
    searched(bars, search=replace(few, trials=2), folder=tmp_path)  # more trials are welcome


def test_sizes_of_a_network_from_scratch_are_searched_too(bars):
    space = space_of({"hidden": [4, 8], "pools": [[8, 4, 1], [16, 4, 1]]})
    config = replace(FEW, mode="scratch")
    search = SearchConfig(trials=2, test=0.25)
    found = tune(NhitsModel(), bars, config, search=search, space=space, progress=SILENT)
    own = found.fit.model.spread.config
    assert own.hidden == found.report.values["hidden"] in (4, 8)
    assert own.pools == tuple(found.report.values["pools"])


@pytest.mark.parametrize("mode", OF_MODES)
def test_what_is_usually_searched_can_be(mode):
    config = FitConfig(mode=mode)
    require_fit(usual_space(load_prior(), mode), lambda each: candidate(load_prior(), config, each))


def test_every_own_network_has_sizes_to_search():
    from fastsim.forecast.training.architectures import ARCHITECTURES  # noqa: PLC0415

    config = FitConfig(mode="scratch")
    for name in OF_NETWORKS:
        model = ARCHITECTURES[name].make({})
        space = usual_space(model, "scratch")
        assert set(space) > set(OF_NETWORKS[name])
        require_fit(space, lambda each, model=model: candidate(model, config, each))


@pytest.mark.parametrize(
    ("space", "mode", "message"),
    [
        ({"horizons": [[1], [2]]}, "head", "horizons is not searched: all trials are judged alike"),
        ({"split.validation": [0.1, 0.2]}, "head", "split.validation is not searched"),
        ({"learning_rat": [0.1]}, "head", "no setting 'learning_rat' .*did you mean 'learning_rat"),
        ({"hidden": [4]}, "head", "no setting 'hidden' of a fit of fastsim-prior in mode head"),
        ({"batch_size": [0, 4]}, "head", "FitConfig.batch_size must be >= 1, got 0"),
        ({"learning_rate": [0.1]}, "volatility", "FitConfig.mode of fastsim-prior must be one of"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_tried(bars, space, mode, message):
    with pytest.raises(ConfigError, match=message):
        searched(bars, replace(FEW, mode=mode), space=space_of(space))


def test_bars_that_leave_no_test_are_refused(bars):
    search = SearchConfig(trials=1, test_start="2030-01-01")
    with pytest.raises(DataError, match="leave none for one of the parts"):
        searched(bars, search=search)
    with pytest.raises(ConfigError, match=r"SearchConfig\.test_start must be an ISO date"):
        SearchConfig(test_start="soon")


def test_a_search_of_which_nothing_ends_says_why(bars):
    wild = space_of({"learning_rate": [1e30, 1e31]})
    with pytest.raises(ForecastError, match="none of 2 trials came to its end: the loss of"):
        searched(bars, search=SearchConfig(trials=2, test=0.25), space=wild)


# The study alone, by objectives that are no fits.


def study_in(folder, identity="x", **given):
    return Study(folder, identity, **{"seed": 0, "prune": False} | given)


def parabola(number, trial):
    return (trial.suggest_float("x", -1.0, 1.0) - 0.3) ** 2


def nothing():
    """What is called after a trial."""


# Filters of warnings are those of a process, and threads put them back for each other.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_several_that_work_on_one_study_try_as_many_as_one_alone(tmp_path):
    tried = []

    def work():
        study_in(tmp_path).work(
            lambda number, trial: tried.append(number) or parabola(number, trial), 12, nothing
        )

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(tried) == list(range(12))
    found = study_in(tmp_path).attempts()
    assert [each.state for each in found] == ["complete"] * 12
    assert all(each.attempts == 1 for each in found)


def test_one_alone_proposes_by_seed_and_number_so_that_a_stop_changes_nothing(tmp_path):
    whole, broken = study_in(tmp_path / "a"), tmp_path / "b"
    whole.work(parabola, 6, nothing)
    for trials in (2, 6):
        study_in(broken).work(parabola, trials, nothing)
    losses = [each.loss for each in whole.attempts()]
    assert [each.loss for each in study_in(broken).attempts()] == losses
    other = study_in(tmp_path / "c", seed=1)
    other.work(parabola, 6, nothing)
    assert [each.loss for each in other.attempts()] != losses


def test_a_hopeless_trial_is_given_up_and_counts(tmp_path):
    def objective(number, trial):
        level = 1.0 if number < 6 else 9.0
        for step in range(3):
            trial.report(level, step)
            if trial.should_prune():
                raise pruned(step)
        return level

    for prune, state in ((True, "pruned"), (False, "complete")):
        study = study_in(tmp_path / state, prune=prune)
        study.work(objective, 7, nothing)
        assert study.attempts()[6].state == state


def test_what_fails_by_itself_is_told_and_what_is_stopped_is_tried_again(tmp_path):
    study, stops = study_in(tmp_path), [KeyboardInterrupt, RuntimeError]

    def objective(number, trial):
        if number == 0:
            raise ForecastError("too wild")
        if stops:
            raise stops.pop()("stopped")
        return 1.0

    for kind in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(kind):
            study.work(objective, 2, nothing)
    study.work(objective, 2, nothing)
    failed, again = study.attempts()
    assert (failed.state, failed.reason, failed.attempts) == ("failed", "too wild", 1)
    assert (again.state, again.loss, again.attempts) == ("complete", 1.0, 3)


def test_a_trial_that_stops_everyone_is_given_up_in_the_end(tmp_path):
    study = study_in(tmp_path)

    def objective(number, trial):
        raise RuntimeError("too large")

    for _ in range(ATTEMPTS):
        with pytest.raises(RuntimeError):
            study.work(objective, 1, nothing)
    study.work(objective, 1, nothing)
    assert [(each.state, each.attempts) for each in study.attempts()] == [("failed", ATTEMPTS)]


def test_a_process_that_dies_before_a_trial_is_its_own_loses_none(tmp_path):
    study = study_in(tmp_path)
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.study.ask()  # and then nothing more
    study.work(parabola, 2, nothing)
    assert [(each.state, each.attempts) for each in study.attempts()] == [
        ("complete", 2),
        ("complete", 1),
    ]


DYING = """
import os, sys
from pathlib import Path
from fastsim.forecast.tuning import study
study.BEAT_S, study.GRACE_S = 1, 2
def objective(number, trial):
    trial.suggest_float("x", -1.0, 1.0)
    os.kill(os.getpid(), 9)
study.Study(Path(sys.argv[1]), "x", seed=0, prune=False).work(objective, 2, lambda: None)
"""


@pytest.mark.long
def test_a_trial_whose_process_is_killed_goes_on_under_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "BEAT_S", 1)
    monkeypatch.setattr(studies, "GRACE_S", 2)
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    numbers, study = [], study_in(tmp_path)
    before = study.study.trials[0].params
    study.work(lambda number, trial: numbers.append(number) or parabola(number, trial), 2, nothing)
    assert sorted(numbers) == [0, 1]
    first = study.attempts()[0]
    assert (first.state, first.attempts) == ("complete", 2)
    assert study.study.trials[0].state.name == "FAIL"
    again = next(each for each in study.study.trials[1:] if each.params == before)
    assert again.state.name == "COMPLETE"


@pytest.mark.long
def test_processes_of_its_own_try_as_one_alone_would(bars):
    search = replace(SEARCH, trials=4, workers=2)
    found = searched(bars, search=search, name="mine")
    assert found.report.trials == found.report.completed + found.report.pruned == 4
    assert found.fit.model.card.trials == 4


@pytest.mark.long
def test_twenty_trials_on_two_processes_of_which_one_is_killed(tmp_path):
    write_bars(bars_of(planted(420, 2)[0]), tmp_path / "bars.parquet")
    out = tmp_path / "fit"
    command = ["forecast", "tune", "fastsim-prior", "--mode", "head", "--trials", "20"]
    command += ["--data.source", str(tmp_path / "bars.parquet"), "--out", str(out)]
    command += ["--steps", "60", "--evaluate-every", "10", "--batch-size", "16", "--warmup", "2"]
    command += ["--validation-windows", "60", "--horizons", "1", "3", "--no-sure"]
    begin = [sys.executable, "-m", "fastsim", *command]
    killed, other = (subprocess.Popen(begin, env=os.environ) for _ in range(2))
    study, limit = out / "study" / "trials", time.monotonic() + 120
    while len(list(study.glob("*"))) < 6 and time.monotonic() < limit:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and other.wait(400) == 0
    about = json.loads((out / "fit.json").read_text())
    assert about["trials"] == about["tuned"]["trials"] == 20
    tuned = about["tuned"]
    assert tuned["completed"] + tuned["pruned"] == 20 and tuned["failed"] == 0
    assert 1 <= tuned["again"] <= 2
    assert sorted(path.name for path in study.glob("*")) == [f"{n:04d}" for n in range(20)]
    assert load_forecaster(f"fit:{out}").card.trials == 20
    with pytest.raises(SystemExit):
        main(command)  # it is done


def test_without_optuna_it_says_what_to_install(bars, monkeypatch):
    for name in [each for each in sys.modules if each.startswith("fastsim.forecast.tuning.")]:
        if name.rpartition(".")[2] in ("study", "job", "workers"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'fastsim-rl\[tune\]'"):
        searched(bars)
