"""Whom contrastive objectives draw as negatives, by label, similarity or confusion, and what they remember."""

import math

import numpy as np
import pytest
import torch
from banked import LABELS, ROWS, SIZE, a_batch, a_pass, some_rows

from compress.objectives.base import check
from compress.objectives.contrast import CRD, CoDIR
from probes.errors import InputError

SAMPLERS = [
    CoDIR(k=5),
    CoDIR(k=5, form="nce"),
    CRD(k=5),
    CRD(k=30),
    CRD(k=5, negatives="instances", top_k=3),
    CRD(k=3, negatives="instances", top_k=7),
    CRD(k=5, negatives="classes"),
    CRD(k=5, negatives="classes", top_k=1),
]


@pytest.mark.parametrize("objective", SAMPLERS, ids=str)
def test_no_negative_ever_has_the_label_of_its_text(student, teacher, objective):
    order = np.random.default_rng(0).permutation(ROWS)
    labels = np.asarray(LABELS)[order]
    memory = objective.prepare(student, teacher, some_rows(labels.tolist()), seed=0)
    for update in range(200):
        memory.batches.fill_(update)
        rows = np.random.default_rng(update).integers(ROWS, size=6)
        drawn, near = memory.draw(memory.generator(), rows, objective.k)
        assert drawn.shape == (6, objective.k)
        assert 1 <= near <= objective.k
        assert (labels[drawn] != labels[rows][:, None]).all()


@pytest.mark.parametrize("objective", [o for o in SAMPLERS if o.negatives != "classes"], ids=str)
def test_without_labels_no_negative_is_ever_the_text_itself(student, teacher, objective):
    memory = objective.prepare(student, teacher, some_rows(None, ROWS), seed=0)
    for update in range(200):
        memory.batches.fill_(update)
        drawn, _ = memory.draw(memory.generator(), np.arange(ROWS), objective.k)
        assert (drawn != np.arange(ROWS)[:, None]).all()


def test_uniform_negatives_are_different_while_there_are_enough_and_all_as_frequent(student, teacher):
    memory = CRD().prepare(student, teacher, some_rows(), seed=0)
    pool = [i for i in range(ROWS) if LABELS[i] != 1]
    generator = np.random.default_rng(0)
    every, _ = memory.draw(generator, np.array([4]), len(pool))
    assert sorted(every[0]) == pool
    drawn, _ = memory.draw(generator, np.full(4000, 4), 3)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    counts, p = np.bincount(drawn.ravel(), minlength=ROWS)[pool], 3 / len(pool)
    assert abs(counts - 4000 * p).max() < 5 * math.sqrt(4000 * p * (1 - p))
    more, _ = memory.draw(generator, np.array([4]), 50)
    assert set(more[0]) <= set(pool)


def test_numbers_of_numpy_are_whole_numbers(student, teacher):
    objectives = CRD(k=2, size=4, negatives="instances", top_k=2), CRD(np.int64(1), np.int64(2), np.int32(4))
    memory = objectives[1].prepare(student, teacher, some_rows(), seed=0)
    assert memory.teacher_bank.shape == (ROWS, 4)
    near = CRD(k=2, size=4, negatives="instances", top_k=np.int64(2)).prepare(student, teacher, some_rows(), seed=0)
    drawn = near.draw(np.random.default_rng(0), np.arange(4), 2)[0]
    plain = objectives[0].prepare(student, teacher, some_rows(), seed=0)
    assert (drawn == plain.draw(np.random.default_rng(0), np.arange(4), 2)[0]).all()


def test_a_saved_module_goes_on_as_it_would_have(student, teacher, tmp_path):
    from safetensors.torch import load_file, save_file

    for objective in (CoDIR(k=3, size=SIZE), CRD(k=3, size=SIZE, negatives="instances", mixup=0.2)):
        rows = some_rows()
        memory = objective.prepare(student, teacher, rows, seed=1)
        passes = a_pass(student, 0), a_pass(teacher, 1)
        before = torch.random.get_rng_state()
        for _ in range(3):
            objective(*passes, a_batch([0, 3, 7, 8], memory, objective.name))
        save_file(memory.state_dict(), tmp_path / "m.safetensors")
        fresh = objective.prepare(student, teacher, rows, seed=1)
        fresh.load_state_dict(load_file(tmp_path / "m.safetensors"))
        again = [objective(*passes, a_batch([1, 4, 9, 2], m, objective.name)).item() for m in (memory, fresh)]
        assert again[0] == again[1]
        assert torch.equal(before, torch.random.get_rng_state())
        draws = [objective.prepare(student, teacher, rows, seed=s).draw for s in (1, 2)]
        one, same = (d(np.random.default_rng([1, 0]), np.arange(6), 3)[0] for d in draws)
        assert (one == same).all()  # the seed is in the generator
        other = [objective.prepare(student, teacher, rows, seed=s).generator().random() for s in (1, 2)]
        assert other[0] != other[1]
        fresh.batches += 1
        assert fresh.generator().random() != memory.generator().random()


def test_bad_rows(student, teacher, tiny_models):
    mixed = some_rows()
    del mixed[3]["labels"]
    tokens = some_rows()
    tokens[2]["labels"] = [0, 1]
    classes, instances = CRD(negatives="classes"), CRD(negatives="instances", top_k=8)
    for objective, rows, message in (
        (CoDIR(), [], "objective codir: the memory bank is empty, there are no rows"),
        (CRD(), [], "objective crd: the memory bank is empty"),
        (CRD(), some_rows([4] * 5), "all 5 rows have the label 4, so that no text has a negative"),
        (CoDIR(negatives="batch"), some_rows(None, 1), "there is one row, so that no text has a negative"),
        (CRD(), mixed, "rows 0 and 3: one has a label, the other none"),
        (CRD(), tokens, r"row 2 has the label \[0, 1\]: expected one whole number"),
        (classes, some_rows(None, 6), 'negatives="classes" needs labels, the rows have none'),
        (CRD(negatives="classes", top_k=3), some_rows(), "top_k=3: expected at most 2, the labels other than"),
        (classes, some_rows([0, 1, 7]), "labels from 0 to 7, the teacher has 3 classes"),
        (instances, some_rows(), "top_k=8: expected at most 7, the rows that may be negatives"),
        (CoDIR(layers={1: 4}), some_rows(), "layers has 1: 4: expected a layer of the student from 0 to 2"),
    ):
        with pytest.raises(InputError, match=message):
            objective.prepare(student, teacher, rows, seed=0)
    with pytest.raises(InputError, match="has no head"):
        check([classes], student, tiny_models("BertModel"), True)
    with pytest.raises(InputError, match="layers has 3: 1"):
        check([CoDIR(layers={3: 1})], student, teacher, True)
    with pytest.raises(InputError, match="objective crd needs a teacher"):
        check([CRD()], student, None, True)
