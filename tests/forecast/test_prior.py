"""fastsim-prior: what holds for any weights, and that the shipped ones are worth something."""

import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastsim.data.sample import sample_bars
from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.evaluate import relative, rolling_origins, spaced_origins, summarise
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models import prior
from fastsim.forecast.models.baselines import trailing_random_walk
from fastsim.forecast.networks.return_network import CONTEXT, KNOTS, LEVELS, horizon_curve
from fastsim.forecast.returns import returns_with_gaps
from fastsim.forecast.training.prior_paths import draw_paths
from fastsim.forecast.training.steps import warm_cosine
from fastsim.forecast.training.train_prior import PriorTraining, save_prior, train

SMALL = PriorTraining(steps=20, batch=64, futures=2, warmup=2)


@pytest.fixture(scope="module")
def model():
    return prior.load_prior()


@pytest.fixture(scope="module")
def closes():
    """Closes [33, 512] near 100, some of them missing."""
    past, _ = draw_paths(33, CONTEXT, 1, 1, torch.Generator().manual_seed(3))
    closes = 100.0 * past.double().cumsum(1).exp().float()
    closes[1, :300] = torch.nan
    closes[2, 400:405] = torch.nan
    closes[3, -1] = torch.nan
    return closes


@torch.no_grad()
def quantiles(model, closes, horizon=64):
    return model(closes, horizon=horizon)


def test_the_card_says_what_the_model_is(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == prior.CARD.parameters
    stored = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert stored < 2_000_000


def test_quantiles_increase_and_are_finite(model, closes):
    forecast = quantiles(model, closes)
    assert forecast.shape == (33, 64, len(LEVELS))
    assert forecast.dtype == torch.float32
    assert bool(forecast.isfinite().all())
    assert bool((forecast.diff(dim=-1) > 0).all())


def test_quantiles_increase_for_any_weights(closes):
    torch.manual_seed(0)
    model = prior.PriorModel()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.03)
    assert bool((quantiles(model, closes).diff(dim=-1) >= 0).all())


def test_untrained_model_is_a_gaussian_random_walk(closes):
    model = prior.PriorModel()
    nn.init.zeros_(model.head.weight)
    last = closes[4:, -1, None, None].double()
    spread = (quantiles(model, closes[4:]).double() / last).log()
    scale = model.read(closes[4:]).scale.double()[:, None, None]
    normal = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    root = torch.arange(1, 65).double().sqrt()[:, None]
    torch.testing.assert_close(
        spread, scale * root * normal, rtol=1e-3, atol=float(scale.max()) * 1e-2
    )


@pytest.mark.parametrize("power", [-20, -3, 10, 40])
def test_closes_times_a_power_of_two_give_exactly_that_multiple(model, closes, power):
    factor = 2.0**power
    assert torch.equal(quantiles(model, closes * factor), quantiles(model, closes) * factor)


def test_closes_times_any_constant_give_that_multiple(model, closes):
    torch.testing.assert_close(
        quantiles(model, closes * 970.0), quantiles(model, closes) * 970.0, rtol=1e-5, atol=0.0
    )


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_returns_times_a_constant_multiply_the_log_quantiles(model, closes, factor):
    rows = closes[4:].double()
    rows = rows / rows[:, -1:]
    scaled = quantiles(model, (rows.log() * factor).exp().float()).double().log()
    plain = quantiles(model, rows.float()).double().log()
    tolerance = 1e-3 * factor * float(plain.abs().max())
    torch.testing.assert_close(scaled, plain * factor, rtol=1e-3, atol=tolerance)


def test_a_row_alone_is_its_row_in_the_batch(model, closes):
    together = quantiles(model, closes)
    alone = torch.cat([quantiles(model, closes[row : row + 1]) for row in range(len(closes))])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=0.0)


def test_the_horizon_asked_for_changes_no_forecast(model, closes):
    assert torch.equal(quantiles(model, closes, 21), quantiles(model, closes)[:, :21])


def test_padding_on_the_left_changes_nothing(model, closes):
    short = closes[:, -100:]
    padded = torch.cat([torch.full((len(closes), 50), torch.nan), short], 1)
    assert torch.equal(quantiles(model, short), quantiles(model, padded))


def test_bars_before_the_context_change_nothing(model, closes):
    longer = torch.cat([torch.rand(len(closes), 30) * 100.0, closes], 1)
    assert torch.equal(quantiles(model, longer), quantiles(model, closes))


def test_the_spread_grows_with_the_horizon(model, closes):
    forecast = quantiles(model, closes).log()
    width = forecast[..., -2] - forecast[..., 1]
    assert bool((width.diff(dim=1) > 0).all())


