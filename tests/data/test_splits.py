import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.data.splits import Item, Split, as_recorded, divide
from foveate.errors import DataError

SHARES = (0.70, 0.15, 0.15)


def items(*counts: int) -> list[Item]:
    return [Item(f"class{label}/{k}.jpg", label) for label, count in enumerate(counts) for k in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(3, 80), min_size=1, max_size=5), st.integers(0, 2**32))
def test_every_image_once_and_every_class_everywhere(counts: list[int], seed: int):
    everything = items(*counts)
    parts = divide(everything, SHARES, seed, [str(k) for k in range(len(counts))])
    assert sorted(item for part in parts for item in part) == sorted(everything)
    for part, share in zip(parts, SHARES, strict=True):
        per_class = Counter(item.label for item in part)
        for label, count in enumerate(counts):
            assert per_class[label] >= 1
            assert abs(per_class[label] - share * count) <= 2


def test_the_order_of_listing_does_not_count_but_the_seed_does():
    everything = items(40, 30)
    parts = divide(everything, SHARES, 5, "ab")
    assert parts == divide(everything[::-1], SHARES, 5, "ab")
    assert parts != divide(everything, SHARES, 6, "ab")


def test_a_class_too_small_to_split_is_named():
    with pytest.raises(DataError, match="'rare'") as caught:
        divide(items(9, 2), SHARES, 0, ["common", "rare"])
    assert caught.value.received == "2"


def test_a_split_survives_json():
    train, val, test = divide(items(9, 8), SHARES, 0, "ab")
    split = Split(("a", "b"), tuple(train), tuple(val), tuple(test))
    assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("val"),
        lambda d: d.update(train=[]),
        lambda d: d.update(classes=3),
        lambda d: d.update(val=d["train"]),
    ],
)
def test_a_damaged_record_is_refused(damage):
    split = Split(("a", "b"), *map(tuple, divide(items(9, 8), SHARES, 0, "ab")))
    record = split.to_dict()
    damage(record)
    with pytest.raises(DataError):
        Split.from_dict(record)


def test_images_stay_where_a_record_has_them():
    a, b, c, d = (Item(f"{name}.jpg", 0) for name in "abcd")
    record = Split(("x",), (a, b), (), (c,))
    grown = Split(("x",), (c,), (a,), (b, d))  # split again with d, which the record does not list
    assert as_recorded(grown, record) == Split(("x",), (a, b), (), (c, d))
    assert as_recorded(grown, None) is grown
    assert as_recorded(record, record) == record
