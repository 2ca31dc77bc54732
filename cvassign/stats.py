# LLM-assisted: prompts P2, P8, P13, P14, P15, see report.md
"""Differences with their 95 % intervals: over seeds, over test images.

An accuracy depends on the images of the test set and on the random numbers of the training. An
interval covers the one over which it is taken, and no other, so it carries the name of that. Most
runs have one seed: how much a seed matters is known from all those that have several (`pooled`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev

import numpy as np


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, second minus first, with its 95 % interval."""

    mean: float  # percentage points
    low: float
    high: float
    n: int  # pairs
    over: str  # "seeds", "images", "photos", "classes"


@lru_cache
def t_quantile(df: int, comparisons: int = 1) -> float:
    """What |t| with df >= 1 degrees of freedom passes in 5 % of cases (Student), or by Bonferroni's
    rule any of several comparisons at most."""
    # By summing the density: scipy would be a dependency for this one number.
    # With t = tan(a) √df the half line becomes 0 ... π/2, and the density cos(a)^(df-1).
    a = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(a) ** (df - 1)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(df) * np.tan(np.interp(1 - 0.05 / comparisons, area / area[-1], a)))


def _paired(first, second) -> np.ndarray:
    """second - first as float (n,); ValueError if they are not n >= 1 pairs."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected arrays (n,) of n >= 1 pairs, got {first.shape}, {second.shape}")
    return second - first


def _percentiles(mean: float, means: np.ndarray, n: int, over: str) -> Difference:
    """A mean (points) with the percentile interval of the means of bootstrap draws."""
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(mean), float(low), float(high), n, over)


def paired_bootstrap(first, second, draws: int = 10_000, seed: int = 0) -> Difference:
    """Percentile bootstrap over test images, of which `first` and `second` say whether two models
    are right: (images,) 1 or 0, or shares between."""
    values, counts = np.unique(_paired(first, second).round(12), return_counts=True)
    n = int(counts.sum())
    # Drawing n images with replacement and counting their values is a multinomial draw.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=draws)
    return _percentiles(100 * values @ counts / n, 100 * drawn @ values / n, n, "images")


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
    return _percentiles(100 * d.mean(), means, len(counts), over)


@dataclass(frozen=True)
class Noise:
    """What another seed alone does to an accuracy, from runs that differ in nothing else."""

    std: float  # of a single run, percentage points
    df: int  # degrees of freedom: runs minus groups

    def between(self, n: float, m: float = math.inf, comparisons: int = 1) -> float:
        """Half the 95 % interval of the difference of two means, of n runs and of m, in points; n
        alone for a mean and a fixed number. Of several comparisons all intervals hold at 95 %."""
        return t_quantile(self.df, comparisons) * self.std * math.sqrt(1 / n + 1 / m)


def pooled(groups: Sequence[Sequence[float]]) -> Noise:
    """The noise of accuracies (percent) in groups that differ by their seed only, of one dataset
    and one length: s² = Σ (x - mean of its group)² / (runs - groups), without single runs. To take
    their scatter for the same gives far better intervals than three seeds alone: Student's t at
    95 % is 4.30 with two degrees of freedom, 2.31 with eight."""
    several = [np.asarray(g, dtype=float) for g in groups if len(g) > 1]
    if not several:
        raise ValueError(f"expected a group of two runs or more, got {len(groups)} groups of one")
    df = sum(len(g) - 1 for g in several)
    return Noise(math.sqrt(sum(((g - g.mean()) ** 2).sum() for g in several) / df), df)


def mean_std(values: Sequence[float]) -> str:
    """ "91.20 ± 0.13", "91.20" of a single value, "–" of none."""
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation}" if values else "–"


def interval(held: dict | Sequence[float], form: str = "+.2f") -> str:
    """ "−0.89 [−1.74, −0.05]", from a dict with mean, low and high, or from these three."""
    values = [held[k] for k in ("mean", "low", "high")] if isinstance(held, dict) else held
    mean, low, high = (format(v, form).replace("-", "−") for v in values)
    return f"{mean} [{low}, {high}]"
