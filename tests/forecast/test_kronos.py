"""Kronos against the official package under the same random weights, and its own laws."""

import json
from itertools import count

import pandas as pd
import pytest
import torch
from forecasters import spread_out
from kronos_finance._vendor.kronos_model import Kronos as OfficialKronos
from kronos_finance._vendor.kronos_model import KronosPredictor as OfficialPredictor
from kronos_finance._vendor.kronos_model import KronosTokenizer as OfficialTokenizer
from kronos_finance._vendor.kronos_model.kronos import auto_regressive_inference

from fastsim.errors import ForecastError
from fastsim.forecast.artifacts.export import export, load_artifact
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.kronos import (
    CARDS,
    CONFIGS,
    RELEASES,
    TOKENIZER_CONFIGS,
    TOKENIZER_RELEASES,
    Sampling,
    calendar,
    draw,
    extend_timestamps,
    fill_bars,
    load_kronos,
    normalise,
    random_kronos,
    uniform_noise,
)
from fastsim.forecast.networks.kronos_network import Kronos, KronosConfig
from fastsim.forecast.networks.kronos_tokenizer import KronosTokenizer, TokenizerConfig

WINDOW = 48
CONFIG = KronosConfig(s1_bits=6, s2_bits=6, n_layers=3, d_model=32, n_heads=2, ff_dim=48)
TOKENIZER = TokenizerConfig(
    d_model=32, n_heads=4, ff_dim=48, n_enc_layers=3, n_dec_layers=3, s1_bits=6, s2_bits=6
)
NO_DROPOUT = {"ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0}
LOSSES = {"beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05}
START, HOUR, DAY = 1_700_000_000, 3_600, 86_400


def official_network(config, seed=0):
    torch.manual_seed(seed)
    shape = {name: getattr(config, name) for name in config.__slots__}
    return spread_out(OfficialKronos(**shape, **NO_DROPOUT, token_dropout_p=0.0).eval())


def official_tokenizer(config, seed=1):
    torch.manual_seed(seed)
    shape = {name: getattr(config, name) for name in config.__slots__}
    return spread_out(OfficialTokenizer(**shape, **NO_DROPOUT, **LOSSES).eval())


@pytest.fixture(scope="module")
def official():
    return official_network(CONFIG), official_tokenizer(TOKENIZER)


@pytest.fixture(scope="module")
def model(official):
    made = random_kronos(CONFIG, TOKENIZER, seed=0, max_context=WINDOW)
    made.program.network.load_state_dict(official[0].state_dict())
    made.program.tokenizer.load_state_dict(official[1].state_dict())
    return made


def bars_of(rows, length, seed=0):
    random = torch.Generator().manual_seed(seed)
    close = 100 * torch.exp(0.01 * torch.randn(rows, length, generator=random).cumsum(1))
    opening = close.roll(1, 1)
    opening[:, 0] = close[:, 0]
    spread = 1 + 0.005 * torch.rand(rows, length, generator=random)
    high, low = opening.maximum(close) * spread, opening.minimum(close) / spread
    volume = 1e6 * torch.exp(0.3 * torch.randn(rows, length, generator=random))
    return torch.stack([opening, high, low, close, volume, volume * close], -1)


def times_of(rows, length, step=HOUR):
    return (START + step * torch.arange(length)).expand(rows, -1)


def normal_of(rows, length, horizon, seed=0):
    """Normalised bars, the calendar of context and horizon, and that all bars are known."""
    bars, known = fill_bars(bars_of(rows, length, seed))
    stamps = calendar(extend_timestamps(times_of(rows, length), known, horizon))
    return normalise(bars, known)[0], stamps, known


def official_paths(official, normal, stamps, horizon, **sampling):
    length = normal.shape[1]
    past, future = stamps[:, :length].float(), stamps[:, length:].float()
    network, tokenizer = official
    paths = auto_regressive_inference(
        tokenizer, network, normal, past, future, WINDOW, horizon, **sampling
    )
    return torch.from_numpy(paths)[:, -horizon:]


@torch.no_grad()
def test_tokens_are_the_official_tokens(official, model):
    normal, _, known = normal_of(5, 40, 1)
    for ours, theirs in zip(
        model.program.tokenizer(normal, known), official[1].encode(normal, half=True), strict=True
    ):
        assert torch.equal(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("config", [CONFIG, CONFIGS["mini"]], ids=["tiny", "mini"])
@pytest.mark.parametrize("learned", [True, False])
def test_logits_are_the_official_logits(config, learned):
    config = KronosConfig(
        **{name: getattr(config, name) for name in config.__slots__} | {"learn_te": learned}
    )
    theirs, ours = official_network(config), Kronos(config).eval()
    ours.load_state_dict(theirs.state_dict())
    tokens = tuple(torch.randint(2**6, (2, 40)) for _ in "12")
    stamps, known = calendar(times_of(2, 40)), torch.ones(2, 40, dtype=torch.bool)
    hidden, memory = ours(tokens, stamps, known)
    wanted, context = theirs.decode_s1(*tokens, stamps.float())
    torch.testing.assert_close(ours.head.proj_s1(hidden), wanted, rtol=0, atol=1e-4)
    drawn = torch.tensor([[3], [60]])
    wanted = theirs.decode_s2(context, drawn)[:, -1:]
    nothing = memory[-1][:, :, :, None, :0]
    found = ours.logits_s2(hidden[:, None, -1:], drawn, memory[-1], nothing, known)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("length", [8, WINDOW - 12, WINDOW - 4, WINDOW])
def test_greedy_paths_are_the_official_paths_also_when_the_window_slides(official, model, length):
    normal, stamps, known = normal_of(3, length, 12)
    wanted = official_paths(official, normal, stamps, 12, top_k=1, top_p=1.0, sample_count=1)
    found = model.program.sample(normal, stamps, known, torch.zeros(3, 1, 12, 2))
    torch.testing.assert_close(found[:, 0], wanted, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [30, WINDOW - 4])
def test_sampled_paths_are_the_official_paths_under_the_same_draws(
    official, model, length, monkeypatch
):
    normal, stamps, known = normal_of(2, length, 8)
    noise = torch.rand(2, 3, 8, 2, generator=torch.Generator().manual_seed(5))
    calls = count()

    def multinomial(probabilities, num_samples):
        step, token = divmod(next(calls), 2)
        ranked, order = probabilities.sort(-1, descending=True)
        rank = (ranked.cumsum(-1) <= noise[:, :, step, token].reshape(-1, 1)).sum(-1, keepdim=True)
        return order.gather(-1, rank)

    monkeypatch.setattr(torch, "multinomial", multinomial)
    wanted = official_paths(official, normal, stamps, 8, T=0.9, top_p=0.9, sample_count=3)
    hot = random_kronos(
        CONFIG, TOKENIZER, seed=0, max_context=WINDOW, sampling=Sampling(temperature=0.9)
    )
    hot.load_state_dict(model.state_dict())
    found = hot.program.sample(normal, stamps, known, noise)
    torch.testing.assert_close(found.mean(1), wanted, rtol=0, atol=1e-5)
    assert (found[:, 0] != found[:, 1]).any()


@pytest.mark.filterwarnings("ignore:Series.dt.weekday is deprecated")
def test_the_forecast_is_the_official_predictor_s(official, model):
    bars, horizon = bars_of(1, 32), 6
    names = ["open", "high", "low", "close", "volume", "amount"]
    times = extend_timestamps(times_of(1, 32), torch.ones(1, 32, dtype=torch.bool), horizon)[0]
    stamps = pd.Series(pd.to_datetime(times.numpy(), unit="s"))
    wanted = OfficialPredictor(*official, device="cpu", max_context=WINDOW).predict(
        pd.DataFrame(bars[0].numpy(), columns=names),
        stamps[:32],
        stamps[32:],
        horizon,
        top_k=1,
        top_p=1.0,
        verbose=False,
    )
    found = model(bars, times_of(1, 32), horizon=horizon, noise=torch.zeros(1, 1, horizon, 2))
    close = torch.tensor(wanted["close"].to_numpy())
    torch.testing.assert_close(found[0], close[:, None].expand(-1, 9), rtol=1e-5, atol=1e-4)


def test_draws_have_the_probabilities_of_the_nucleus():
    logits = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    drawn = draw(logits.expand(10_000, -1), uniform, 1.0, 0.8)
    shares = drawn.bincount(minlength=5) / 10_000
    wanted = torch.tensor([0.5, 0.2, 0.15, 0.0, 0.0]) / 0.85
    torch.testing.assert_close(shares, wanted, rtol=0, atol=2e-4)


def test_a_draw_takes_at_least_the_likeliest_token_and_never_none():
    logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert draw(logits, torch.tensor([0.999, 0.0]), 1.0, 0.01)[0] == 0
    last = draw(torch.zeros(1, 1024), torch.tensor([1 - 2.0**-24]), 1.0, 1.0)
    assert 0 <= int(last) < 1024


def ragged(rows=5, length=40):
    """Bars of which rows begin late and lack closes or fields within."""
    bars = bars_of(rows, length)
    bars[1, :17] = torch.nan
    bars[2, 20:23] = torch.nan
    bars[3, :9] = torch.nan
    bars[3, 30, 3] = torch.nan
    bars[4, 12, :3] = torch.nan
    return bars


def test_a_row_alone_is_its_row_in_the_batch(model):
    bars, times = ragged(), times_of(5, 40)
    together = model(bars, times, horizon=8)
    assert together.isfinite().all()
    for row in range(5):
        alone = model(bars[row : row + 1], times[row : row + 1], horizon=8)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-6, atol=0)


@pytest.mark.parametrize("horizon", [8, 20])
def test_padding_on_the_left_changes_nothing(model, horizon):
    bars, times = ragged(), times_of(5, 40)
    padded = model(bars, times, horizon=horizon)
    torch.testing.assert_close(
        model(bars[1:2, 17:], times[1:2, 17:], horizon=horizon)[0], padded[1], rtol=1e-6, atol=0
    )


def test_the_same_call_gives_the_same_forecast_and_horizons_nest(model):
    bars, times = bars_of(3, 30), times_of(3, 30)
    long = model(bars, times, horizon=12)
    assert torch.equal(long, model(bars, times, horizon=12))
    torch.testing.assert_close(model(bars, times, horizon=5), long[:, :5], rtol=1e-6, atol=0)


def test_context_is_cut_so_that_paths_fit_the_window_unless_it_may_slide(model):
    bars, times = bars_of(2, WINDOW + 9), times_of(2, WINDOW + 9)
    cut = model(bars[:, -(WINDOW - 6) :], times[:, -(WINDOW - 6) :], horizon=6)
    assert torch.equal(model(bars, times, horizon=6), cut)
    sliding = random_kronos(
        CONFIG, TOKENIZER, seed=0, max_context=WINDOW, sampling=Sampling(slide=True)
    )
    sliding.load_state_dict(model.state_dict())
    whole = sliding(bars, times, horizon=6)
    assert torch.equal(whole, sliding(bars[:, -WINDOW:], times[:, -WINDOW:], horizon=6))
    assert (whole != cut).any()


def test_noise_changes_paths(model):
    bars, times = bars_of(2, 30), times_of(2, 30)
    noises = [torch.rand(2, 4, 6, 2, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    first, second = (model(bars, times, horizon=6, noise=noise) for noise in noises)
    assert (first != second).any()
    assert (first.diff(dim=-1) >= 0).all()
    assert (first[..., -1] > first[..., 0]).any()


def test_noise_is_uniform_and_told_apart_by_all_that_it_hashes():
    times = START + DAY * torch.arange(50)
    noise = uniform_noise(times, 16, 32)
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(float(noise.mean()) - 0.5) < 0.005
    assert abs(float(noise.var()) - 1 / 12) < 0.002
    assert len(noise.flatten().unique()) > 0.99 * noise.numel()
    assert torch.equal(uniform_noise(times[3:4], 4, 8)[0], noise[3, :4, :8])
    assert (uniform_noise(times, 16, 32, seed=1) != noise).float().mean() > 0.99


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4, 1e8])
def test_prices_of_any_size_are_forecast_in_their_own_unit(model, scale):
    bars, times = bars_of(3, 40), times_of(3, 40)
    bars[..., :4] *= scale / 100
    bars[..., 5] *= scale / 100
    forecast = model(bars, times, horizon=8)
    assert forecast.isfinite().all()
    spread = bars[..., 3].std(1)[:, None, None]
    assert ((forecast - bars[..., 3].mean(1)[:, None, None]).abs() < 8 * spread).all()


def test_closes_alone_are_enough(model):
    bars, times = torch.full((2, 30, 6), torch.nan), times_of(2, 30)
    bars[..., 3] = bars_of(2, 30)[..., 3]
    forecast = model(bars, times, horizon=4)
    assert forecast.isfinite().all()
    assert (forecast[..., -1] > forecast[..., 0]).any()


def test_missing_fields_are_filled_from_closes():
    nan = torch.nan
    bars = torch.tensor(
        [
            [nan, nan, nan, nan, 5.0, 5.0],
            [nan, nan, nan, 10.0, nan, 7.0],
            [nan, nan, nan, 12.0, 3.0, nan],
            [9.0, 9.0, 9.0, nan, 4.0, 4.0],
            [11.0, nan, 8.0, 10.0, 2.0, 21.0],
        ]
    )
    filled, known = fill_bars(bars[None])
    assert known[0].tolist() == [False, True, True, True, True]
    assert filled[0].tolist() == [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [10.0, 10.0, 10.0, 10.0, 0.0, 0.0],
        [10.0, 12.0, 10.0, 12.0, 3.0, 33.0],
        [12.0, 12.0, 12.0, 12.0, 0.0, 0.0],
        [11.0, 11.0, 8.0, 10.0, 2.0, 21.0],
    ]


def test_the_calendar_is_that_of_pandas():
    random = torch.Generator().manual_seed(0)
    times = torch.randint(-(10**9), 4 * 10**9, (2_000,), generator=random)
    index = pd.to_datetime(times.numpy(), unit="s")
    fields = [index.minute, index.hour, index.day_of_week, index.day, index.month]
    wanted = torch.stack([torch.tensor(field.to_numpy()) for field in fields], -1)
    assert torch.equal(calendar(times), wanted.long())


def test_timestamps_go_on_by_the_median_spacing_of_known_bars():
    times = torch.tensor([[0, 9, DAY, 2 * DAY, 3 * DAY, 6 * DAY, 7 * DAY]])
    known = torch.tensor([[False, False, True, True, True, True, True]])
    ahead = extend_timestamps(times, known, 3)[0, -3:]
    assert ahead.tolist() == [8 * DAY, 9 * DAY, 10 * DAY]


def hours_of(days, first, last):
    """Hourly bars of these days, `first` to `last` o'clock."""
    return pd.DatetimeIndex(
        [day + pd.Timedelta(hours=hour) for day in days for hour in range(first, last + 1)]
    )


def without_weekend(hours):
    """A market that closes on Friday at 21:00 and opens on Sunday at 21:00."""
    after = (hours.day_of_week == 4) & (hours.hour >= 21)
    before = (hours.day_of_week == 6) & (hours.hour < 21)
    return hours[~(after | (hours.day_of_week == 5) | before)]


SESSIONS = hours_of(pd.bdate_range("2020-04-01", "2020-07-01"), 14, 20)
MINUTES = pd.DatetimeIndex(
    [
        day + pd.Timedelta(minutes=14 * 60 + 30 + minute)
        for day in pd.bdate_range("2020-06-04", "2020-06-09")
        for minute in range(390)
    ]
)


@pytest.mark.parametrize(
    "times",
    [
        pd.bdate_range("2020-01-01", periods=80),
        pd.date_range("2020-01-01", periods=80),
        pd.bdate_range("2020-01-01", periods=90, freq="C", weekmask="Mon Tue Wed Thu Fri Sat"),
        pd.date_range("2020-01-03", periods=60, freq="W-FRI"),
        SESSIONS[:200],
        without_weekend(pd.date_range("2020-06-01", periods=900, freq="h")),
        pd.date_range("2020-06-01", periods=60, freq="h"),
        MINUTES,
    ],
    ids=["stocks", "coins", "six days", "weeks", "sessions", "currencies", "short", "minutes"],
)
def test_the_future_keeps_the_calendar_of_the_past(times):
    horizon = 30
    seconds = torch.tensor(times.astype("datetime64[s]").astype("int64").to_numpy())
    past, future = seconds[None, :-horizon], seconds[-horizon:]
    known = torch.ones_like(past, dtype=torch.bool)
    assert torch.equal(extend_timestamps(past, known, horizon)[0, -horizon:], future)


def test_a_month_ends_on_a_day_of_trading_and_a_holiday_hides_no_weekday():
    months = pd.bdate_range("2017-01-31", "2020-06-05", freq="BME")
    days = pd.bdate_range("2020-01-01", "2020-06-05").drop(pd.Timestamp("2020-06-01"))
    for times in (months, days):
        seconds = torch.tensor(times.astype("datetime64[s]").astype("int64").to_numpy())[None]
        known = torch.ones_like(seconds, dtype=torch.bool)
        ahead = extend_timestamps(seconds, known, 12)[0, -12:]
        assert (calendar(ahead)[:, 2] < 5).all()
        assert (ahead.diff() > 0).all()
        assert times is months or 0 in calendar(ahead)[:, 2].tolist()


def test_calendars_of_a_batch_are_kept_apart():
    stocks, coins = (
        torch.tensor(days.astype("datetime64[s]").astype("int64").to_numpy())
        for days in (
            pd.bdate_range(end="2020-06-05", periods=40),
            pd.date_range(end="2020-06-05", periods=40),
        )
    )
    known = torch.ones(2, 40, dtype=torch.bool)
    ahead = extend_timestamps(torch.stack([stocks, coins]), known, 7)[:, -7:]
    assert calendar(ahead)[:, :, 2].tolist() == [[0, 1, 2, 3, 4, 0, 1], [5, 6, 0, 1, 2, 3, 4]]


def test_timestamps_that_stand_still_are_refused(model):
    context = Context(bars_of(2, 30), times_of(2, 30).clone())
    context.timestamps[1, 7] = context.timestamps[1, 6]
    with pytest.raises(ForecastError, match="reads timestamps: they must increase"):
        ModuleForecaster(model).forecast(context, 3)


def test_cards_count_the_parameters_of_their_configs():
    for size, card in CARDS.items():
        with torch.device("meta"):
            parts = Kronos(CONFIGS[size]), KronosTokenizer(TOKENIZER_CONFIGS[size])
        counts = [sum(weight.numel() for weight in part.parameters()) for part in parts]
        assert counts == [RELEASES[size].parameters, TOKENIZER_RELEASES[size].parameters]
        assert card.parameters == sum(counts)


def test_it_forecasts_behind_the_contract_in_every_precision():
    context = Context(ragged(), times_of(5, 40))
    for precision in ("float32", "bfloat16"):
        made = random_kronos(CONFIG, TOKENIZER, seed=3, max_context=WINDOW)
        forecaster = ModuleForecaster(made, precision=precision)
        forecast = forecaster.forecast(context, 6)
        assert forecast.quantiles.shape == (5, 6, 9)
        assert forecast.quantiles.dtype == torch.float32
        assert forecast.quantiles.isfinite().all()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("length", [20, WINDOW - 4])
def test_the_scripted_program_is_the_eager_one(model, length):
    scripted = torch.jit.script(model.program)
    for rows in (1, 3):
        inputs = bars_of(rows, length), times_of(rows, length), 7
        torch.testing.assert_close(scripted(*inputs), model.program(*inputs), rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model and a tokenizer of the size of mini, saved by the official package."""
    folder = tmp_path_factory.mktemp("kronos")
    network = official_network(CONFIGS["mini"])
    tokenizer = official_tokenizer(TOKENIZER_CONFIGS["mini"])
    network.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder, network, tokenizer


@torch.no_grad()
def test_official_checkpoints_load_exactly(checkpoint):
    folder, network, tokenizer = checkpoint
    loaded = load_kronos("mini", folder / "model", folder / "tokenizer")
    normal, stamps, known = normal_of(1, 40, 4)
    wanted = official_paths(
        (network, tokenizer), normal, stamps, 4, top_k=1, top_p=1.0, sample_count=1
    )
    found = loaded.program.sample(normal, stamps, known, torch.zeros(1, 1, 4, 2))
    torch.testing.assert_close(found[:, 0], wanted, rtol=0, atol=1e-5)
    assert loaded.card == CARDS["mini"]
    named = load_kronos(
        "mini", folder / "model" / "model.safetensors", folder / "tokenizer", samples=4
    )
    (folder / "model" / "tokenizer").symlink_to(folder / "tokenizer")
    assert load_kronos("mini", folder / "model").card == loaded.card
    assert named.card.name == "kronos-mini-paths=4"


def test_what_is_no_checkpoint_of_this_size_is_refused(checkpoint, tmp_path):
    folder = checkpoint[0]
    model, tokenizer = folder / "model", folder / "tokenizer"
    with pytest.raises(ForecastError, match="mini, small, base, not 'large'"):
        load_kronos("large")
    with pytest.raises(ForecastError, match="no weights at"):
        load_kronos("mini", tmp_path, tokenizer)
    with pytest.raises(ForecastError, match="24,741,376 parameters"):
        load_kronos("small", model, tokenizer)
    whole = (model / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ForecastError, match="damaged"):
        load_kronos("mini", tmp_path, tokenizer)
    (tmp_path / "model.safetensors").write_bytes(whole)
    with pytest.raises(ForecastError, match="lacks embed"):
        load_kronos("mini", model, tmp_path)
    with pytest.raises(ForecastError, match="it lacks d_in"):
        load_kronos("mini", model, model)
    for content in ("{", "[]", "{}", json.dumps({"d_model": 256, "n_heads": 3})):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ForecastError, match="of Kronos"):
            load_kronos("mini", tmp_path, tokenizer)


def test_weights_that_cannot_be_fetched_say_how_to_get_them(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("fastsim.forecast.hub._require_hub", lambda: None)
    monkeypatch.setattr("fastsim.forecast.hub.hf_hub_download", unreachable)
    with pytest.raises(ForecastError, match="hf download NeoQuasar/Kronos-small"):
        load_kronos()


def test_what_cannot_be_forecast_is_refused(model):
    bars, times = bars_of(2, 20), times_of(2, 20)
    for horizon in (0, WINDOW // 2 + 1):
        with pytest.raises(ForecastError, match="bars ahead"):
            model(bars, times, horizon=horizon)
    with pytest.raises(ForecastError, match="noise must be"):
        model(bars, times, horizon=4, noise=torch.rand(2, 3, 5, 2))
    for wrong in ({"paths": 0}, {"temperature": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ForecastError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_an_artefact_samples_what_its_model_does(tmp_path):
    model = random_kronos(CONFIG, TOKENIZER, seed=0, max_context=64, sampling=Sampling(paths=3))
    context = Context(bars_of(40, WINDOW), times_of(40, WINDOW))
    parity = export(model, tmp_path / "kronos.pt", windows=context, horizon=4, precision="float32")
    assert parity.against_float32 <= 1e-5
    artifact = load_artifact(tmp_path / "kronos.pt")
    eager = ModuleForecaster(model).forecast(context, 4).quantiles
    torch.testing.assert_close(artifact.forecast(context, 4).quantiles, eager, rtol=1e-5, atol=1e-5)
