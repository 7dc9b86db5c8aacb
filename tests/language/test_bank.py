"""The bank: what is read, what is one task, and splits that keep the test set out."""

from __future__ import annotations

import json

import pytest

from operant.core.checks import DataError, InputError
from operant.language import (
    CannotRunError,
    LeakError,
    TextBank,
    TextSplit,
    TextTask,
    hold_out_combinations,
    hold_out_order,
)
from operant.language.splits import check_no_leak

ROWS = [
    {"task": "up", "x": "ab", "y": "AB"},
    {"task": "up", "x": "c", "y": "C"},
    {"task": "none", "x": "ab", "y": ""},
]
UP, DOWN = TextTask("up", (("a", "A"),), str.upper), TextTask("down", (("A", "a"),), str.lower)


def fails(x: str) -> str:
    if x == "b":
        raise RuntimeError("no b")
    return x


class Frame(dict):
    """Columns by name, as a data frame has them."""

    columns = ("task", "x", "y")


@pytest.mark.parametrize("form", ["rows", "file", "frame"])
def test_rows_files_and_frames_give_the_same_bank(tmp_path, form):
    rows = {"rows": ROWS, "file": tmp_path / "bank.jsonl", "frame": Frame({n: [r[n] for r in ROWS] for n in ROWS[0]})}
    (tmp_path / "bank.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    bank = TextBank.from_rows(rows[form])
    assert [t.name for t in bank] == ["up", "none"]
    assert bank["up"].demonstrations == (("ab", "AB"), ("c", "C"))
    assert bank["none"].output("ab") == "" and bank["none"].output("zz") is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task": "up", "x": "ab", "y": None}, "row 4: column 'y' must hold text, got None"),
        ({"task": "up", "x": "ab"}, "row 4 has no column 'y'"),
        ({"task": "up", "x": "ab", "y": "other"}, "contradicts itself: 'ab' gives 'AB' and 'other'"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(DataError, match=message):
        TextBank.from_rows([*ROWS, row])


def test_a_frame_without_the_column_is_named():
    with pytest.raises(DataError, match="no column 'y'. Its columns: task, x, y"):
        TextBank.from_rows(Frame(task=["a"], x=["b"]))


def test_banks_that_are_refused():
    with pytest.raises(DataError, match="at least one task"):
        TextBank(())
    with pytest.raises(DataError, match="two tasks of the bank are called 'up'"):
        TextBank((UP, UP))
    with pytest.raises(DataError, match="no demonstration"):
        TextBank((TextTask("bare", (), str.upper),))
    with pytest.raises(InputError, match="no task 'x'"):
        TextBank((UP,))["x"]
    with pytest.raises(DataError, match="at least one input"):
        TextBank.from_functions({"up": str.upper}, [])


def test_functions_of_equal_behavior_are_one_task():
    functions = {"up": str.upper, "swap": str.swapcase, "id": lambda x: x, "strip": str.strip}
    bank = TextBank.from_functions(functions, ["ab", "cd"])
    assert bank.behaviors["up"] == bank.behaviors["swap"] != bank.behaviors["id"]
    assert [t.name for t in bank.distinct()] == ["up", "id"]


def test_tasks_without_functions_agree_where_both_are_known():
    first, second = TextTask("1", (("a", "A"), ("b", "B"))), TextTask("2", (("b", "B"), ("c", "C")))
    assert first.agrees(second, ()) and first.agrees(UP, ["a"]) and UP.agrees(first, ["a"])
    assert not first.agrees(TextTask("3", (("c", "C"),)), ())  # nothing is shared
    assert not first.agrees(TextTask("4", (("b", "x"),)), ()) and not first.agrees(DOWN, ["a"])


def test_a_function_that_raises_loses_these_demonstrations_only():
    bank = TextBank.from_functions({"f": fails}, ["a", "b", "c"])
    assert bank["f"].demonstrations == (("a", "a"), ("c", "c"))
    with pytest.raises(CannotRunError, match="task 'f' raised RuntimeError on 'b': no b"):
        bank["f"].output("b")
    with pytest.raises(CannotRunError, match="'f' raised RuntimeError"):
        TextBank.from_functions({"f": fails}, ["b"])
    with pytest.raises(CannotRunError, match="must return text, got int"):
        TextBank.from_functions({"len": len}, ["b"])  # pyright: ignore


def test_a_bank_is_saved_without_its_functions_and_gets_them_back(tmp_path):
    bank = TextBank.from_functions({"up": str.upper, "f": fails}, ["a", "b"], parts={"up": ["up"]})
    bank.save(tmp_path / "bank.jsonl")
    again = TextBank.load(tmp_path / "bank.jsonl")
    assert again == bank and again["up"].run is None and again["up"].parts == ("up",)
    assert again.with_functions({"up": str.upper})["up"].output("zz") == "ZZ"
    with pytest.raises(DataError, match="gives 'a' for 'a', its demonstration 'A'"):
        again.with_functions({"up": str.lower})


def test_a_split_refuses_a_target_that_the_bank_knows():
    bank = TextBank((UP,), ("a", "b"))
    with pytest.raises(LeakError, match="'swap' behaves as 'up'"):
        TextSplit(bank, (TextTask("swap", (("a", "A"),), str.swapcase),))
    with pytest.raises(LeakError, match="'rows' behaves as 'up'"):
        check_no_leak(bank, [TextTask("rows", (("q", "Q"),))])
    assert TextSplit(bank, (DOWN,)).targets == (DOWN,)


def test_orders_are_held_out_by_their_parts():
    tasks = [TextTask(str(n), (("a", str(n)),), None, tuple("abc"[:n])) for n in (1, 2, 3)]
    split = hold_out_order(tasks, order=3)
    assert [t.name for t in split.bank] == ["1", "2"] and [t.name for t in split.targets] == ["3"]
    with pytest.raises(DataError, match="order 4 splits 3 tasks into 3 known and 0 targets"):
        hold_out_order(tasks, order=4)
    with pytest.raises(LeakError):
        hold_out_order([*tasks, TextTask("again", (("a", "1"),), None, ("a", "b", "c"))], order=3)


def test_combinations_are_held_out_by_behavior():
    bank = TextBank.from_functions({"up": str.upper, "rev": lambda x: x[::-1]}, ["abc", "xyz"])
    both = [
        TextTask("up rev", (), lambda x: x.upper()[::-1]),
        TextTask("rev up", (), lambda x: x[::-1].upper()),
        TextTask("rev rev up", (), str.upper),
        TextTask("twice", (), lambda x: x + x),
    ]
    assert [t.name for t in hold_out_combinations(bank, both).targets] == ["up rev", "twice"]
    assert len(hold_out_combinations(bank, both, share=0.5).targets) == 1
    with pytest.raises(DataError, match="behaves as a task of the bank"):
        hold_out_combinations(bank, both[2:3])
    with pytest.raises(InputError, match="share must lie in"):
        hold_out_combinations(bank, both, share=0.0)
