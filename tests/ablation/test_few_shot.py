"""Lists of few cases: nested, by patient, other ones for other seeds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvl_auto.ablation.few_shot import nested_cases, number_of_cases
from mvl_auto.ablation.record import Amount


@st.composite
def patients(draw) -> list[tuple[str, ...]]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    return [tuple(f"p{number}_{case}" for case in range(size)) for number, size in enumerate(sizes)]


@given(patients(), st.integers(1, 20), st.integers(1, 20), st.integers(0, 3), st.integers(0, 4))
def test_a_smaller_list_is_part_of_a_larger_one_and_no_patient_is_divided(patients, few, more, seed, fold):
    small, large = (
        nested_cases(patients, Amount(cases=cases), str(fold), seed) for cases in sorted((few, few + more - 1))
    )
    assert set(small) <= set(large)
    for cases in patients:
        assert len(set(cases) & set(small)) in (0, len(cases))
    total = sum(map(len, patients))
    assert min(few, total) <= len(small) < min(few, total) + 4


@given(patients(), st.integers(0, 3))
def test_all_cases_are_all_cases(patients, seed):
    everyone = sorted(case for cases in patients for case in cases)
    assert list(nested_cases(patients, Amount(share=1.0), "0", seed)) == everyone
    assert list(nested_cases(patients, Amount(cases=1000), "0", seed)) == everyone


def test_a_share_is_rounded_up():
    assert [number_of_cases(Amount(share=share), 160) for share in (0.05, 0.1, 0.3, 0.001, 1.0)] == [8, 16, 48, 1, 160]


def test_other_seeds_and_folds_give_other_lists():
    patients = [(f"p{number}",) for number in range(40)]
    lists = {nested_cases(patients, Amount(cases=8), fold, seed) for fold in "01" for seed in range(3)}
    assert len(lists) == 6


def test_names_of_amounts():
    assert [Amount(share=1.0).name, Amount(share=0.125).name, Amount(cases=8).name] == ["100", "12.5", "n8"]
