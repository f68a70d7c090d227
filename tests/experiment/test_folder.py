"""The folder of a run has a plain name, whatever its data is called."""

from fastsim.data.source import DataConfig
from fastsim.experiment.config import TrainConfig
from fastsim.experiment.folder import policy_folder, start_name


def test_a_run_is_called_after_its_data_and_the_time():
    assert start_name(TrainConfig(name="mine")) == "mine"
    assert start_name(TrainConfig()).startswith("us20-")
    assert start_name(TrainConfig(data=DataConfig(source="a/b/bars.csv"))).startswith("bars-")


def test_a_function_that_bars_come_from_makes_a_name_without_a_colon():
    name = start_name(TrainConfig(data=DataConfig(source="my_bars:recent")))
    assert name.startswith("my_bars-recent-") and ":" not in name


def test_the_best_policy_and_the_latest_lie_apart(tmp_path):
    assert policy_folder(tmp_path) == tmp_path / "agent" / "policy"
    assert policy_folder(tmp_path, "latest") == tmp_path / "agent-latest" / "policy"
