"""What the tests of retrieval share."""

import itertools

import pandas as pd

import probes

NOUNS, VERBS, PLACES = (x.split() for x in ("dog cat bird he", "sat ran sang", "mat tree house"))


def a_corpus(languages=("one", "two"), **columns):
    """Sentences in made-up languages: the same words in another order, with another article."""
    rows = []
    for i, (noun, verb, place) in enumerate(itertools.product(NOUNS, VERBS, PLACES)):
        for language in languages:
            words = [noun, verb, "on", place] if language == "one" else ["the", place, "under", verb, noun]
            rows.append({"id": f"s{i}", "language": language, "text": " ".join(words), **columns})
    return probes.load_corpus(pd.DataFrame(rows))
