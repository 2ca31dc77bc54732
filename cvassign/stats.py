# LLM-assisted: prompts P2, P8, P13, P14, P15, see report.md
"""Differences with their intervals: over seeds, over test images.

Two things make an accuracy uncertain: which images happened to be in the test set, and which random
numbers happened to start and order the training. An interval covers the one over which it is taken,
and no other, so each carries the name of what it is over.

Most runs have one seed. How much a seed matters is then known from other runs: `pooled` takes the
scatter within all groups of runs that have several, and is the one rule for what may be chance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, second minus first, with its 95 % interval."""

    mean: float  # percentage points
    low: float
    high: float
    n: int  # pairs
    over: str  # "seeds", "images", "photos", "classes"


@lru_cache
def t_quantile(p: float, df: int) -> float:
    """The p-quantile (0.5 < p < 1) of Student's t distribution with df degrees of freedom.

    By summing the density: scipy has it, but would be a dependency for one number.
    """
    if df < 1 or not 0.5 < p < 0.999:
        raise ValueError(f"expected df >= 1 and 0.5 < p < 0.999, got {df} and {p}")
    # With t = tan(a) √df the half line becomes 0 ... π/2, and the density cos(a)^(df-1).
    a = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(a) ** (df - 1)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(df) * np.tan(np.interp(2 * p - 1, area / area[-1], a)))


def _paired(first, second) -> np.ndarray:
    """second - first as float (n,); ValueError if they are not n >= 1 pairs."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        shapes = f"{first.shape}, {second.shape}"
        raise ValueError(f"expected two arrays (n,) of n >= 1 pairs, got {shapes}")
    return second - first


def paired_bootstrap(first, second, draws: int = 10_000, seed: int = 0) -> Difference:
    """Percentile bootstrap over test images.

    Args:
        first: (images,) 1 where the first model is right, else 0; or shares between 0 and 1.
        second: the same of the second model, on the same images.
    """
    values, counts = np.unique(_paired(first, second).round(12), return_counts=True)
    n = int(counts.sum())
    # Drawing n images with replacement and counting their values is a multinomial draw.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws)
    means = 100 * drawn @ values / n
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(100 * values @ counts / n), float(low), float(high), n, "images")


def clustered_bootstrap(
    first, second, clusters: Sequence, over: str, draws: int = 10_000, seed: int = 0
) -> Difference:
    """As `paired_bootstrap`, where pairs of one cluster are no independent samples: whole clusters
    are drawn. `over` says what they are; `n` of the result is how many there are."""
    d = _paired(first, second)
    _, of = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(of, d), np.bincount(of)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(draws, len(counts)))
    means = 100 * sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(100 * d.mean()), float(low), float(high), len(counts), over)


@dataclass(frozen=True)
class Noise:
    """What another seed alone does to an accuracy, from runs that differ in nothing else."""

    std: float  # of a single run, percentage points
    df: int  # degrees of freedom: runs minus groups

    def between(self, n: float, m: float = math.inf) -> float:
        """Half the 95 % interval of the difference of two means, of n runs and of m, in points: 1
        and 3 for a single run and a mean of three; n alone for a mean and a fixed number."""
        return self.half_width(1 / n + 1 / m)

    def half_width(self, variance: float) -> float:
        """Half the 95 % interval of a number whose variance is so many times that of one run."""
        return t_quantile((1 + LEVEL) / 2, self.df) * self.std * math.sqrt(variance)


def pooled(groups: Sequence[Sequence[float]]) -> Noise:
    """The noise of groups of runs: s² = Σ (x - mean of its group)² / (runs - groups).

    Pooling takes each group's scatter for the same, and gives far better intervals than three
    seeds alone: Student's t at 95 % is 4.30 with two degrees of freedom, 2.31 with eight.

    Args:
        groups: accuracies (percent) of runs that differ by their seed only; of one dataset and one
            length, as longer training scatters less. Single runs say nothing and are left out.
    """
    several = [np.asarray(g, dtype=float) for g in groups if len(g) > 1]
    if not several:
        raise ValueError(f"expected a group of two runs or more, got {len(groups)} groups of one")
    df = sum(len(g) - 1 for g in several)
    return Noise(math.sqrt(sum(((g - g.mean()) ** 2).sum() for g in several) / df), df)


def false_alarms(comparisons: int) -> float:
    """How many of so many comparisons fall outside their 95 % intervals by chance, on average."""
    return comparisons * (1 - LEVEL)


def mean_std(values: Sequence[float]) -> str:
    """ "91.20 ± 0.13", "91.20" of a single value, "–" of none."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return "–"
    text = f"{values.mean():.2f}"
    return text if len(values) == 1 else f"{text} ± {values.std(ddof=1):.2f}"


def interval(held: dict | Sequence[float], form: str = "+.2f") -> str:
    """ "−0.89 [−1.74, −0.05]", from a dict with mean, low and high, or from these three."""
    values = [held[k] for k in ("mean", "low", "high")] if isinstance(held, dict) else held
    mean, low, high = (format(v, form).replace("-", "−") for v in values)
    return f"{mean} [{low}, {high}]"
