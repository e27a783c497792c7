"""Values of indicators, against TA-Lib, pandas, and their definition in plain numpy."""

import math

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from sysquant.errors import ConfigError
from sysquant.features import (
    Bar,
    FeatureGraph,
    adx,
    atr,
    bollinger,
    diff,
    donchian,
    drawdown,
    ema,
    ewm_volatility,
    garman_klass,
    half_life,
    hurst,
    hysteresis,
    kama,
    keltner,
    lag,
    log,
    log_returns,
    macd,
    obv,
    parkinson,
    realised_volatility,
    returns,
    rolling_beta,
    rolling_correlation,
    rolling_covariance,
    rolling_max,
    rolling_median,
    rolling_min,
    rolling_quantile,
    rolling_rank,
    rolling_sum,
    rolling_vwap,
    rsi,
    sma,
    std,
    stochastic,
    volume_imbalance,
    vwap,
    wilder,
    wma,
    zscore,
)

bar = Bar()
NAN = np.nan
DAY = 86_400 * 10**9
every_span = pytest.mark.parametrize("span", [2, 3, 14, 50, 200])


def evaluate(expression, **columns):
    return FeatureGraph({"x": expression}).run(columns)["x"]


def random_bars(length=3000, seed=0):
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, length)))
    before = np.concatenate(([100.0], close[:-1]))
    return {
        "open": before,
        "high": np.maximum(before, close) * (1 + random.random(length) / 100),
        "low": np.minimum(before, close) / (1 + random.random(length) / 100),
        "close": close,
        "volume": random.lognormal(0, 1, length),
        "ts": 7 * 60 * 10**9 * (1 + np.arange(length)),
    }


BARS = random_bars()
OPEN, HIGH, LOW, PRICE, VOLUME, TS = (BARS[name] for name in BARS)
CLOSE = pd.Series(PRICE)
TYPICAL = (HIGH + LOW + PRICE) / 3


def agree(pairs):
    for expression, expected in pairs:
        value = evaluate(expression, **BARS)
        assert np.allclose(value, expected, rtol=1e-9, atol=1e-9, equal_nan=True), expression


def windows(values, span):
    # Every window of a column as a row; the first ones are not full, and NaN.
    padded = np.concatenate((np.full(span - 1, NAN), np.asarray(values, float)))
    return np.lib.stride_tricks.sliding_window_view(padded, span)


def seeded(values, span, alpha):
    # An exponential average that starts from the mean of the first `span` values there are.
    known = values.dropna()
    start = known.copy()
    start.iloc[: span - 1] = NAN
    start.iloc[span - 1] = known.iloc[:span].mean()
    return start.ewm(alpha=alpha, adjust=False).mean().reindex(values.index)


def exponential(values, span):
    return seeded(values, span, 2 / (span + 1))


@every_span
def test_averages_equal_ta_lib_and_pandas(span):
    changes = CLOSE.pct_change()
    agree([
        (ema(bar.close, span), talib.EMA(PRICE, span)),
        (ema(bar.close, span), exponential(CLOSE, span)),
        (wilder(bar.close, span), seeded(CLOSE, span, 1 / span)),
        (sma(bar.close, span), talib.SMA(PRICE, span)),
        (sma(bar.close, span), CLOSE.rolling(span).mean()),
        (wma(bar.close, span), talib.WMA(PRICE, span)),
        (kama(bar.close, span), talib.KAMA(PRICE, span)),
        (ewm_volatility(returns(bar.close), span), np.sqrt(exponential(changes**2, span))),
    ])  # fmt: skip


def test_kama_with_spans_of_its_own_follows_its_definition():
    span, fast, slow = 7, 3, 20
    average, expected = PRICE[span - 1], np.full(len(PRICE), NAN)
    for t in range(span, len(PRICE)):
        path = np.abs(np.diff(PRICE[t - span : t + 1])).sum()
        ratio = abs(PRICE[t] - PRICE[t - span]) / path
        average += (ratio * (2 / (fast + 1) - 2 / (slow + 1)) + 2 / (slow + 1)) ** 2 * (
            PRICE[t] - average
        )
        expected[t] = average
    agree([(kama(bar.close, span, fast, slow), expected)])
    still = evaluate(kama(bar.close, 3), close=np.full(9, 0.1))
    assert (still[3:] == 0.1).all()


