"""How typical a text is of its domain and of the others, and a head that tells domains apart."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.rows import trained_on
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.states.capture import capture


def transferability(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    domain: str = "language",
    progress: bool = True,
) -> pd.DataFrame:
    """Weigh each text by how typical it is of its own domain and of the others.

    With h the mean last state of a text and p_k the mean h of domain k, the weight of a text of
    domain k is (cos(h, p_k) + cos(h, mean of the other domains' p)) / 2, -1 to 1: high where a text
    is typical of several domains.

    Args:
        model: the pretrained model the states are of; it is not changed.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; where it has a split, the rows of "train", as in a
            training.
        domain: the column that names the domain of a text: "language", "label" or any other.
        progress: show a progress bar.

    Returns:
        One row a text, in the order of the rows that are trained on: its `domain` and its
        `transferability`.

    Raises:
        InputError: there is no such column, no row of split "train", or one domain only; what
            `probes.capture` raises.

    Notes:
        Pan et al. 2021 (Meta-KD), arXiv 2012.01266, by its released code; the paper weighs the two
        parts, as recalled. One prototype a domain, where another release has one a domain and
        class. Special tokens are left out of the mean, a choice made here.

    See also:
        `objectives.MetaTeacher`, `objectives.Transferable`

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en", "zh"])
        >>> few = corpus.shuffle(seed=0).select(range(40))
        >>> weights = transferability(model, tokenizer, few, progress=False)
        >>> weights.groupby("domain").transferability.max().lt(1).to_dict()
        {'en': True, 'zh': True}
    """
    checked = check_corpus(corpus)
    # Of its columns a corpus keeps what the probes know; a topic may stand in any other.
    source = checked if domain in checked.column_names else corpus
    if domain not in source.column_names:
        raise InputError(
            f"the corpus has no column {domain!r} to take domains from, found {', '.join(corpus.column_names)}"
        )
    named = pd.Series(source.with_format(None)[domain])
    if named.isna().any():
        raise InputError(f"{domain} is null in row {named.isna().argmax()}: give each text its domain")
    rows = trained_on(checked)
    domains, of = np.unique(named.astype(str).to_numpy(object)[rows], return_inverse=True)
    if len(domains) < 2:
        raise InputError(
            f"all {len(rows)} texts have the {domain} {domains[0]!r}: expected at least two domains; give another "
            "corpus or column"
        )
    checked = checked.select(rows)
    reps = capture(model, tokenizer, checked, pooling="mean", progress=progress)
    h = reps.hidden.isel(layer=-1).to_numpy().astype(np.float64)
    prototypes = np.stack([h[of == k].mean(0) for k in range(len(domains))])
    others = (prototypes.sum(0) - prototypes) / (len(domains) - 1)
    weights = (row_cosines(h, prototypes[of]) + row_cosines(h, others[of])) / 2
    return pd.DataFrame({"domain": domains[of], "transferability": weights})


class DomainHead(torch.nn.Module):
    """Features of a text and its domain, and a classifier of domains on them.

    The features are tanh(W (E_domain + mean token state)).

    Args:
        domains: their names, at least two.
        width: features of a token state of the teacher.
        seed: of the weights as they begin; the random numbers of PyTorch are left as they were.

    Raises:
        InputError: there are fewer than two domains, or a name is there twice.

    Example:
        >>> import torch
        >>> head = DomainHead(["en", "zh"], width=8)
        >>> head(torch.zeros(3, 8), torch.tensor([0, 1, 1])).shape
        torch.Size([3, 8])
    """

    def __init__(self, domains: Sequence[str], width: int, seed: int = 0) -> None:
        """Draw the weights."""
        super().__init__()
        self.domains = [str(d) for d in domains]
        if len(set(self.domains)) < 2 or len(set(self.domains)) < len(self.domains):
            raise InputError(f"domains={self.domains}: expected at least two, each once")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = torch.nn.Embedding(len(self.domains), width)
            self.dense = torch.nn.Linear(width, width)
            self.classifier = torch.nn.Linear(width, len(self.domains))

    def forward(self, mean_states: torch.Tensor, domains: torch.Tensor) -> torch.Tensor:
        """Return features (text, feature) of mean states (text, feature) and domains (text,)."""
        features: torch.Tensor = torch.tanh(self.dense(self.embedding(domains) + mean_states))
        return features


def row_cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of each row of x with that of y, 0 where one is zero."""
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.divide((x * y).sum(1), lengths, out=np.zeros(len(x)), where=lengths > 0)
