"""`run`, `bench` and `audit` do as a recipe says, for the models it was made for only; no option may say otherwise."""

from __future__ import annotations

import dataclasses

import pytest

from outrider.model.weights import fingerprint
from outrider.recipe import Limits, PolicyChoice, Recipe, RecipeDraft, TargetModel, Verification
from tests.cli.tiny import comes_with_prompt

RUN = ["run", "import os", "--max-tokens", "16", "--temperature", "1", "--seed", "3", "--json", "-"]
BENCH = ["bench", "--workload", "code", "--prompts", "1", "--max-tokens", "40", "--temperature", "1", "--json", "-"]

AUDIT = ["audit", "--prompts", "code", "--max-tokens", "8", "--batch", "1,2", "--json", "-"]
COMMANDS = pytest.mark.parametrize("command", [RUN, BENCH, AUDIT], ids=["run", "bench", "audit"])


@pytest.fixture
def recipe(tiny_pair) -> Recipe:
    return Recipe(
        target=TargetModel(name=str(tiny_pair.target), sha256=fingerprint(tiny_pair.target)),
        drafts=(RecipeDraft(kind="model", name=str(tiny_pair.draft), sha256=fingerprint(tiny_pair.draft)),),
        policy=PolicyChoice(speculate=True, depth=2),
    )


@pytest.fixture
def save(tmp_path, recipe):
    def saved(**changes):
        path = tmp_path / "recipe.toml"
        path.write_text(dataclasses.replace(recipe, **changes).toml())
        return path

    return saved


def test_run_does_as_its_options_would(outrider, save, tiny_pair):
    of_recipe = outrider(*RUN, "--recipe", save())
    of_options = outrider(*RUN, "--target", tiny_pair.target, "--draft", tiny_pair.draft, "--depth", "2")
    assert of_recipe.exit_code == 0, of_recipe
    (one,), (other,) = of_recipe.json["sequences"], of_options.json["sequences"]
    assert one["text"] == other["text"]
    assert (one["steps"], one["survival"]) == (other["steps"], other["survival"])
    assert len(one["survival"]) == 2


def test_a_recipe_that_says_no_drafts_nothing(outrider, save):
    document = outrider(*RUN, "--recipe", save(policy=PolicyChoice(speculate=False))).json
    (sequence,) = document["sequences"]
    assert sequence["survival"] == []
    assert sequence["steps"] == 16 - comes_with_prompt(document)


def test_the_bundled_pair_goes_by_that_name(outrider, save, recipe):
    target = dataclasses.replace(recipe.target, name="bundled")
    draft = dataclasses.replace(recipe.drafts[0], name="bundled")
    assert outrider(*RUN, "--recipe", save(target=target, drafts=(draft,))).exit_code == 0


@COMMANDS
@pytest.mark.parametrize("role", ["target", "draft"])
def test_another_checkpoint_is_refused(outrider, save, recipe, command, role):
    other = "0" * 64
    changes = (
        {"target": dataclasses.replace(recipe.target, sha256=other)}
        if role == "target"
        else {"drafts": (dataclasses.replace(recipe.drafts[0], sha256=other),)}
    )
    error = outrider(*command, "--recipe", save(**changes)).error
    assert f"the recipe is for another {role}: it has sha256 000000000000..." in error


@pytest.mark.parametrize("command", [RUN, BENCH], ids=["run", "bench"])
@pytest.mark.parametrize("option", [["--target", "x"], ["--draft", "suffix"], ["--depth", "3"]])
def test_an_option_that_the_recipe_decides_is_refused(outrider, save, command, option):
    assert f"{option[0]} is given, but --recipe" in outrider(*command, *option, "--recipe", save()).error


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--speculation", "off"], "--speculation is given, but --recipe"),
        (["--max-children", "2"], "--max-children is given, but --recipe"),
        (["--batch", "3"], "--batch is 3, but --recipe says 2"),
        (["--memory", "1GiB"], "--memory is 1073741824, but --recipe says 2147483648"),
        (["--learn"], "--learn is for the suffix drafter"),
    ],
)
def test_what_contradicts_a_recipe_is_refused(outrider, save, option, said):
    limits = Limits(memory_bytes=2**31, max_sequences=2)
    assert said in outrider(*RUN, *option, "--recipe", save(limits=limits)).error


def test_limits_hold_and_may_be_said_again(outrider, save):
    path = save(limits=Limits(max_sequences=2, memory_bytes=2**31))
    assert outrider(*RUN, "--batch", "2", "--memory", "2GiB", "--recipe", path).exit_code == 0
    assert "memory" in outrider(*RUN, "--recipe", save(limits=Limits(memory_bytes=1000))).error


def test_a_dtype_other_than_the_checkpoints_is_computed_in(outrider, save, recipe):
    target = dataclasses.replace(recipe.target, dtype="float32")
    drafts = (dataclasses.replace(recipe.drafts[0], dtype="float32"),)
    path = save(target=target, drafts=drafts)
    assert outrider(*RUN, "--recipe", path).json["engine"]["target"]["dtype"] == "float32"
    assert (
        "--dtype is bfloat16, but --recipe says float32"
        in outrider(*RUN, "--dtype", "bfloat16", "--recipe", path).error
    )
    assert "bench measures checkpoints in their own dtype" in outrider(*BENCH, "--recipe", path).error
    assert "here all compute in one" in outrider(*RUN, "--recipe", save(target=target)).error