@every_span
def test_windows_equal_ta_lib_and_pandas(span):
    window = CLOSE.rolling(span)
    agree([
        (std(bar.close, span, ddof=0), talib.STDDEV(PRICE, span)),
        (std(bar.close, span), window.std()),
        # window by window: the running sums of pandas lose digits that a small deviation shows
        (zscore(bar.close, span),
         window.apply(lambda w: (w[-1] - w.mean()) / w.std(ddof=1), raw=True)),
        (rolling_max(bar.close, span), talib.MAX(PRICE, span)),
        (rolling_min(bar.close, span), talib.MIN(PRICE, span)),
        (rolling_sum(bar.close, span), talib.SUM(PRICE, span)),
        (rolling_median(bar.close, span), window.median()),
        (rolling_quantile(bar.close, span, 0.3), window.quantile(0.3)),
        (rolling_quantile(bar.close, span, 0.9), window.quantile(0.9)),
        (rolling_quantile(bar.close, span, 0.0), window.min()),
        (rolling_quantile(bar.close, span, 1), window.max()),
        (rolling_rank(bar.close, span), window.rank(pct=True)),
    ])  # fmt: skip


@every_span
def test_changes_equal_ta_lib_and_pandas(span):
    agree([
        (lag(bar.close, span), CLOSE.shift(span)),
        (diff(bar.close, span), talib.MOM(PRICE, span)),
        (returns(bar.close, span), talib.ROCP(PRICE, span)),
        (log_returns(bar.close, span), np.log(CLOSE).diff(span)),
        (drawdown(bar.close), CLOSE / CLOSE.cummax() - 1),
        (drawdown(bar.close, span), CLOSE / CLOSE.rolling(span).max() - 1),
    ])  # fmt: skip


@every_span
def test_oscillators_equal_ta_lib(span):
    index, k, d = adx(bar, span), *talib.STOCH(HIGH, LOW, PRICE, span, 3, 0, 4, 0)
    ours = stochastic(bar, span, 3, 4)
    assert np.isfinite(evaluate(ours.k, **BARS)[span + 1 :]).all()  # TA-Lib begins k with d
    agree([
        (rsi(bar.close, span), talib.RSI(PRICE, span)),
        (atr(bar, span), talib.ATR(HIGH, LOW, PRICE, span)),
        (index.adx, talib.ADX(HIGH, LOW, PRICE, span)),
        (index.plus_di, talib.PLUS_DI(HIGH, LOW, PRICE, span)),
        (index.minus_di, talib.MINUS_DI(HIGH, LOW, PRICE, span)),
        (ours.k + 0 * ours.d, k),
        (ours.d, d),
    ])  # fmt: skip


def test_macd_equals_its_averages_and_ta_lib_once_their_start_is_forgotten():
    ours = macd(bar.close, 12, 26, 9)
    line = exponential(CLOSE, 12) - exponential(CLOSE, 26)
    signal = exponential(line, 9)
    agree([(ours.line, line), (ours.signal, signal), (ours.histogram, line - signal)])
    for expression, expected in zip(ours, talib.MACD(PRICE, 12, 26, 9), strict=True):
        value = evaluate(expression, **BARS)
        assert np.allclose(value[400:], expected[400:], rtol=1e-9, atol=1e-9)


