"""TiRex against the official package, on the same random weights in the official file format."""

import dataclasses
import importlib
import math
import warnings

import pytest
import torch

from fastsim.errors import ConfigError, ForecastError
from fastsim.forecast.interface import Context, ModuleForecaster
from fastsim.forecast.models.tirex import CARD, TiRexConfig, TiRexModel, load_tirex, read_checkpoint

SMALL = TiRexConfig(
    blocks=2, width=32, heads=2, block_hidden=128, embedding_hidden=48, patch=32, context=256
)
LENGTHS = (1, 20, 32, 100, 250, 256, 300)
HORIZONS = (1, 32, 64, 100)
TOLERANCE = 1e-4
"""Of the deviation of the series, or of what TiRex scales by where it has none."""


def walks(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100.0 + torch.randn(batch, length, generator=generator).cumsum(1)


def with_gaps(closes: torch.Tensor) -> torch.Tensor:
    """First row whole; then a short past, a lost week, scattered holes, one close, none at all."""
    closes, length = closes.clone(), closes.shape[1]
    closes[1, : length // 2] = torch.nan
    closes[2, length // 3 : length // 3 + 40] = torch.nan
    closes[3, ::3] = torch.nan
    closes[4, :-1] = torch.nan
    closes[5] = torch.nan
    return closes


def settings_of(config: TiRexConfig) -> dict:
    return {
        "model_config": {
            "input_patch_size": config.patch,
            "output_patch_size": config.patch,
            "quantiles": list(config.levels),
            "input_ff_dim": config.embedding_hidden,
            "block_kwargs": {
                "num_blocks": config.blocks,
                "embedding_dim": config.width,
                "num_heads": config.heads,
            },
        },
        "train_ctx_len": config.context,
    }


def save_checkpoint(model: TiRexModel, path) -> None:
    state = {
        name.replace("blocks.", "block_stack.blocks."): weight
        for name, weight in model.state_dict().items()
    }
    torch.save({"hyper_parameters": settings_of(model.config), "state_dict": state}, path)


def load_official(path, *, pad: bool):
    """The official network with its cell in float32 and, without `pad`, its window not filled."""
    package = importlib.import_module("tirex.models.tirex")
    official = package.TiRexZero.from_pretrained(str(path), backend="torch", device="cpu")
    for block in official.blocks:
        cell = block.slstm_layer.slstm_cell
        cell._impl_torch = lambda inputs, state, cell=cell: cell._impl_forward_torch(
            inputs.reshape(*inputs.shape[:2], -1),
            state,
            cell._recurrent_kernel_,
            cell._bias_.reshape(cell.config.num_heads, 4, -1).transpose(0, 1).reshape(-1),
        )
    if not pad:
        adjust, patch = official._adjust_context_length, official.config.input_patch_size
        official._adjust_context_length = lambda context, least, most: adjust(
            context, min(most, -(-context.shape[1] // patch) * patch), most
        )
    return official


def official_quantiles(official, closes: torch.Tensor, horizon: int) -> torch.Tensor:
    return official._forecast_quantiles(closes, prediction_length=horizon)[0]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, closes: torch.Tensor) -> None:
    mean = closes.nanmean(1, keepdim=True)
    deviation = (closes - mean).square().nanmean(1).sqrt()
    deviation = torch.where(deviation == 0, mean[:, 0].abs(), deviation)  # one close
    deviation = deviation.nan_to_num(nan=1.0)  # none
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    assert ours.isfinite().all()
    error = (ours - theirs).abs().amax((1, 2)) / deviation
    assert error.max() < TOLERANCE, f"errors in deviations: {error.tolist()}"


def trace(model: TiRexModel, example: torch.Tensor, horizon: int):
    class AtHorizon(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, closes):
            return self.model(closes, horizon=horizon)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.trace.*", DeprecationWarning)
        return torch.jit.trace(AtHorizon().eval(), example, check_trace=False)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["pad", "no-pad"])
def pair(request, tmp_path_factory):
    """Our network and the official one, each read from the same file."""
    path = tmp_path_factory.mktemp("tirex") / "model.ckpt"
    save_checkpoint(TiRexModel.random(SMALL, seed=1), path)
    return read_checkpoint(path, pad=request.param), load_official(path, pad=request.param)


@pytest.fixture(params=[True, False], ids=["pad", "no-pad"])
def small(request):
    return TiRexModel.random(SMALL, seed=1, pad=request.param)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("horizon", HORIZONS)
def test_quantiles_are_the_official_ones(pair, length, horizon):
    ours, official = pair
    closes = walks(4, length)
    expected = official_quantiles(official, closes, horizon)
    assert_close(ours(closes, horizon=horizon), expected, closes)


@pytest.mark.parametrize("length", [100, 256])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_missing_closes_are_read_as_the_official_package_reads_them(pair, length, horizon):
    ours, official = pair
    closes = with_gaps(walks(6, length))
    expected = official_quantiles(official, closes, horizon)
    assert_close(ours(closes, horizon=horizon), expected, closes)


@pytest.mark.long
@pytest.mark.parametrize("length", [32, 100, 256])
def test_the_embedding_is_the_mean_of_the_official_states_of_the_last_block(pair, length):
    ours, official = pair
    if not ours.pad:
        return  # officially the window is always filled
    closes = walks(4, length)
    patches = math.ceil(length / 32)
    states = official.out_norm(official._embed_context(closes)[:, -patches:, -1])
    torch.testing.assert_close(ours.hidden_state(closes), states.mean(1), rtol=1e-3, atol=1e-4)


def test_full_size_is_the_official_one_and_loads_by_its_name(tmp_path):
    model = TiRexModel.random(TiRexConfig(), seed=0)
    save_checkpoint(model, tmp_path / "model.ckpt")
    closes = walks(2, 500)
    expected = official_quantiles(load_official(tmp_path / "model.ckpt", pad=True), closes, 64)
    loaded = load_tirex(tmp_path)
    assert loaded.card == CARD
    assert_close(loaded(closes, horizon=64), expected, closes)


def test_the_last_patch_of_the_window_can_be_forecast_from(pair):
    ours, official = pair
    closes, horizon = walks(2, SMALL.context), ours.card.max_horizon
    assert horizon == SMALL.context
    expected = official_quantiles(official, closes, horizon)
    assert_close(ours(closes, horizon=horizon), expected, closes)


def test_padding_on_the_left_is_the_same_as_a_short_context():
    model, closes = TiRexModel.random(SMALL, seed=1), walks(3, 70)
    padded = torch.nn.functional.pad(closes, (100, 0), value=torch.nan)
    assert_close(model(padded, horizon=64), model(closes, horizon=64), closes)


def test_a_full_window_needs_no_padding():
    padded = TiRexModel.random(SMALL, seed=1)
    bare = TiRexModel.random(SMALL, seed=1, pad=False)
    closes = walks(3, 300)
    assert torch.equal(padded(closes, horizon=100), bare(closes, horizon=100))
    short = closes[:, -100:]
    assert not torch.allclose(padded(short, horizon=1), bare(short, horizon=1), atol=1e-2)


def test_other_weights_bring_other_padding():
    one, two = TiRexModel.random(SMALL, seed=1), TiRexModel.random(SMALL, seed=2)
    torch.nn.ModuleList([one]).load_state_dict(torch.nn.ModuleList([two]).state_dict())
    closes = walks(3, 50)
    assert torch.equal(one(closes, horizon=64), two(closes, horizon=64))


def test_forecasts_without_padding_have_a_key_of_their_own():
    keys = {
        ModuleForecaster(TiRexModel.random(SMALL, seed=1, pad=pad), revision="r").key
        for pad in (True, False)
    }
    assert {key.partition("#")[0] for key in keys} == {
        "tirex@r/float32",
        "tirex-unpadded@r/float32",
    }


def test_a_row_alone_equals_its_row_in_the_batch(small):
    closes = walks(33, 100)
    together = small(closes, horizon=64)
    alone = torch.cat([small(row[None], horizon=64) for row in closes])
    assert_close(together, alone, closes)


@pytest.mark.parametrize("horizon", [1, 100])
def test_the_trace_equals_eager_at_any_batch(small, horizon):
    traced = trace(small, walks(3, 100), horizon)
    for batch in (1, 2, 7, 33):
        closes = walks(batch, 100, seed=batch)
        closes[0, :40] = torch.nan
        assert_close(traced(closes), small(closes, horizon=horizon), closes)


def test_the_trace_refuses_another_context_length(small):
    traced = trace(small, walks(3, 100), 1)
    with pytest.raises(RuntimeError):
        traced(walks(3, 200))


def test_the_trace_does_not_unroll_time(small):
    sizes = [len(str(trace(small, walks(2, length), 1).inlined_graph)) for length in (64, 256)]
    assert sizes[1] < 1.2 * sizes[0]


def test_no_device_is_baked_in(small):
    closes = walks(2, 100)
    traced = trace(small, closes, 64).to("meta")
    assert traced(closes.to("meta")).device.type == "meta"
    assert small.to("meta")(closes.to("meta"), horizon=64).shape == (2, 64, 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scales_in_float32(small, dtype):
    closes = walks(4, 100) + 97_000.0
    exact = small(closes, horizon=64)
    coarse = small.to(dtype)(closes, horizon=64)
    assert coarse.dtype == torch.float32
    assert {buffer.dtype for buffer in small.buffers()} == {dtype, torch.float32}
    assert (coarse - exact).abs().max() < 0.2 * closes.std(1).max()


@pytest.mark.parametrize("price", [1e-8, 1e-4, 1e4, 1e8])
def test_forecasts_scale_and_shift_with_the_price(small, price):
    shape = walks(3, 100) / 100.0  # moves of some per cent around 1
    expected = small(shape, horizon=64).double() * price
    got = small(shape * price, horizon=64).double()
    assert ((got - expected).abs().amax((1, 2)) < TOLERANCE * price * shape.std(1)).all()
    shifted = small(shape + 2.0, horizon=64) - 2.0
    assert ((shifted - small(shape, horizon=64)).abs().amax((1, 2)) < 1e-3 * shape.std(1)).all()


def test_a_price_that_never_moves_is_forecast_near_itself(small):
    forecast = small(torch.full((1, 96), 64.0), horizon=1)
    assert forecast.isfinite().all()


def test_it_stands_behind_the_forecaster(small):
    bars = walks(3, 300)[..., None].expand(-1, -1, 6)
    timestamps = torch.arange(300).expand(3, -1)
    forecast = ModuleForecaster(small).forecast(Context(bars, timestamps), 40)
    assert forecast.quantiles.shape == (3, 40, 9)
    assert (forecast.quantiles.diff(dim=-1) >= 0).all()


def test_equal_seeds_give_equal_weights_and_touch_no_global_one():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = TiRexModel.random(SMALL, 3), TiRexModel.random(SMALL, 3)
    other = TiRexModel.random(SMALL, 4)
    assert torch.equal(torch.get_rng_state(), before)
    closes = walks(2, 64)
    assert torch.equal(one(closes, horizon=3), two(closes, horizon=3))
    assert not torch.equal(one(closes, horizon=3), other(closes, horizon=3))


@pytest.mark.parametrize("horizon", [0, -1, 257])
def test_a_horizon_beyond_the_window_is_refused(small, horizon):
    with pytest.raises(ForecastError, match=f"1 to 256 bars ahead, not {horizon}"):
        small(walks(1, 64), horizon=horizon)


def one_line(caught: pytest.ExceptionInfo) -> bool:
    return "\n" not in str(caught.value)


def test_missing_weights_are_an_error(tmp_path):
    with pytest.raises(ForecastError, match=r"no weights at .*model.ckpt") as caught:
        load_tirex(tmp_path)
    assert one_line(caught)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_an_error(tmp_path, keep):
    path = tmp_path / "model.ckpt"
    save_checkpoint(TiRexModel.random(SMALL, seed=1), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(ForecastError, match=r"tirex: .*model.ckpt is damaged") as caught:
        load_tirex(path)
    assert one_line(caught)


def test_a_file_of_something_else_is_an_error(tmp_path):
    path = tmp_path / "model.ckpt"
    for content in (b"not a checkpoint\n" * 50, b"\x80\x02junk"):
        path.write_bytes(content)
        with pytest.raises(ForecastError, match="is damaged or no checkpoint") as caught:
            load_tirex(path)
        assert one_line(caught)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"hyper_parameters": SMALL, "state_dict": {}}, path)
    with pytest.raises(ForecastError, match="is damaged or no checkpoint"):
        load_tirex(path)


def alter_settings(checkpoint):
    checkpoint["hyper_parameters"]["model_config"]["block_kwargs"]["num_heads"] = 4


def drop_settings(checkpoint):
    del checkpoint["hyper_parameters"]


def alter_settings_type(checkpoint):
    checkpoint["hyper_parameters"]["model_config"]["block_kwargs"]["embedding_dim"] = "wide"


def drop_weight(checkpoint):
    del checkpoint["state_dict"]["out_norm.weight"]


def add_weight(checkpoint):
    checkpoint["state_dict"]["extra.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (alter_settings, "it is not this architecture"),
        (drop_settings, "is not this architecture .*hyper_parameters"),
        (alter_settings_type, "is not this architecture"),
        (drop_weight, "lacks out_norm.weight: it is not this architecture"),
        (add_weight, "has weights this architecture lacks, such as extra.weight"),
    ],
)
def test_another_architecture_is_an_error(tmp_path, alter, message):
    path = tmp_path / "model.ckpt"
    save_checkpoint(TiRexModel.random(SMALL, seed=1), path)
    checkpoint = torch.load(path, weights_only=True)
    alter(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(ForecastError, match=message) as caught:
        load_tirex(path)
    assert one_line(caught)


def test_a_checkpoint_that_is_no_dictionary_is_an_error(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "model.ckpt")
    with pytest.raises(ForecastError, match="is not this architecture"):
        load_tirex(tmp_path)


def test_a_network_of_another_size_is_not_tirex(tmp_path):
    model = TiRexModel.random(SMALL, seed=1)
    save_checkpoint(model, tmp_path / "model.ckpt")
    found = f"{model.card.parameters:,}"
    with pytest.raises(ForecastError, match=f"35,291,200 parameters, these weights have {found}"):
        load_tirex(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 0}, "blocks must be an int >= 1, got 0"),
        ({"heads": 3}, "width must be a multiple of heads 3, got 32"),
        ({"context": 100}, "context must be a multiple of patch 32, got 100"),
        ({"levels": (0.5, 0.1)}, "levels must increase"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **change)
