"""Rebuild `corpus.tsv`, the parallel corpus of layerscope, byte for byte.

    python data/rebuild/corpus.py           write data/corpus.tsv
    python data/rebuild/corpus.py --check   say whether the file there is the one that would be written

Every frame (form, subject, time, place) is said once in every topic, so only the activity tells the topics apart.
Which activity fills a frame is then chosen so that the topics have the same sentence lengths in every language.
"""

import argparse
import os
import random
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from grammar import ar, de, en, es, fr, hi, ru, zh
from grammar.scenes import (
    ACTIVITIES,
    FORMS,
    LANGUAGES,
    ONE_OFF_VERBS,
    SUBJECTS,
    TOPICS,
    TWO_ACTIVITIES,
    Activity,
    Frame,
    Scene,
)

RENDERERS = {
    "en": en.render,
    "fr": fr.render,
    "de": de.render,
    "es": es.render,
    "ru": ru.render,
    "ar": ar.render,
    "hi": hi.render,
    "zh": zh.render,
}
CORPUS = Path(__file__).resolve().parents[1] / "corpus.tsv"
SEED = 20240229
FRAMES_PER_TOPIC = 300
CANDIDATES = 24
SWEEPS = 3
LENGTH_CELL = 6
SPLIT_BLOCK = ["train"] * 10 + ["dev"] * 2 + ["test"] * 3


@dataclass(frozen=True)
class Candidate:
    """One way to fill a frame in one topic, with what the choice between candidates looks at."""

    scene: Scene
    texts: tuple[str, ...]
    keys: tuple[str, ...]
    features: tuple[tuple[str | int, ...], ...]


def plain(text: str) -> str:
    """Return letters and digits only, lower-case: two sentences that differ in less count as the same."""
    kept = (char for char in text.lower() if unicodedata.category(char)[0] in "LMN" or char == " ")
    return " ".join("".join(kept).split())


def evenly(values: list[str], count: int, rng: random.Random) -> list[str]:
    """Return `count` shuffled values, each used equally often up to one; empty strings for an empty slot."""
    if not values:
        return [""] * count
    order = rng.sample(values, len(values))
    drawn = [order[i % len(order)] for i in range(count)]
    rng.shuffle(drawn)
    return drawn


def make_frames(rng: random.Random) -> list[Frame]:
    """Return the frames, ordered by form; the forms are used equally often up to one."""
    forms = Counter(evenly(list(FORMS), FRAMES_PER_TOPIC, rng))
    subjects = iter(evenly(SUBJECTS, FRAMES_PER_TOPIC, rng))
    frames = []
    for form, (times, places, extras) in FORMS.items():
        count = forms[form]
        slots = (evenly(values, count, rng) for values in (times, places, extras))
        frames += [Frame(form, next(subjects), *slot) for slot in zip(*slots, strict=True)]
    return frames


def fill(frame: Frame, topic: str, rng: random.Random) -> Scene:
    """Draw activities of the topic that make sense in the frame."""
    activities = ACTIVITIES[topic]
    if frame.form == "present":
        activities = tuple(a for a in activities if a.verb not in ONE_OFF_VERBS)
    first = rng.choice(activities)
    others = [a for a in activities if a.verb != first.verb and a.thing != first.thing]
    return Scene(frame, first, rng.choice(others) if frame.form in TWO_ACTIVITIES else first)


def words_used(scene: Scene) -> list[Activity | str]:
    """Return the activities and things of the scene, which are to be used evenly within a topic."""
    if scene.frame.form == "compare_things":
        return [scene.first.thing, scene.second.thing]
    pair = [scene.first, scene.second] if scene.frame.form in TWO_ACTIVITIES else [scene.first]
    return [item for activity in pair for item in (activity, activity.thing)]


