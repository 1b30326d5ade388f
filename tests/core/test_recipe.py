"""A recipe is read as it was written, and anything else in its file is a clear line."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, strategies as st

from outrider.errors import ParameterError, UsageError
from outrider.recipe import (
    MAX_RECIPE_BYTES,
    Limits,
    MadeBy,
    Measured,
    MeasuredConcurrency,
    MeasuredTemperature,
    PolicyChoice,
    Recipe,
    RecipeDraft,
    TargetModel,
    Verification,
    parse_recipe,
    read_recipe,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SHA256 = st.text(string.digits + "abcdef", min_size=64, max_size=64)
PARTS_OF_ONE = st.floats(0, 1)
NUMBERS = st.floats(0, 1e300)
DTYPES = st.none() | st.sampled_from(["float32", "bfloat16"])


def some(strategy):
    return st.none() | strategy


CONCURRENCY = st.lists(
    st.builds(MeasuredConcurrency, num_sequences=st.integers(1, 999), speedup=NUMBERS, depth=some(st.integers(0, 64))),
    max_size=4,
    unique_by=lambda row: row.num_sequences,
).map(lambda rows: tuple(sorted(rows, key=lambda row: row.num_sequences)))
INTERVALS = st.tuples(NUMBERS, NUMBERS).map(lambda ends: tuple(sorted(ends)))
TEMPERATURES = st.lists(
    st.builds(
        MeasuredTemperature,
        temperature=NUMBERS,
        speedup=NUMBERS,
        speedup_interval=some(INTERVALS),
        off_above=some(st.integers(1, 999)),
    ),
    max_size=3,
    unique_by=lambda row: row.temperature,
).map(tuple)
MEASURED = st.builds(
    Measured,
    temperature=NUMBERS,
    agreement=some(PARTS_OF_ONE),
    greedy_agreement=some(PARTS_OF_ONE),
    overlap=some(PARTS_OF_ONE),
    survival=st.lists(PARTS_OF_ONE, max_size=5).map(tuple),
    cost_ratio=some(NUMBERS),
    forward_costs=st.lists(NUMBERS, max_size=5).map(tuple),
    speedup=some(NUMBERS),
    speedup_interval=some(INTERVALS),
    num_prompts=some(st.integers(1, 2**63 - 1)),
    machine=some(TEXTS),
    temperatures=TEMPERATURES,
    concurrency=CONCURRENCY,
)
DRAFTS = st.lists(
    st.just(RecipeDraft(kind="suffix"))
    | st.builds(RecipeDraft, kind=st.just("model"), name=TEXTS, sha256=SHA256, revision=some(TEXTS), dtype=DTYPES),
    min_size=1,
    max_size=4,
    unique_by=lambda draft: (draft.kind, draft.name),
).map(tuple)
RECIPES = st.builds(
    Recipe,
    target=st.builds(TargetModel, name=TEXTS, sha256=SHA256, revision=some(TEXTS), dtype=DTYPES),
    drafts=DRAFTS,
    policy=st.builds(
        PolicyChoice,
        speculate=st.booleans(),
        depth=st.just("auto") | st.integers(1, 5),
        max_depth=st.integers(5, 64),
        off_above=some(st.integers(1, 999)),
        max_temperature=some(NUMBERS),
        max_children=st.integers(1, 64),
    ),
    verification=st.builds(
        Verification,
        rule=st.sampled_from(["coupled", "block"]),
        exactness=st.sampled_from(["bitwise", "seed", "distribution"]),
    ),
    limits=st.builds(Limits, memory_bytes=some(st.integers(1, 2**40)), max_sequences=some(st.integers(1, 99))),
    measured=some(MEASURED),
    made_by=some(
        st.builds(
            MadeBy,
            outrider=TEXTS,
            date=some(TEXTS),
            command=some(TEXTS),
            versions=st.dictionaries(TEXTS, TEXTS, max_size=3),
        )
    ),
)

TOML = f"""\
format = 1

[target]
name = "models/target"
sha256 = "{"a" * 64}"

[[draft]]
kind = "suffix"

[[draft]]
kind = "model"
name = "models/draft"
sha256 = "{"b" * 64}"