def test_a_gap_counts_as_one_return_of_the_right_variance():
    closes = torch.tensor([[torch.nan, 100.0, torch.nan, torch.nan, torch.nan, 104.0, 102.0]])
    gaps = returns_with_gaps(closes.double(), torch.arange(7))
    across = torch.tensor(1.04).log() / 2.0  # four bars: divided by sqrt(4)
    wanted = torch.tensor([0, 0, 0, 0, across, (torch.tensor(102.0) / 104.0).log()])
    torch.testing.assert_close(gaps.returns[0].float(), wanted)
    assert gaps.known[0].tolist() == [False, False, False, False, True, True]
    assert gaps.last.tolist() == [102.0]


def test_closes_that_are_no_prices_count_as_missing(model, closes):
    holed, wrong = closes.clone(), closes.clone()
    holed[:, 100:103] = torch.nan
    wrong[:, 100:103] = torch.tensor([0.0, -5.0, torch.inf])
    assert torch.equal(quantiles(model, wrong), quantiles(model, holed))


def test_few_gaps_move_a_forecast_little(model, closes):
    full = closes[4:]
    holed = full.clone()
    holed[:, 50:500:45] = torch.nan
    width = (quantiles(model, holed)[..., -3] / quantiles(model, holed)[..., 2]).log()
    wanted = (quantiles(model, full)[..., -3] / quantiles(model, full)[..., 2]).log()
    assert float((width / wanted).log().abs().median()) < 0.05


def test_a_price_that_stands_still_is_forecast_to_stand_still(model):
    forecast = quantiles(model, torch.full((1, 200), 7.0))
    torch.testing.assert_close(forecast, torch.full_like(forecast, 7.0))


def test_too_few_closes_are_refused(model, closes):
    bars = closes[:, -31:, None].expand(-1, -1, 6)
    stamps = torch.arange(31).expand(len(closes), -1)
    with pytest.raises(ForecastError, match="needs 32 known closes"):
        ModuleForecaster(model).forecast(Context(bars, stamps), 5)


class Fixed(nn.Module):
    """The model over a fixed horizon, as an exporter would hold it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, closes):
        return self.model(closes, horizon=21)


def test_the_trace_equals_eager_at_any_batch_and_on_any_device(model, closes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(Fixed(prior.load_prior()), closes[:2])
    for batch in (1, 2, 7, 33):
        assert torch.equal(traced(closes[:batch]), quantiles(model, closes[:batch], 21))
    # A device constant in the trace would not let it run where there is no data.
    assert traced.to("meta")(closes.to("meta")).shape == (33, 21, len(LEVELS))


@pytest.mark.parametrize(("precision", "error"), [("float16", 0.005), ("bfloat16", 0.03)])
def test_half_precision_is_close(model, closes, precision, error):
    bars = closes[:, :, None].expand(-1, -1, 6)
    context = Context(bars, torch.arange(512).expand(len(closes), -1))
    half = ModuleForecaster(prior.load_prior(), precision=precision).forecast(context, 64).quantiles
    wanted = quantiles(model, closes)
    band = (wanted[..., -3] - wanted[..., 2])[..., None]
    assert half.dtype == torch.float32
    assert float(((half - wanted).abs() / band).max()) < error


def test_curves_over_horizons_are_averages_of_their_knots():
    weights = horizon_curve()
    assert weights.shape == (64, KNOTS)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(64))


def test_shipped_weights_beat_the_random_walk_on_real_stocks(model):
    bars = sample_bars("us20")
    origins = spaced_origins(bars, context=512, horizon=21, step=42)
    horizons = range(1, 22)
    ours = rolling_origins(bars, ModuleForecaster(model), horizons, origins, 512)
    walk = rolling_origins(bars, trailing_random_walk(), horizons, origins, 512)
    assert int(ours.windows.sum()) == 2520
    assert relative(ours, walk).estimate < 0.99
    assert relative(ours, walk).high < 1.0
    assert 0.79 < summarise(ours).coverage.estimate < 0.83


def test_damaged_weights_are_refused(tmp_path):
    damaged = tmp_path / "prior.safetensors"
    save_prior(prior.PriorModel(), damaged)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(ForecastError, match="damaged"):
        prior.load_prior(damaged)


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(ForecastError, match="no weights at"):
        prior.load_prior(tmp_path / "none.safetensors")


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"first.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(ForecastError, match="not this architecture"):
        prior.load_prior(path)


def test_saved_weights_load_as_they_were(tmp_path, closes):
    saved = prior.PriorModel()
    save_prior(saved, tmp_path / "prior.safetensors")
    loaded = prior.load_prior(tmp_path / "prior.safetensors")
    assert torch.equal(quantiles(loaded, closes), quantiles(saved, closes))


@pytest.mark.long
def test_training_repeats_bit_for_bit_and_leaves_the_global_seed_alone(threads):
    threads(1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = train(SMALL).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two = train(SMALL).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_learning_rate_warms_up_and_ends_at_nothing():
    rates = [warm_cosine(step, SMALL.steps, SMALL.warmup) for step in range(SMALL.steps)]
    assert rates[0] < rates[2]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"gappy": 1.5}])
def test_training_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PriorTraining(**wrong)
