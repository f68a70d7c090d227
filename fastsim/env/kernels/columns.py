"""Where each number of an environment stands in the blocks of `fastsim.env.kernels.buffers`."""

# Rows of `MarketBlocks.moves`; the last two where episodes begin with more than cash.
R_BEFORE, R_AFTER, DOLLARS, IMPACT_SCALE, ENDOWMENT, START_RATE = range(6)
# Columns of `MarketBlocks.bars`.
YEARS, INTEREST, MARKET_RETURN, START_CASH, START_WEALTH = range(5)
NUM_BAR_COLUMNS = 5
# Columns of `State.money`.
CASH, PEAK, MEAN, SQUARE = range(4)
# Parts of `State.displaced`, as in `Displacement`.
TRANSIENT, RATE = range(2)
# Columns of `State.counters`.
BAR, END, NUMBER, INVALID, KEY = range(5)
# Columns of `MarketBlocks.friction`.
FEE, HALF_SPREAD, IMPACT, PARTICIPATION, BORROW = range(5)
# Columns of `Results.figures`.
(
    REWARD,
    WEALTH_BEFORE,
    WEALTH_AT_FILL,
    WEALTH_TRADED,
    WEALTH,
    TURNOVER,
    COMMISSION,
    SPREAD,
    IMPACT_COST,
    BORROWED,
    INTEREST_EARNED,
) = range(11)
NUM_FIGURES = 11
COST = slice(COMMISSION, IMPACT_COST + 1)
# Columns of `Results.flags`.
TERMINATED, TRUNCATED, RESTARTED, RUINED = range(4)
# Entries of `Rules.whole` and `Rules.real`.
(
    ACTION,
    REWARD_KIND,
    SAME_STEP,
    FLAT,
    FIRST,
    LAST,
    HORIZON,
    RANDOM_START,
    WORLDS,
    SPAN,
    SLOTS,
    ASSETS,
    PLAYERS,
    LIQUIDATES,
    TERMINATES,
) = range(15)
MAX_GROSS, INITIAL_CASH, ADAPTATION, DRAWDOWN_PENALTY, RETENTION, TRANSIENT_SHARE = range(6)
ACTION_CODES: dict[str, int] = {"weights": 0, "signed": 1, "logits": 2}
REWARD_CODES: dict[str, int] = {
    "log_growth": 0,
    "excess_log_growth": 1,
    "simple_return": 2,
    "differential_sharpe": 3,
    "drawdown_penalized_growth": 4,
}
