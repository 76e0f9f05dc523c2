"""Randomness: distributions by their moments, streams by their independence, on NumPy and on torch."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from recgym.arrays import to_numpy
from recgym.rng import START, STEP, TASK, NumpyRng, TorchRng, beta, seed_of
from tests.registry import every_device, rng_on


def check_moments(draws: Any, mean: float, variance: float) -> None:
    """Mean and variance of independent draws within 4 standard errors (that of the variance from the 4th moment)."""
    values = to_numpy(draws).astype(np.float64).ravel()
    assert np.isfinite(values).all()
    count, centred = len(values), values - mean
    assert abs(centred.mean()) < 4 * math.sqrt(variance / count)
    spread = np.mean(centred**4) - np.mean(centred**2) ** 2
    assert abs(np.mean(centred**2) - variance) < 4 * math.sqrt(spread / count)


def full(rng: Any, value: float, count: int) -> Any:
    return rng.xp.full((count,), value, dtype=rng.xp.float32, device=rng.device)


# --- distributions ---------------------------------------------------------------------------------------------------
@every_device
def test_uniform_and_normal(device: str) -> None:
    rng = rng_on(device, 1)
    rng.rekey(STEP, 3)
    uniform, normal = rng.uniform((500, 400)), rng.normal((500, 400))
    assert str(uniform.dtype).endswith("float32") and str(normal.dtype).endswith("float32")
    assert tuple(uniform.shape) == tuple(normal.shape) == (500, 400)
    assert float(uniform.min()) >= 0.0 and float(uniform.max()) < 1.0
    check_moments(uniform, 1 / 2, 1 / 12)
    check_moments(normal, 0.0, 1.0)
    check_moments(to_numpy(normal) ** 3, 0.0, 15.0)  # not skewed: E x^6 = 15
    shares = np.histogram(to_numpy(uniform), bins=20, range=(0, 1))[0]
    assert np.sum((shares - 10_000) ** 2 / 10_000) < 43.8  # chi-square, 19 degrees of freedom: 1 in 1,000


@every_device
@pytest.mark.parametrize("rate", [0.02, 3.0, 250.0])
def test_poisson(device: str, rate: float) -> None:
    rng = rng_on(device, 2)
    rng.rekey(STEP, 0)
    draws = rng.poisson(full(rng, rate, 200_000))
    assert str(draws.dtype).endswith("int64")
    check_moments(draws, rate, rate)


@every_device
@pytest.mark.parametrize("count, probability", [(1, 0.3), (20, 0.02), (5_000, 0.4), (7, 0.0), (7, 1.0)])
def test_binomial(device: str, count: int, probability: float) -> None:
    rng = rng_on(device, 3)
    rng.rekey(STEP, 0)
    counts = rng.xp.full((200_000,), count, dtype=rng.xp.int64, device=rng.device)
    draws = rng.binomial(counts, full(rng, probability, 200_000))
    assert str(draws.dtype).endswith("int64")
    if probability in (0.0, 1.0):
        assert (to_numpy(draws) == count * probability).all()
    else:
        check_moments(draws, count * np.float32(probability), count * probability * (1 - probability))


@every_device
def test_binomial_broadcasts_probabilities(device: str) -> None:
    """One for each of the last axis of the counts: the draws of probabilities written out in full."""
    rng = rng_on(device, 3)
    counts = rng.xp.full((2_000, 3), 40, dtype=rng.xp.int64, device=rng.device)
    few = rng.xp.asarray([0.0, 0.3, 1.0], dtype=rng.xp.float32, device=rng.device)
    rng.rekey(STEP, 0)
    draws = rng.binomial(counts, few)
    rng.rekey(STEP, 0)
    np.testing.assert_array_equal(to_numpy(draws), to_numpy(rng.binomial(counts, rng.xp.broadcast_to(few, (2_000, 3)))))
    assert tuple(draws.shape) == (2_000, 3)
    check_moments(draws[:, 1], 40 * np.float32(0.3), 40 * 0.3 * 0.7)
    assert not to_numpy(draws[:, 0]).any() and (to_numpy(draws[:, 2]) == 40).all()


@every_device
@pytest.mark.parametrize("shape", [0.2, 1.0, 30.0])
def test_gamma(device: str, shape: float) -> None:
    rng = rng_on(device, 4)
    rng.rekey(STEP, 0)
    draws = rng.gamma(full(rng, shape, 200_000))
    assert str(draws.dtype).endswith("float32")
    check_moments(draws, shape, shape)


@every_device
@pytest.mark.parametrize("a, b", [(1.0, 1.0), (2.0, 5.0), (0.05, 0.1), (1.3, 250.0), (0.001, 0.002), (1.0, 0.5)])
def test_beta(device: str, a: float, b: float) -> None:
    """Closed-form moments, also where a float32 gamma would underflow to 0/0."""
    rng = rng_on(device, 5)
    rng.rekey(TASK, 0)
    draws = beta(rng, a, b, (400, 1000))
    assert tuple(draws.shape) == (400, 1000) and str(draws.dtype).endswith("float32")
    values = to_numpy(draws)
    assert np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0
    mean = a / (a + b)
    check_moments(draws, mean, mean * (1 - mean) / (a + b + 1))


# --- streams ---------------------------------------------------------------------------------------------------------
def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of uniforms, in standard errors: a defect of .01 is 4.5 of them at 200,000 pairs."""
    return float(np.mean((x - 0.5) * (y - 0.5)) * 12 * math.sqrt(x.size))


