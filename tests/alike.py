"""Measures of similarity from their definitions, as slowly as they are written down."""

import numpy as np
from scipy.spatial.distance import pdist
from scipy.special import digamma
from scipy.stats import spearmanr


def hsic(k, l, debiased):  # noqa: E741
    n = len(k)
    if not debiased:
        h = np.eye(n) - 1 / n
        return np.trace(h @ k @ h @ l)
    k, l, one = k - np.diag(np.diag(k)), l - np.diag(np.diag(l)), np.ones(n)  # noqa: E741
    return np.trace(k @ l) + one @ k @ one * (one @ l @ one) / (n - 1) / (n - 2) - 2 * one @ k @ l @ one / (n - 2)


def cka(x, y, debiased=False):
    k, l = (z.astype(np.float64) @ z.astype(np.float64).T for z in (x, y))  # noqa: E741
    return hsic(k, l, debiased) / np.sqrt(hsic(k, k, debiased) * hsic(l, l, debiased))


def procrustes(x, y):
    x, y = (z - z.mean(axis=0) for z in (x, y))
    cosine = np.linalg.norm(x.T @ y, "nuc") / np.linalg.norm(x) / np.linalg.norm(y)
    return np.arccos(np.clip(cosine, -1, 1))


def canonical(x, y, weighted):
    main = []
    for z in (x, y):
        z = z - z.mean(axis=0)
        values, axes = np.linalg.eigh(z.T @ z)
        values, axes = values[::-1], axes[:, ::-1]
        kept = np.flatnonzero(np.cumsum(values) / values.sum() >= 0.99 - 1e-12)[0] + 1
        main.append(z @ axes[:, :kept])
    # By the eigenvectors of the product of projections, in place of a singular value decomposition.
    projections = [z @ np.linalg.pinv(z) for z in main]
    values, axes = np.linalg.eig(projections[0] @ projections[1])
    order = np.argsort(-values.real)[: min(z.shape[1] for z in main)]
    rho = np.sqrt(np.clip(values.real[order], 0, 1))
    if not weighted:
        return rho.mean()
    directions = axes[:, order].real
    directions /= np.linalg.norm(directions, axis=0)
    weight = np.abs(directions.T @ (x - x.mean(axis=0))).sum(axis=1)
    return rho @ weight / weight.sum()


def rsa(x, y):
    return spearmanr(pdist(x), pdist(y)).statistic


def neighbour_overlap(x, y):
    near = []
    for z in (x, y):
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        cosine = z @ z.T
        near.append(
            [
                set(sorted((j for j in range(len(z)) if j != i), key=lambda j: -row[j])[:10])
                for i, row in enumerate(cosine)
            ]
        )
    return np.mean([len(a & b) / 10 for a, b in zip(*near, strict=True)])


def mutual_information(x, y, k=3):
    """Kraskov's first estimator over the most it can be, one example and one distance at a time."""
    scores = []
    for z in (x, y):
        z = z - z.mean(axis=0)
        values, vectors = np.linalg.eigh(z.T @ z)
        z = z @ vectors[:, np.argsort(-values)[:10]]
        scores.append(z / np.sqrt((z**2).sum() / len(z)))
    total, n = 0.0, len(x)
    for i in range(n):
        dx, dy = (np.delete(np.linalg.norm(z - z[i], axis=1), i) for z in scores)
        reach = np.sort(np.maximum(dx, dy))[k - 1] * (1 - 2e-5)  # what is as far but for rounding is not nearer
        total += digamma(k) + digamma(n) - digamma((dx < reach).sum() + 1) - digamma((dy < reach).sum() + 1)
    return total / n / (digamma(n) - digamma(k))


BY_HAND = {
    "cka": cka,
    "cka_debiased": lambda x, y: cka(x, y, debiased=True),
    "procrustes": procrustes,
    "svcca": lambda x, y: canonical(x, y, weighted=False),
    "pwcca": lambda x, y: canonical(x, y, weighted=True),
    "rsa": rsa,
    "neighbour_overlap": neighbour_overlap,
    "mutual_information": mutual_information,
}


def rotation(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]
