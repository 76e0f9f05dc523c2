"""Randomness, the one thing that the array API leaves out: streams keyed by (seed, stream, step)."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from recgym.arrays import NUMPY, Array, Rng, Seed, clip

__all__ = ["START", "STEP", "TASK", "NumpyRng", "TorchRng", "beta", "check_gpu", "make_rng", "seed_of"]

WORD = 2**64 - 1
TASK, START, STEP = range(3)  # the streams of one seed: which task, how it starts, what happens in it


class NumpyRng:
    """Philox keyed by (seed, stream, step): re-keying sets its counter, which costs about a microsecond."""

    xp = NUMPY
    device = "cpu"

    def __init__(self, seed: Seed = None) -> None:
        self.seed(seed)

    def seed(self, seed: Seed) -> None:
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        self._state = self._generator.bit_generator.state

    @property
    def key(self) -> np.ndarray:
        """The seed as it is kept in checkpoints: int64 [2]."""
        return np.asarray(self._state["state"]["key"]).view(np.int64)

    @key.setter
    def key(self, key: np.ndarray) -> None:
        self._state["state"]["key"] = np.asarray(key, dtype=np.int64).view(np.uint64)

    def rekey(self, stream: int, step: int) -> None:
        self._state["state"]["counter"][:] = (0, 0, step, stream)
        self._generator.bit_generator.state = self._state

    def branch(self, number: int) -> None:
        """Go to branch `number` >= 1 of the step: far from whatever was drawn in it so far."""
        self._state["state"]["counter"][1] = number
        self._generator.bit_generator.state = self._state

    def uniform(self, shape: tuple[int, ...]) -> Array:
        return self._generator.random(shape, dtype=np.float32)

    def normal(self, shape: tuple[int, ...]) -> Array:
        return self._generator.standard_normal(shape, dtype=np.float32)

    # One count alone is drawn as a number: the same draw, at a fifth of what NumPy takes to check arrays.
    def poisson(self, rate: Array) -> Array:
        if rate.size == 1:
            return np.asarray(self._generator.poisson(rate.item())).reshape(rate.shape)
        return self._generator.poisson(rate)

    def binomial(self, count: Array, probability: Array) -> Array:
        if count.size == probability.size == 1:
            return np.asarray(self._generator.binomial(count.item(), probability.item())).reshape(count.shape)
        return self._generator.binomial(count, probability)

    def gamma(self, shape: Array) -> Array:
        return self._generator.standard_gamma(shape, dtype=np.float32)


class TorchRng:
    """Tensors on `device`: on the CPU the streams of `NumpyRng`, on a GPU those of one generator, reseeded each time.

    torch's generator for the CPU takes 32 bits of a seed, so that different keys would be the same stream.
    """

    def __init__(self, seed: Seed = None, *, device: Any = "cpu") -> None:
        import torch

        self._torch = torch
        self.xp = array_api_compat.array_namespace(torch.empty(0))
        try:
            self.device = torch.device(device)
        except (RuntimeError, TypeError):
            raise ValueError(f"device {device!r} is not known; use 'cpu', 'torch', 'cuda' or 'cuda:N'") from None
        check_gpu(self.device)
        self._host = NumpyRng(seed)  # keeps the key, and draws where the device is the CPU
        self._place = 0, 0  # stream and step
        self._generator = None if self.device.type == "cpu" else torch.Generator(self.device)

    def seed(self, seed: Seed) -> None:
        self._host.seed(seed)

    @property
    def key(self) -> np.ndarray:
        """The seed as it is kept in checkpoints: int64 [2]."""
        return self._host.key

    @key.setter
    def key(self, key: np.ndarray) -> None:
        self._host.key = key

    def __getstate__(self) -> dict[str, Any]:  # neither a module nor a generator can be pickled
        return {"device": str(self.device), "key": self.key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        TorchRng.__init__(self, device=state["device"])
        self.key = state["key"]

    def rekey(self, stream: int, step: int) -> None:
        if self._generator is None:
            self._host.rekey(stream, step)
        else:
            self._place = stream, step
            self._generator.manual_seed(seed_of(self.key, stream, step))

    def branch(self, number: int) -> None:
        """Go to branch `number` >= 1 of the step: far from whatever was drawn in it so far."""
        if self._generator is None:
            self._host.branch(number)
        else:
            self._generator.manual_seed(seed_of(self.key, *self._place, number))

    def uniform(self, shape: tuple[int, ...]) -> Array:
        if self._generator is None:
            return self._torch.from_numpy(self._host.uniform(shape))
        return self._torch.rand(shape, generator=self._generator, device=self.device)

    def normal(self, shape: tuple[int, ...]) -> Array:
        if self._generator is None:
            return self._torch.from_numpy(self._host.normal(shape))
        return self._torch.randn(shape, generator=self._generator, device=self.device)

    def poisson(self, rate: Array) -> Array:
        if self._generator is None:
            return self._torch.from_numpy(self._host.poisson(rate.numpy()))
        return self._torch.poisson(rate, generator=self._generator).to(self._torch.int64)

    def binomial(self, count: Array, probability: Array) -> Array:
        if self._generator is None:
            return self._torch.from_numpy(self._host.binomial(count.numpy(), probability.numpy()))
        probability = probability.expand(count.shape)
        drawn = self._torch.binomial(count.to(probability.dtype), probability, generator=self._generator)
        return drawn.to(self._torch.int64)

    def gamma(self, shape: Array) -> Array:
        if self._generator is None:
            return self._torch.from_numpy(self._host.gamma(shape.numpy()))
        return self._torch._standard_gamma(shape, generator=self._generator)


def seed_of(key: np.ndarray, stream: int, step: int, *branch: int) -> int:
    """64 bits for a generator that takes a seed alone: every bit of the key counts, and (stream, step) stay apart.

    The finaliser of SplitMix64 (Steele, Lea & Flood 2014) is a bijection, so that all seeds of one key are different.
    """
    mixed = 0
    for part in (*(int(word) & WORD for word in key), 4 * step + stream, *branch):
        mixed = (mixed + part * 0x9E3779B97F4A7C15) & WORD
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & WORD
        mixed ^= mixed >> 31
    return mixed


def check_gpu(device: Any) -> None:
    """Refuse a GPU that is not here.

    Args:
        device: a `torch.device`.

    Raises:
        ValueError: names it, and says what torch finds.
    """
    import torch

    if device.type == "cuda" and (device.index or 0) >= (found := torch.cuda.device_count()):
        gpus = f"{found} GPU(s)" if found else "no GPU"
        raise ValueError(f"device {str(device)!r}: torch {torch.__version__} finds {gpus} here; use device='cpu'")


def make_rng(device: Any = "cpu", seed: Seed = None) -> Any:
    """The randomness, and with it the array library, of an environment.

    Args:
        device: "cpu" for NumPy arrays, "torch" for torch on the CPU, "cuda" or "cuda:N" for a GPU, or a `torch.device`.
        seed: int, or ints that `numpy.random.SeedSequence` folds into one; None draws from the system.

    Raises:
        ValueError: there is no such device here.
    """
    if device == "cpu" and isinstance(device, str):
        return NumpyRng(seed)
    if isinstance(device, str) and device != "torch" and device.split(":")[0] != "cuda":
        raise ValueError(f"device {device!r} is not known; use 'cpu' (NumPy), 'torch' (torch on the CPU) or 'cuda'")
    return TorchRng(seed, device="cpu" if isinstance(device, str) and device == "torch" else device)


def beta(rng: Rng, a: float, b: float, shape: tuple[int, ...]) -> Array:
    """Beta(a, b) draws of `shape`, by two gammas in log space: G_a = G_{a+1} U^{1/a} (Marsaglia & Tsang 2000, sec. 6).

    Plain float32 gammas underflow to 0/0 for shapes below about .1; their logarithms do not.
    """
    xp = rng.xp
    if a == b == 1.0:  # the uniform distribution, at a tenth of the cost
        return rng.uniform(shape)

    def log_gamma_draw(value: float) -> Array:
        larger = rng.gamma(xp.full(shape, value + 1.0, dtype=xp.float32, device=rng.device))
        return xp.log(larger) + xp.log(1.0 - rng.uniform(shape)) / value  # 1 - uniform is in (0, 1]

    return 1.0 / (1.0 + xp.exp(clip(log_gamma_draw(b) - log_gamma_draw(a), -80.0, 80.0)))