@every_span
def test_bands_equal_ta_lib(span):
    upper, middle, lower = talib.BBANDS(PRICE, span, 2.5, 2.5)
    ours, channel, keltners = (
        bollinger(bar.close, span, 2.5),
        donchian(bar, span),
        keltner(bar, 9, span, 1.5),
    )
    reach = 1.5 * talib.ATR(HIGH, LOW, PRICE, span)
    highest, lowest = talib.MAX(HIGH, span), talib.MIN(LOW, span)
    spread = windows(PRICE, span).std(axis=1)
    agree([
        (ours.lower, lower), (ours.middle, middle), (ours.upper, upper),
        (ours.width, 5 * spread / middle),
        (ours.percent_b, 0.5 + (PRICE - windows(PRICE, span).mean(axis=1)) / (5 * spread)),
        (channel.lower, lowest), (channel.upper, highest),
        (channel.middle, (lowest + highest) / 2),
        (keltners.middle, talib.EMA(PRICE, 9)),
        (keltners.lower, talib.EMA(PRICE, 9) - reach),
        (keltners.upper, talib.EMA(PRICE, 9) + reach),
    ])  # fmt: skip


@every_span
def test_volatility_from_bars_follows_its_definition(span):
    change = np.log(PRICE[1:] / PRICE[:-1])
    squares = np.concatenate(([NAN], change**2))
    width, body = np.log(HIGH / LOW), np.log(PRICE / OPEN)
    per_bar = width**2 / 2 - (2 * np.log(2) - 1) * body**2
    agree([
        (realised_volatility(bar.close, span), np.sqrt(windows(squares, span).sum(axis=1))),
        (parkinson(bar, span), np.sqrt(windows(width**2, span).mean(axis=1) / (4 * np.log(2)))),
        (garman_klass(bar, span), np.sqrt(windows(per_bar, span).mean(axis=1))),
    ])  # fmt: skip


def test_volatility_of_a_walk_is_found_from_its_ranges():
    # Bars of 400 steps each: what is seen of a range falls short of it by a few hundredths.
    steps = np.random.default_rng(6).normal(0, 0.001, (2000, 400))
    path = np.cumsum(steps.ravel()).reshape(steps.shape)
    start = np.concatenate(([0.0], path[:-1, -1]))
    columns = {
        "open": np.exp(start),
        "high": np.exp(np.maximum(path.max(axis=1), start)),
        "low": np.exp(np.minimum(path.min(axis=1), start)),
        "close": np.exp(path[:, -1]),
    }
    for volatility in (parkinson(bar, 2000), garman_klass(bar, 2000)):
        assert evaluate(volatility, **columns)[-1] == pytest.approx(0.02, rel=0.06)
    whole = evaluate(realised_volatility(bar.close, 1999), **columns)[-1]
    assert whole == pytest.approx(0.02 * math.sqrt(1999), rel=0.06)


@every_span
def test_volume_follows_its_definitions(span):
    direction = np.concatenate(([NAN], np.sign(np.diff(PRICE))))
    total = windows(VOLUME, span).sum(axis=1)
    agree([
        (obv(bar), talib.OBV(PRICE, VOLUME)),
        (rolling_vwap(bar, span), windows(TYPICAL * VOLUME, span).sum(axis=1) / total),
        (volume_imbalance(bar, span), windows(direction * VOLUME, span).sum(axis=1) / total),
    ])  # fmt: skip


