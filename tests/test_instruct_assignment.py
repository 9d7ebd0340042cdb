"""Task types and drawn questions."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.instruct.assignment import assign_task_types, draw_question

TYPES = ("general", "summary", "reasoning", "extraction")


def ids(number: int) -> list[str]:
    return [f"corpus/{n}" for n in range(number)]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 7, 100, 1001])
@pytest.mark.parametrize("num_types", [1, 3, 4])
def test_assign_task_types_any_number_of_documents_is_even_within_one(number, num_types):
    assigned = assign_task_types(ids(number), TYPES[:num_types], seed=3)
    counts = Counter(assigned.values())
    assert set(assigned) == set(ids(number))
    assert all(abs(counts[name] - number / num_types) < 1 for name in TYPES[:num_types])


def test_assign_task_types_order_of_documents_does_not_matter():
    shuffled = ids(101)
    random.Random(0).shuffle(shuffled)
    assert assign_task_types(shuffled, TYPES, seed=0) == assign_task_types(ids(101), TYPES, seed=0)


def test_assign_task_types_another_seed_draws_anew():
    first, second = (assign_task_types(ids(1000), TYPES, seed=seed) for seed in (0, 1))
    same = sum(first[name] == second[name] for name in first)
    assert 150 < same < 350


def test_assign_task_types_few_new_documents_change_few_others():
    before, after = (assign_task_types(ids(number), TYPES, seed=0) for number in (1000, 1010))
    changed = sum(before[name] != after[name] for name in before)
    assert changed <= 20


def test_assign_task_types_neighbours_are_not_alike():
    """A type is no function of the position: corpora come one after the other."""
    assigned = list(assign_task_types(ids(1000), TYPES, seed=0).values())
    counts = Counter(assigned[:200])
    assert all(25 < counts[name] < 75 for name in TYPES)


def test_draw_question_is_fixed_by_seed_and_document_and_reaches_all():
    questions = ("a", "b", "c", "d", "e")
    drawn = [draw_question(questions, name, seed=0) for name in ids(1000)]
    assert drawn == [draw_question(questions, name, seed=0) for name in ids(1000)]
    assert all(150 < count < 250 for count in Counter(drawn).values())
    assert drawn != [draw_question(questions, name, seed=1) for name in ids(1000)]


def test_draw_question_does_not_depend_on_the_task_type():
    names = ids(4000)
    assigned = assign_task_types(names, TYPES, seed=0)
    pairs = Counter((assigned[name], draw_question(("a", "b", "c", "d"), name, seed=0)) for name in names)
    assert len(pairs) == 16
    assert all(190 < count < 310 for count in pairs.values())


def test_instruct_config_task_type_named_twice_is_refused():
    generator = ChatModel(model="writer")
    with pytest.raises(ValueError, match="names one twice"):
        InstructConfig(generator=generator, task_types=("general", "summary", "general"))