def make_candidate(scene: Scene) -> Candidate:
    """Say the scene in every language and note the lengths."""
    texts = tuple(unicodedata.normalize("NFC", RENDERERS[language](scene)) for language in LANGUAGES)
    features: list[tuple[str | int, ...]] = []
    for language, text in zip(LANGUAGES, texts, strict=True):
        length, width = len(text), LENGTH_CELL // 3 if language == "zh" else LENGTH_CELL
        # Two grids of length cells, half a cell apart, so that no border between cells can be exploited.
        features.append((language, 0, length // width))
        features.append((language, 1, (length + width // 2) // width))
        features.append((language, 3, len(text.split())))
        # Apostrophes and hyphens belong to words, so that in French they could tell the topic.
        features.append((language, 2, text.count("'"), text.count("-")))
    keys = tuple(f"{language} {plain(text)}" for language, text in zip(LANGUAGES, texts, strict=True))
    return Candidate(scene, texts, keys, tuple(features))


class Balance:
    """A running count of lengths and words by topic, and what one more sentence would do to its evenness."""

    def __init__(self) -> None:
        """Start with no sentences."""
        self.features: Counter[tuple[str, tuple[str | int, ...]]] = Counter()
        self.totals: Counter[tuple[str | int, ...]] = Counter()
        self.words: Counter[tuple[str, Activity | str]] = Counter()
        self.keys: Counter[str] = Counter()

    def add(self, topic: str, candidate: Candidate, count: int = 1) -> None:
        """Count the sentence, or take it back with `count=-1`."""
        for feature in candidate.features:
            self.features[topic, feature] += count
            self.totals[feature] += count
        for word in words_used(candidate.scene):
            self.words[topic, word] += count
        for key in candidate.keys:
            self.keys[key] += count

    def cost(self, topic: str, candidate: Candidate) -> float:
        """Return how much adding the sentence raises the spread between topics, and the unevenness of words."""
        spread = sum(2 * (self.features[topic, f] - self.totals[f] / len(TOPICS)) for f in candidate.features)
        unevenness = sum(self.words[topic, word] for word in words_used(candidate.scene))
        return spread + unevenness

    def is_new(self, candidate: Candidate) -> bool:
        """Tell whether no language has the sentence already."""
        return not any(self.keys[key] for key in candidate.keys)


def choose_scenes(frames: list[Frame], rng: random.Random) -> dict[tuple[int, str], Candidate]:
    """Fill every frame in every topic, moving step by step towards equal lengths in all topics."""
    cells = [(index, topic) for index in range(len(frames)) for topic in TOPICS]
    candidates = {
        (index, topic): [make_candidate(fill(frames[index], topic, rng)) for _ in range(CANDIDATES)]
        for index, topic in cells
    }
    balance = Balance()
    chosen: dict[tuple[int, str], Candidate] = {}
    for sweep in range(1 + SWEEPS):
        for cell in rng.sample(cells, len(cells)):
            topic = cell[1]
            if sweep:
                balance.add(topic, chosen[cell], -1)
            new = [candidate for candidate in candidates[cell] if balance.is_new(candidate)]
            chosen[cell] = min(new, key=lambda candidate: balance.cost(topic, candidate))
            balance.add(topic, chosen[cell])
    return chosen


def lexemes(scene: Scene) -> set[str]:
    """Return the keys of everything the scene names."""
    frame = scene.frame
    keys = {frame.form, frame.subject, frame.time, frame.place, frame.extra}
    return keys | {key for activity in (scene.first, scene.second) for key in (activity.verb, activity.thing)}


def split_frames(chosen: dict[tuple[int, str], Candidate], count: int, rng: random.Random) -> list[str]:
    """Return the split of each frame, drawn again until every lexeme is met in training.

    Blocks follow the order of the forms, so that every split has every form in proportion.
    """
    every = set().union(*(lexemes(candidate.scene) for candidate in chosen.values()))
    while True:
        splits = [
            split for _ in range(count // len(SPLIT_BLOCK)) for split in rng.sample(SPLIT_BLOCK, len(SPLIT_BLOCK))
        ]
        train = (lexemes(candidate.scene) for (index, _), candidate in chosen.items() if splits[index] == "train")
        if set().union(*train) == every:
            return splits


def build() -> str:
    """Return the whole file."""
    rng = random.Random(SEED)
    frames = make_frames(rng)
    chosen = choose_scenes(frames, rng)
    splits = split_frames(chosen, len(frames), rng)
    cells = rng.sample(list(chosen), len(chosen))
    lines = ["id\tlanguage\ttext\tlabel\tsplit"]
    for number, (index, topic) in enumerate(cells, start=1):
        for language, text in zip(LANGUAGES, chosen[index, topic].texts, strict=True):
            lines.append(f"s{number:04d}\t{language}\t{text}\t{topic}\t{splits[index]}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check the corpus."""
    parser = argparse.ArgumentParser(description="Rebuild the parallel corpus of layerscope.")
    parser.add_argument("--check", action="store_true", help="compare with the file on disk instead of writing it")
    check = parser.parse_args().check
    content = build().encode("utf-8")
    if check:
        if CORPUS.exists() and CORPUS.read_bytes() == content:
            return 0
        print(f"{CORPUS.name} differs from what rebuild/corpus.py would write; rebuild it", file=sys.stderr)
        return 1
    temporary = CORPUS.with_name(f"{CORPUS.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, CORPUS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
