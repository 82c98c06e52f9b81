"""How the images of a class are divided: properties over any class, and the sizes that users meet."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom_trainer.data.split import SPLITS, Shares, divide, split_sizes
from darkroom_trainer.errors import DataError

NAMES = st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=60, unique=True)
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def shares(draw, *, whole: bool = False) -> Shares:
    """Shares in thousandths with some train and val; `whole` ones sum to 1."""
    train = draw(st.integers(1, 999))
    val = draw(st.integers(1, 1000 - train))
    test = 1000 - train - val if whole else draw(st.integers(0, 1000 - train - val))
    return Shares(train / 1000, val / 1000, test / 1000)


@given(NAMES, shares(), SEEDS)
def test_splits_are_disjoint_and_hold_nothing_else(names, shares, seed):
    parts = divide("cat", names, shares, seed)
    together = [name for part in parts.values() for name in part]
    assert len(together) == len(set(together))
    assert set(together) <= set(names)


@given(NAMES, shares(whole=True), SEEDS)
def test_shares_that_sum_to_one_use_every_image(names, shares, seed):
    parts = divide("cat", names, shares, seed)
    assert sorted(chain.from_iterable(parts.values())) == sorted(names)


@given(NAMES, shares(), SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_plays_no_part(names, shares, seed, random):
    expected = divide("cat", names, shares, seed)
    random.shuffle(names)
    assert divide("cat", names, shares, seed) == expected


@given(st.integers(2, 10**6), shares())
def test_sizes_are_within_one_image_of_the_shares_and_never_none(count, shares):
    sizes = split_sizes("cat", count, shares)
    assert sum(sizes.values()) <= count
    assert sizes["train"] >= 1
    assert sizes["val"] >= 1
    for split in SPLITS:
        assert abs(sizes[split] - count * getattr(shares, split)) <= 2, split


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        pytest.param(10, Shares(0.8, 0.1, 0.1), (8, 1, 1), id="the default"),
        pytest.param(1000, Shares(0.8, 0.1, 0.1), (800, 100, 100), id="many"),
        pytest.param(5, Shares(0.8, 0.1, 0.1), (4, 1, 0), id="val before test"),
        pytest.param(2, Shares(0.8, 0.1, 0.1), (1, 1, 0), id="one each"),
        pytest.param(2, Shares(0.01, 0.01, 0.98), (1, 1, 0), id="test gives its last one"),
        pytest.param(3, Shares(0.3, 0.3, 0.4), (1, 1, 1), id="thirds"),
        pytest.param(100, Shares(0.999, 0.001, 0), (99, 1, 0), id="a tiny share still gets one"),
        pytest.param(100, Shares(0.5, 0.25, 0), (50, 25, 0), id="a quarter unused"),
        pytest.param(10, Shares(0.05, 0.05, 0), (1, 1, 0), id="most unused"),
    ],
)
def test_sizes(count, shares, expected):
    assert tuple(split_sizes("cat", count, shares).values()) == expected


def test_the_seed_shuffles():
    names = [b"%d.png" % index for index in range(100)]
    first, second = (divide("cat", names, Shares(0.8, 0.1, 0.1), seed) for seed in (0, 1))
    assert first["val"] != second["val"]


def test_the_same_on_every_machine():
    """Frozen: a change here moves images between the splits of every run that is resumed."""
    names = [b"cat/%d.png" % index for index in range(10)]
    assert divide("cat", names, Shares(0.6, 0.2, 0.2), 7)["val"] == [b"cat/1.png", b"cat/9.png"]


def test_a_class_of_one_image_is_named():
    with pytest.raises(DataError, match=r"class 'cat' has 1 image\(s\), too few to have one each in train and val"):
        split_sizes("cat", 1, Shares(0.8, 0.1, 0.1))
