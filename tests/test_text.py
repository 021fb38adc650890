"""Numbers as words, and back: hand-written pairs, and round trips."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from mvl_auto import text


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("45", 45), ("2d", 172800), ("1H", 3600)],
)
def test_a_duration_is_read(word, seconds):
    assert text.parse_duration(word) == seconds


@pytest.mark.parametrize("word", ["", "0", "-5", "10x", "m", "1h-30m", "nan", "inf", "0s", "1m 30"])
def test_no_duration(word):
    with pytest.raises(ValueError, match="duration"):
        text.parse_duration(word)


@pytest.mark.parametrize(
    ("word", "size"),
    [
        ("8GB", 8_000_000_000),
        ("500MB", 500_000_000),
        ("8GiB", 8 * 2**30),
        ("1.5gb", 1_500_000_000),
        ("2 TB", 2 * 10**12),
    ],
)
def test_an_amount_of_memory_is_read(word, size):
    assert text.parse_memory(word) == size


@pytest.mark.parametrize("word", ["", "8", "GB", "0GB", "-1GB", "8XB", "8G"])
def test_no_amount_of_memory(word):
    with pytest.raises(ValueError, match="memory"):
        text.parse_memory(word)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.3456, "0.346 s"),
        (45, "45 s"),
        (90, "90 s"),
        (120, "2 min"),
        (150.4, "2 min 30 s"),
        (599.7, "10 min"),
        (2000, "33 min"),
        (3599, "1 h"),
        (12_000, "3 h 20 min"),
        (36_000, "10 h"),
        (190_800, "2 d 5 h"),
        (86_700, "1 d"),
        (2_592_000, "30 d"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds, told):
    assert text.duration_text(seconds) == told


@hypothesis.given(seconds=st.one_of(st.floats(1e-9, 1e12), st.integers(1, 10**12).map(float)))
def test_an_exact_duration_is_read_as_the_same_number(seconds):
    assert text.parse_duration(text.exact_duration(seconds)) == seconds


@pytest.mark.parametrize(("typed", "printed"), [("30d", "2592000s"), ("1234567s", "1234567s"), ("90", "90s")])
def test_an_exact_duration_is_a_short_word(typed, printed):
    assert text.exact_duration(text.parse_duration(typed)) == printed


@pytest.mark.parametrize(("seconds", "told"), [(7, "0:07"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")])
def test_a_stopwatch(seconds, told):
    assert text.clock_text(seconds) == told


@pytest.mark.parametrize(
    ("size", "told"),
    [(7_000, "7 kB"), (7_080_000, "7.1 MB"), (93_400_000, "93.4 MB"), (8 * 10**9, "8.00 GB"), (120 * 10**9, "120 GB")],
)
def test_memory_is_told_with_its_unit(size, told):
    assert text.memory_text(size) == told
    assert text.parse_memory(told) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("numbers", "told"), [((32, 48, 32), "32 x 48 x 32"), ((0.78125, 1.0), "0.78125 x 1"), ((5,), "5")]
)
def test_a_shape(numbers, told):
    assert text.shape_text(numbers) == told


def test_shares_counts_and_lists():
    assert [text.percent_text(share) for share in (0.25, 0.000312, 1)] == ["25 %", "0.0312 %", "100 %"]
    assert [text.count_text(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert text.count_text(2, "axis", "axes") == "2 axes"
    assert text.list_text("abcdefg") == "a, b, c and 4 more"
    assert text.list_text([1, 2, 3]) == "1, 2, 3"
    assert text.list_text([], 5) == ""
