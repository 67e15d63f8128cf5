"""States that fill a space in a known way, and its measures from their definitions."""

import itertools

import numpy as np
from scipy.integrate import quad
from scipy.stats import ortho_group

OF_COVARIANCE = ["iso_score", "effective_rank", "participation_ratio"]


def gaussian(variances, n=200, seed=0, shift=1.0):
    """States with a known covariance, in directions that are no axes."""
    d = len(variances)
    rotation = ortho_group.rvs(d, random_state=0) if d > 1 else np.eye(1)
    x = np.random.default_rng(seed).normal(size=(n, d)) * np.sqrt(variances)
    return (x + shift * np.eye(d)[0]) @ rotation


def falling(d, decay):
    return np.arange(1, d + 1.0) ** -decay


def effective_rank(variances):
    p = variances[variances > 0] / variances.sum()
    return np.exp(-(p * np.log(p)).sum())


def participation_ratio(variances):
    return variances.sum() ** 2 / (variances**2).sum()


def iso_score(variances):
    """The seven steps of the paper, from the variances along the principal axes."""
    n = len(variances)
    normalised = np.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    share = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n**2
    return (n * share - 1) / (n - 1)


TRUE = {"iso_score": iso_score, "effective_rank": effective_rank, "participation_ratio": participation_ratio}


def sample_variances(x):
    return np.clip(np.linalg.eigvalsh(np.cov(x.T)), 0, None)


def mean_cosine(x, ids):
    pairs = [
        x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
        for i, j in itertools.combinations(range(len(x)), 2)
        if ids[i] != ids[j]
    ]
    return np.mean(pairs)


def two_nn(x):
    """Maximum likelihood of exponentials whose largest tenth is known only to be at least as large as the others."""
    ratios = []
    for i in range(len(x)):
        first, second = sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[:2]
        ratios.append(np.log(second / first))
    ratios = sorted(ratios)
    k = int(np.ceil(0.9 * len(ratios)))
    return (k - 1) / (sum(ratios[:k]) + (len(ratios) - k) * ratios[k - 1])


def ratio_of_distinct(x, ids):
    """The participation ratio from means over all choices of four rows of different sentences."""
    square_of, of_square = [], []
    for rows in itertools.permutations(range(len(x)), 4):
        if len({ids[r] for r in rows}) == 4:
            a, b = x[rows[0]] - x[rows[1]], x[rows[2]] - x[rows[3]]
            square_of.append((a @ a) * (b @ b) / 4)
            of_square.append((a @ b) ** 2 / 4)
    return np.mean(square_of) / np.mean(of_square)


def rank_by_quadrature(x):
    """exp of the integral of the degrees of freedom, with those of the sample at ridge w taken at w / (1 - f / n)."""
    n = len(x) - 1
    p = sample_variances(x) / sample_variances(x).sum()

    def f(w):
        return (p / (p + w)).sum()

    def integrand(log_w):
        w = np.exp(log_w)
        b = 1 - f(w) / n
        rise = 1 / b - w / b**2 * (p / (p + w) ** 2).sum() / n
        return (f(w) - 1 / (1 + w / b)) * rise * w

    return np.exp(quad(integrand, -25, 20, limit=500)[0])