@every_device
def test_steps_rows_streams_and_seeds_are_independent(device: str) -> None:
    steps, rows = 2000, 100
    rng, other = rng_on(device, 6), rng_on(device, 7)
    streams = np.empty((3, steps, rows))
    foreign = np.empty((steps, rows))
    for step in range(steps):
        for stream in (TASK, START, STEP):
            rng.rekey(stream, step)
            streams[stream, step] = to_numpy(rng.uniform((rows,)))
        other.rekey(STEP, step)
        foreign[step] = to_numpy(other.uniform((rows,)))
    drawn = streams[STEP]
    for lag in (1, 2, 3, 4, 5):
        assert abs(correlation(drawn[lag:], drawn[:-lag])) < 4, f"{lag} steps apart"
        assert abs(correlation(drawn[:, lag:], drawn[:, :-lag])) < 4, f"{lag} rows apart"
        assert abs(correlation(drawn[lag:], streams[TASK][:-lag])) < 4, f"streams {lag} steps apart"
    for stream in (TASK, START):
        assert abs(correlation(drawn, streams[stream])) < 4
        check_moments(streams[stream], 1 / 2, 1 / 12)
    assert abs(correlation(drawn, foreign)) < 4
    # the first draw of each key alone: that is what a batch of one sees
    assert abs(correlation(drawn[1:, 0], drawn[:-1, 0])) < 4
    check_moments(drawn[:, 0], 1 / 2, 1 / 12)
    assert len(np.unique(streams)) > 0.98 * streams.size  # of 2^24 values, 600,000 draws repeat 1.8 %


@every_device
def test_branches_do_not_depend_on_what_was_drawn_before(device: str) -> None:
    rng = rng_on(device, 8)
    drawn = []
    for before in (0, 1, 1_000):
        rng.rekey(STEP, 5)
        rng.poisson(full(rng, 3.0, before))
        rng.branch(1)
        drawn.append(to_numpy(rng.uniform((100,))))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])


@every_device
def test_branches_are_independent_of_each_other_and_of_the_step(device: str) -> None:
    rng = rng_on(device, 9)
    drawn = np.empty((3, 2_000, 100))
    for step in range(2_000):
        rng.rekey(STEP, step)
        for branch in range(3):
            if branch:
                rng.branch(branch)
            drawn[branch, step] = to_numpy(rng.uniform((100,)))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(correlation(drawn[one], drawn[other])) < 4
        assert abs(correlation(drawn[one, 1:], drawn[other, :-1])) < 4
        assert abs(correlation(drawn[one, :-1], drawn[other, 1:])) < 4


@every_device
def test_rekeying_repeats_whatever_went_before(device: str) -> None:
    rng = rng_on(device, 8)

    def draws() -> list[np.ndarray]:
        rng.rekey(STEP, 12)
        odd = [rng.uniform((3,)), rng.normal((5,)), rng.gamma(full(rng, 0.4, 7)), rng.poisson(full(rng, 2.0, 3))]
        return [to_numpy(x) for x in [*odd, rng.uniform((1,)), rng.normal((2, 2))]]

    first = draws()
    rng.rekey(START, 12)
    rng.uniform((1,)), rng.normal((1,))  # leaves half a word of 64 bits behind
    for one, other in zip(draws(), first, strict=True):
        np.testing.assert_array_equal(one, other)
    again = copy.deepcopy(rng)
    rng.seed(9)
    assert not np.array_equal(draws()[0], first[0])
    rng.key = again.key
    np.testing.assert_array_equal(draws()[0], first[0])
    rng.seed(8)
    np.testing.assert_array_equal(draws()[5], first[5])