@pytest.mark.parametrize("hour", [0, 8.5, 24])
def test_vwap_begins_anew_with_the_first_bar_that_closes_after_the_reset(hour):
    # Labels on the right: what closes at the reset itself belongs to the session before.
    session = pd.Series(-((int(hour * DAY / 24) - TS) // DAY))
    money = pd.Series(TYPICAL * VOLUME).groupby(session).cumsum()
    assert session.nunique() > 10
    agree([(vwap(bar, hour), money / pd.Series(VOLUME).groupby(session).cumsum())])
    exact = {k: np.ones(3) for k in ("high", "low", "volume")}
    exact |= {"close": np.array([1.0, 4.0, 7.0]), "ts": np.array([DAY - 1e9, DAY, DAY + 1e9])}
    assert evaluate(vwap(bar), **exact).tolist() == [1.0, 1.5, 3.0]


def test_vwap_without_volume_is_no_price():
    quiet = BARS | {"volume": np.zeros(3000)}
    for expression in (vwap(bar), rolling_vwap(bar, 5), volume_imbalance(bar, 5)):
        assert np.isnan(evaluate(expression, **quiet)).all()


@every_span
def test_pairs_equal_numpy(span):
    x, y = windows(PRICE, span), windows(OPEN * HIGH, span)
    dx, dy = x - x.mean(axis=1)[:, None], y - y.mean(axis=1)[:, None]
    xx, yy, xy = ((a * b).sum(axis=1) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    other = bar.open * bar.high
    agree([
        (rolling_covariance(bar.close, other, span), xy / (span - 1)),
        (rolling_covariance(bar.close, other, span, ddof=0), xy / span),
        (rolling_correlation(bar.close, other, span), xy / np.sqrt(xx * yy)),
        (rolling_beta(other, bar.close, span), xy / xx),
        (rolling_beta(bar.close, other, span), xy / yy),
    ])  # fmt: skip


def test_what_does_not_move_has_no_correlation_and_a_line_has_all_of_it():
    still, moving = np.full(40, 0.1), np.arange(40.0)
    pair = rolling_correlation(bar.close, bar.open, 7)
    for one, other in ((still, moving), (moving, still), (still, still)):
        assert np.isnan(evaluate(pair, close=one, open=other)).all()
    for slope in (3.7, -0.3):
        value = evaluate(pair, close=moving, open=slope * moving + 1e9)[6:]
        assert np.allclose(value, np.sign(slope), rtol=1e-9) and (abs(value) <= 1).all()
        straight = evaluate(rolling_beta(bar.open, bar.close, 7), close=moving, open=slope * moving)
        assert np.allclose(straight[6:], slope, rtol=1e-12)


@pytest.mark.parametrize("span", [16, 40, 200])
def test_hurst_is_the_slope_of_changes_on_their_lags(span):
    lags = [n for n in (1, 2, 4, 8, 16, 32) if n <= span / 8]
    rows = windows(np.log(PRICE), span)[span - 1 :]
    squares = [((rows[:, n:] - rows[:, :-n]) ** 2).mean(axis=1) for n in lags]
    slope = np.polyfit(np.log(lags), np.log(squares), 1)[0]
    agree([(hurst(log(bar.close), span), np.concatenate((np.full(span - 1, NAN), slope / 2)))])


def test_hurst_tells_a_walk_from_what_trends_and_what_returns():
    noise = np.random.default_rng(3).normal(size=40_000)
    smooth = np.convolve(noise, np.ones(32), mode="same")
    cases = {"walk": np.cumsum(noise), "trend": np.cumsum(smooth), "level": noise}
    means = {k: np.nanmean(evaluate(hurst(bar.close, 256), close=x)) for k, x in cases.items()}
    assert means["walk"] == pytest.approx(0.487, abs=0.02)
    assert means["trend"] > 0.85 and means["level"] < 0.02


@pytest.mark.parametrize("span", [3, 14, 50, 200])
def test_half_life_is_that_of_a_regression(span):
    rows = windows(PRICE, span)[span - 1 :]
    level, change = rows[:, :-1], np.diff(rows, axis=1)
    level = level - level.mean(axis=1)[:, None]
    slope = (level * change).sum(axis=1) / (level * level).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.select([slope >= 0, slope <= -1], [np.inf, 0], -np.log(2) / np.log1p(slope))
    agree([(half_life(bar.close, span), np.concatenate((np.full(span - 1, NAN), expected)))])


def test_half_life_of_a_walk_is_short_by_the_bias_that_is_told():
    walk = np.cumsum(np.random.default_rng(8).normal(size=50_000))
    lives = evaluate(half_life(bar.close, 100), close=walk)[99::100]
    slopes = np.expm1(-np.log(2) / lives)
    assert slopes.mean() * 100 == pytest.approx(-5, abs=0.7)


def test_half_life_of_a_level_that_halves_every_ten_bars_is_ten():
    draw, keep = np.random.default_rng(4).normal(size=200_000), 0.5**0.1
    level = np.zeros(len(draw))
    for t in range(1, len(draw)):
        level[t] = keep * level[t - 1] + draw[t]
    assert evaluate(half_life(bar.close, 200_000), close=level)[-1] == pytest.approx(10, rel=0.05)
    halving = 64 * 0.5 ** np.arange(12)
    assert np.allclose(evaluate(half_life(bar.close, 5), close=halving)[4:], 1, rtol=1e-12)
    assert (evaluate(half_life(bar.close, 5), close=2.0 ** np.arange(9))[4:] == np.inf).all()
    assert (evaluate(half_life(bar.close, 5), close=np.arange(9) % 2 * 1.0)[4:] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.just(NAN), st.sampled_from([0.0, 1.0])), max_size=60
    ),
    span=st.integers(2, 12),
)
def test_windows_with_gaps_equal_pandas(values, span):
    series = pd.Series(values, dtype=float)
    frames = [series.iloc[max(0, i - span + 1) : i + 1] for i in range(len(series))]
    full = [f if len(f) == span and f.notna().all() else None for f in frames]
    for build, expected in [
        (sma, np.mean), (rolling_max, np.max), (rolling_min, np.min), (rolling_sum, np.sum),
        (std, lambda w: np.std(w, ddof=1)), (rolling_median, np.median),
        (lambda x, span: rolling_quantile(x, span, 0.2), lambda w: np.quantile(w, 0.2)),
        (rolling_rank, lambda w: pd.Series(w).rank(pct=True).iloc[-1]),
        (wma, lambda w: np.average(w, weights=range(1, span + 1))),
        (lambda x, span: rolling_covariance(x, x, span), lambda w: np.var(w, ddof=1)),
    ]:  # fmt: skip
        value = evaluate(build(bar.close, span), close=series.to_numpy())
        wanted = np.array([NAN if f is None else expected(f.to_numpy()) for f in full])
        assert np.allclose(value, wanted, rtol=1e-9, atol=1e-6, equal_nan=True)


def test_a_huge_value_leaves_no_rounding_behind():
    calm = np.random.default_rng(1).normal(0, 1, 500)
    shocked = calm.copy()
    shocked[200] = 1e18
    for build in (sma, std, zscore, wma, rolling_sum, rolling_median, own_correlation):
        expected = evaluate(build(bar.close, 20), close=calm)[240:]
        assert np.allclose(
            evaluate(build(bar.close, 20), close=shocked)[240:], expected, rtol=1e-12
        )


def own_correlation(x, span):
    # With what it was a bar ago: two inputs of one column.
    return rolling_correlation(x, lag(x), span)


def test_windows_do_not_drift_over_a_million_bars():
    # A tick of a thousandth on a level of a million, against long doubles over the last windows.
    draw = np.random.default_rng(2)
    close = 1e6 + draw.normal(0, 1e-3, 1_000_000)
    other = 1e6 + 0.5 * (close - 1e6) + draw.normal(0, 1e-3, 1_000_000)
    span, weights = 50, np.arange(1, 51, dtype=np.longdouble)
    features = {
        "sma": sma(bar.close, span), "sum": rolling_sum(bar.close, span),
        "wma": wma(bar.close, span), "std": std(bar.close, span),
        "covariance": rolling_covariance(bar.close, bar.open, span),
        "correlation": rolling_correlation(bar.close, bar.open, span),
        "beta": rolling_beta(bar.open, bar.close, span),
    }  # fmt: skip
    values = FeatureGraph(features).run({"close": close, "open": other})
    for end in range(len(close) - 60, len(close) + 1):
        x, y = (c[end - span : end].astype(np.longdouble) for c in (close, other))
        dx, dy = x - x.mean(), y - y.mean()
        levels = {"sma": x.mean(), "sum": x.sum(), "wma": (weights * x).sum() / weights.sum()}
        for name, expected in levels.items():
            assert values[name][end - 1] == pytest.approx(float(expected), rel=2e-15)
        moments = {
            "std": np.sqrt((dx * dx).sum() / (span - 1)),
            "covariance": (dx * dy).sum() / (span - 1),
            "correlation": (dx * dy).sum() / np.sqrt((dx * dx).sum() * (dy * dy).sum()),
            "beta": (dx * dy).sum() / (dx * dx).sum(),
        }
        for name, expected in moments.items():
            assert values[name][end - 1] == pytest.approx(float(expected), rel=1e-9)


def test_equal_values_have_no_deviation_and_no_zscore():
    close = np.full(50, 0.1)
    assert (evaluate(std(bar.close, 7), close=close)[6:] == 0.0).all()
    assert np.isnan(evaluate(zscore(bar.close, 7), close=close)).all()


def test_oscillators_are_neutral_where_nothing_moves():
    still = {"high": np.full(40, 7.0), "low": np.full(40, 7.0), "close": np.full(40, 7.0)}
    assert (evaluate(stochastic(bar, 5).d, **still)[8:] == 50.0).all()
    assert (evaluate(adx(bar, 5).adx, **still)[9:] == 0.0).all()
    assert np.isnan(evaluate(bollinger(bar.close, 5).percent_b, **still)).all()


def test_rsi_is_neutral_where_nothing_moves():
    assert (evaluate(rsi(bar.close, 5), close=np.full(20, 7.0))[5:] == 50.0).all()


def test_recursive_indicators_skip_leading_gaps():
    close = np.concatenate(([NAN] * 5, BARS["close"][:100]))
    value = evaluate(ema(bar.close, 10), close=close)
    assert value[5:].tobytes() == evaluate(ema(bar.close, 10), close=close[5:]).tobytes()
    assert np.isnan(value[:14]).all()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: ema(bar.close, 0), "span must be a whole number of bars >= 1, was 0"),
        (lambda: sma(bar.close, 2.5), "was 2.5"),  # pyright: ignore
        (lambda: std(bar.close, 1), ">= 2, was 1"),
        (lambda: lag(bar.close, -1), ">= 1, was -1"),
        (lambda: rsi(bar.close, True), "was True"),
        (lambda: ema(bar.close, NAN), "was nan"),  # pyright: ignore
        (lambda: rolling_quantile(bar.close, 5, 1.5), "q must be a number from 0 to 1, was 1.5"),
        (lambda: rolling_quantile(bar.close, 5, NAN), "was nan"),
        (lambda: bollinger(bar.close, 5, -1), "width must be a number >= 0, was -1"),
        (lambda: keltner(bar, 5, width=math.inf), "was inf"),
        (lambda: vwap(bar, 25), "reset_hour must be a number from 0 to 24, was 25"),
        (lambda: vwap(bar, "1h"), "was '1h'"),  # pyright: ignore
        (lambda: macd(bar.close, 26, 12), "fast must be below slow, were 26 and 12 bars"),
        (lambda: kama(bar.close, 5, 30, 2), "fast must not be above slow, were 30 and 2 bars"),
        (lambda: rolling_correlation(bar.close, bar.open, 1), "span must be .* >= 2, was 1"),
        (lambda: rolling_covariance(bar.close, bar.open, 2, 2), ">= 3, was 2"),
        (lambda: hurst(bar.close, 15), ">= 16, was 15"),
        (lambda: half_life(bar.close, 2), ">= 3, was 2"),
        (lambda: ewm_volatility(bar.close, 1), ">= 2, was 1"),
        (lambda: adx(bar, 1), ">= 2, was 1"),
        (lambda: stochastic(bar, 5, 0), "smooth must be .* >= 1, was 0"),
        (lambda: hysteresis(bar.close, 1, 2), "leave must not be above enter, were 2 and 1"),
        (lambda: hysteresis(bar.close, -1, -2, True), "enter must be >= 0 if two_sided, was -1"),
    ],
)
def test_a_span_that_cannot_be_meant_is_refused(build, text):
    with pytest.raises(ConfigError, match=text):
        build()