BLOCK = Verification(rule="block", exactness="distribution")


def test_block_verification_of_a_recipe_is_that_of_the_option(outrider, save, tiny_pair):
    path = save(verification=BLOCK)
    of_recipe = outrider(*RUN, "--recipe", path).json
    models = ["--target", tiny_pair.target, "--draft", tiny_pair.draft, "--depth", "2"]
    of_option = outrider(*RUN, *models, "--verify", "block").json
    assert of_recipe["engine"]["verification"] == "block"
    assert of_recipe["sequences"][0]["exactness"] == "distribution"
    assert of_recipe["sequences"][0]["text"] == of_option["sequences"][0]["text"]
    assert outrider(*BENCH, "--recipe", path).json["engine"]["verification"] == "block"
    audited = outrider(*AUDIT, "--recipe", path)
    assert (audited.exit_code, audited.json["verification"]) == (3, "block"), audited  # so few samples decide nothing


def test_trees_of_a_recipe_are_those_of_the_option(outrider, save, tiny_pair):
    path = save(policy=PolicyChoice(speculate=True, depth=6, max_children=3))
    (of_recipe,) = outrider(*RUN, "--recipe", path).json["sequences"]
    models = ["--target", tiny_pair.target, "--draft", tiny_pair.draft, "--depth", "6", "--max-children", "3"]
    (of_option,) = outrider(*RUN, *models).json["sequences"]
    assert of_recipe["survival"] == of_option["survival"]
    assert 0 < len(of_recipe["survival"]) < 6  # six nodes, some of them side by side
    benched = outrider(*BENCH, "--recipe", path).json
    (row,) = (row for row in benched["rows"] if row["speedup"])
    assert 0 < len(row["speculative"]["survival"]) < 6


def test_an_audit_writes_as_deep_as_the_recipe(outrider, save):
    outcome = outrider(*AUDIT, "--recipe", save(policy=PolicyChoice(speculate=True, depth=3, max_children=2)))
    assert outcome.exit_code in {0, 3}, outcome
    assert {row["depth"] for row in outcome.json["settings"] if row["drafter"] != "none"} == {3}
    assert outcome.json["plan"]["depth"] == 3


def test_an_audit_stays_within_a_recipes_limits(outrider, save):
    path = save(limits=Limits(max_sequences=2))
    quick = [word for word in AUDIT if word not in {"--batch", "1,2"}]
    assert {row["batch"] for row in outrider(*quick, "--recipe", path).json["settings"]} == {1, 2}
    assert "--batch is 1,4, but --recipe says 2 at most" in outrider(*quick, "--batch", "1,4", "--recipe", path).error
    plain = save(policy=PolicyChoice(speculate=False))
    assert "says not to speculate, so there is nothing to audit" in outrider(*AUDIT, "--recipe", plain).error


@COMMANDS
def test_another_verification_than_the_recipes_is_refused(outrider, save, command):
    error = outrider(*command, "--verify", "coupled", "--recipe", save(verification=BLOCK)).error
    assert "--verify is coupled, but --recipe says block" in error
    assert outrider(*command, "--verify", "coupled", "--recipe", save()).exit_code in {0, 3}


@pytest.mark.parametrize("command", [RUN, AUDIT], ids=["run", "audit"])
def test_another_number_of_children_is_refused(outrider, save, command):
    assert (
        "--max-children is given, but --recipe" in outrider(*command, "--max-children", "2", "--recipe", save()).error
    )


def test_above_a_recipes_temperature_nothing_is_drafted(outrider, save, tmp_path):
    path = save(policy=PolicyChoice(speculate=True, depth=2, max_temperature=0.5))
    (plain,) = outrider(*RUN, "--recipe", path).json["sequences"]
    assert (plain["depth"], plain["survival"]) == (0, [])
    prompts = tmp_path / "many.jsonl"
    prompts.write_text('{"prompt": "a", "temperature": 0.5}\n{"prompt": "a"}\n{"prompt": "a", "depth": 1}\n')
    batch = ["run", "--prompt-file", prompts, "--temperature", "0.6", "--max-tokens", "8", "--json", "-"]
    assert [each["depth"] for each in outrider(*batch, "--recipe", path).json["sequences"]] == [2, 0, 1]


def test_trees_may_be_left_to_the_policy(outrider, save):
    path = save(policy=PolicyChoice(speculate=True, max_children=2))
    (text,) = outrider(*RUN, "--recipe", path).json["sequences"]
    assert text["depth"] == "auto"


def test_a_recipe_that_cannot_be_read(outrider, tmp_path):
    assert "cannot read the recipe" in outrider(*RUN, "--recipe", tmp_path / "gone.toml").error


@COMMANDS
def test_a_recipe_of_a_newer_version_is_refused(outrider, save, command):
    path = save()
    path.write_text(path.read_text().replace("format = 1", "format = 2", 1))
    error = outrider(*command, "--recipe", path).error
    assert "recipe.toml: format is 2, but this Outrider reads up to 1: install a newer Outrider" in error


def test_bench_measures_the_recipes_pair(outrider, save):
    document = outrider(*BENCH, "--recipe", save()).json
    assert document["plan"]["depth"] == 2
    assert len(document["models"]["drafts"]) == 1