@every_device
def test_seeds(device: str) -> None:
    def draw(seed: Any) -> np.ndarray:
        rng = rng_on(device, seed)
        rng.rekey(TASK, 0)
        return to_numpy(rng.uniform((8,)))

    np.testing.assert_array_equal(draw([3, 4]), draw((3, 4)))
    np.testing.assert_array_equal(draw(2_000_000), draw(np.int64(2_000_000)))
    several = [draw(seed) for seed in (0, 1, 2, [0, 1], [1, 0, 1], [3, 4], [4, 3], 2**70, None, None)]
    assert len(np.unique(several, axis=0)) == len(several)


@every_device
@pytest.mark.parametrize("one, other", [(157_670, 463_490)])
def test_seeds_that_agree_in_32_bits_of_the_key_are_different_environments(device: str, one: int, other: int) -> None:
    rng, again = rng_on(device, one), rng_on(device, other)
    mask = 2**32 - 1
    assert int(rng.key[0]) & mask == int(again.key[0]) & mask  # all that torch's generator for the CPU looks at
    for stream in (TASK, START, STEP):
        rng.rekey(stream, 0), again.rekey(stream, 0)
        assert not np.array_equal(to_numpy(rng.uniform((4,))), to_numpy(again.uniform((4,))))


def test_torch_on_the_cpu_draws_what_numpy_draws() -> None:
    pytest.importorskip("torch")
    rngs = NumpyRng(3), TorchRng(3)
    for rng in rngs:
        rng.rekey(STEP, 5)
    rate, probability = (full(rngs[0], value, 9) for value in (40.0, 0.3))
    for name, values in (
        ("uniform", [(2, 3)]), ("normal", [(5,)]), ("gamma", [rate]), ("poisson", [rate]),
        ("binomial", [np.arange(9), probability]),
    ):  # fmt: skip
        ours, theirs = (
            getattr(rng, name)(*(value if isinstance(value, tuple) else rng.xp.asarray(value) for value in values))
            for rng in rngs
        )
        np.testing.assert_array_equal(ours, to_numpy(theirs))


def test_every_bit_of_a_key_counts_in_64() -> None:
    """What a GPU's generator is seeded with."""
    key = np.random.SeedSequence(5).generate_state(2, np.uint64).view(np.int64)
    seeds = {seed_of(key, stream, step) for step in range(33_334) for stream in (TASK, START, STEP)}
    assert len(seeds) == 3 * 33_334 and min(seeds) >= 0 and max(seeds) < 2**64
    branches = {seed_of(key, STEP, step, branch) for step in range(1_000) for branch in range(1, 30)}
    assert len(branches | seeds) == len(seeds) + 29_000
    plain = seed_of(key, STEP, 9)
    flips = [(word, bit) for word in range(2) for bit in range(64)]
    changed = []
    for word, bit in flips:
        other = key.view(np.uint64).copy()
        other[word] ^= np.uint64(1 << bit)
        changed.append(seed_of(other.view(np.int64), STEP, 9))
    assert len({plain, *changed}) == 129
    distances = [(plain ^ seed).bit_count() for seed in changed]
    assert abs(np.mean(distances) - 32) < 4 * 4 / math.sqrt(
        128
    )  # half of the bits, each with its coin: 4 standard errors


@pytest.mark.slow
def test_all_training_seeds_are_different_environments() -> None:
    keys = [np.random.SeedSequence(seed).generate_state(2, np.uint64).view(np.int64) for seed in range(1_000_000)]
    assert len({key.tobytes() for key in keys}) == len({seed_of(key, TASK, 0) for key in keys}) == 1_000_000


def test_numpy_keys_set_the_counter() -> None:
    """Two keys share no numbers, however many are drawn from one: stream and step are the counter's upper words."""
    rng = NumpyRng(1)
    rng.rekey(STEP, 5)
    counter = rng._generator.bit_generator.state["state"]["counter"]
    assert counter.tolist() == [0, 0, 5, STEP]
    assert rng.key.shape == (2,) and rng.key.dtype == np.int64