[policy]
speculate = true
max_depth = 6
"""


@given(RECIPES)
def test_what_is_written_is_read(recipe):
    assert parse_recipe(recipe.toml()) == recipe


def test_what_is_left_out_has_its_default():
    recipe = parse_recipe(TOML)
    assert recipe.policy == PolicyChoice(speculate=True, max_depth=6)
    assert (recipe.verification, recipe.limits, recipe.measured) == (Verification(), Limits(), None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_depth", "max_dept", "policy: 'max_dept' is unknown: did you mean max_depth?"),
        ("[policy]", "[polici]", "'polici' is unknown: did you mean policy?"),
        ("max_depth = 6", "zzz = 6", "known are speculate, depth"),
        ("format = 1", "format = 2", "format is 2, but this Outrider reads up to 1: install a newer Outrider"),
        ("format = 1", "", "format is None, but must be 1"),
        ("format = 1", "format = true", "format is True"),
        ("speculate = true", "speculate = 1", "policy.speculate is 1, but must be true or false"),
        ("max_depth = 6", "max_depth = 65", "policy.max_depth is 65, but must be a whole number between 1 and 64"),
        ("max_depth = 6", "max_depth = 6.0", "policy.max_depth is 6.0"),
        ("max_depth = 6", "max_depth = true", "policy.max_depth is True"),
        ("max_depth = 6", "depth = 9", "policy.depth is 9, but must be at most policy.max_depth, which is 8"),
        ("max_depth = 6", "depth = 0", 'policy.depth is 0, but must be 1 or more, or "auto"'),
        ("max_depth = 6", 'depth = "deep"', "policy.depth is 'deep', but must be \"auto\" or a whole number"),
        ('"suffix"', '"sufix"', "draft.kind is 'sufix', but must be one of model, suffix"),
        ('kind = "suffix"', 'kind = "suffix"\nname = "x"', 'draft.name is given, but kind "suffix" has no checkpoint'),
        ('kind = "model"\nname = "models/draft"', 'kind = "model"', "draft.name is missing"),
        ('kind = "suffix"', f'kind="model"\nname="models/draft"\nsha256="{"b" * 64}"', "given twice"),
        ("a" * 64, "A" * 64, "target.sha256 is 'AAA"),
        ('name = "models/target"\n', "", "target.name is missing: it must be a text"),
        ("[target]", "[[target]]", "target is [{"),
        ("[[draft]]\n", "", "is not TOML"),
        (
            "max_depth = 6",
            "[measured]\ntemperature = -1",
            "measured.temperature is -1, but must be a number, 0 or more",
        ),
        ("max_depth = 6", "[measured]\ntemperature = nan", "measured.temperature is nan"),
        ("max_depth = 6", "[measured]\ntemperature = 0\nsurvival = [0.8, 2]", "measured.survival is (0.8, 2)"),
        ("max_depth = 6", "[measured]\ntemperature = 0\nspeedup_interval = [3, 2]", "two numbers"),
        ("max_depth = 6", "[measured]\ntemperature = 0\nconcurrency = 3", "[[measured.concurrency]]"),
        (
            "max_depth = 6",
            "[measured]\ntemperature = 0\n" + "[[measured.concurrency]]\nnum_sequences = 2\nspeedup = 1.1\n" * 2,
            "measured.concurrency is [2, 2], but must be in rising order",
        ),
        ("max_depth = 6", "max_temperature = -1", "policy.max_temperature is -1, but must be a number, 0 or more"),
        (
            "max_depth = 6",
            "[measured]\ntemperature = 0\n" + "[[measured.temperatures]]\ntemperature = 0\nspeedup = 1.1\n" * 2,
            "measured.temperatures is [0, 0], but must be each temperature once",
        ),
        (
            "max_depth = 6",
            "[measured]\ntemperature = 0\n[[measured.temperatures]]\ntemperature = 0\nspedup = 1.1\n",
            "measured.temperatures: 'spedup' is unknown: did you mean speedup?",
        ),
        ("max_depth = 6", "[made_by]\noutrider = '1'\nversions = {a = 1}", "made_by.versions"),
        ("max_depth = 6", "limits = 3\n", "policy: 'limits' is unknown"),
    ],
)
def test_a_mistake_is_named_with_its_place(old, new, said):
    assert old in TOML
    with pytest.raises(UsageError) as caught:
        parse_recipe(TOML.replace(old, new), "my.toml")
    assert str(caught.value).startswith("my.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "is not UTF-8 text .byte 0 is 0xff"),
        (b"#" * (MAX_RECIPE_BYTES + 1), "the most that are read"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, said):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_recipe(path)


def test_drafting_needs_a_drafter():
    with pytest.raises(ParameterError, match="no \\[\\[draft\\]\\]"):
        Recipe(target=TargetModel(name="x", sha256="a" * 64), policy=PolicyChoice(speculate=True))


def test_another_checkpoint_is_refused_with_both_fingerprints():
    recipe = parse_recipe(TOML)
    recipe.check_target("a" * 64)
    recipe.check_draft(1, "b" * 64)
    with pytest.raises(
        UsageError, match=r"another target: it has sha256 a{12}\.\.\., but models/target has c{12}\.\.\."
    ):
        recipe.check_target("c" * 64)
    with pytest.raises(UsageError, match="another draft"):
        recipe.check_draft(1, "a" * 64)
