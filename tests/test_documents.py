"""The documents say what was measured, and name what there is."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from stapes.cli import app
from stapes.config import PRESETS, ModelConfig, TrainingConfig, as_dict, preset_training
from stapes.inference import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_readme_is_that_of_the_results():
    assert tables().summary_table() in README


@pytest.mark.parametrize(
    ("document", "name", "given"),
    [
        ("speed", "speed_table", ()),
        ("speed", "machine_line", ("train_step",)),
        ("speed", "load_line", ()),
        ("speed", "other_machine_line", ("train_step_avx2",)),
        ("speed", "machine_line", ("inference",)),
        ("speed", "files_table", ()),
        ("speed", "machine_line", ("end_to_end",)),
        ("speed", "machine_line", ("scaling",)),
        ("honesty", "accuracy_table", ()),
        ("honesty", "baseline_table", ()),
        ("honesty", "foreign_table", ()),
        ("honesty", "audit_table", ()),
        ("honesty", "protocol_table", ()),
        ("accuracy", "ladder_table", ("accuracy_cats_dogs",)),
        ("accuracy", "ladder_table", ("accuracy_esc10",)),
        ("accuracy", "robustness_table", ()),
        ("accuracy", "ablation_table", ("cats_dogs, classic, 15 epochs",)),
        ("accuracy", "learning_table", ("cats_dogs, classic, 15 epochs",)),
    ],
)
def test_the_tables_of_the_documents_are_those_of_the_results(document, name, given):
    assert getattr(tables(), name)(*given) in (ROOT / "docs" / f"{document}.md").read_text()


def test_the_startup_time_of_the_readme_is_the_measured_one():
    measured = json.loads((ROOT / "benchmarks" / "results" / "startup.json").read_text())
    said = re.search(r"`stapes --help` answers in ([\d.]+) s", README)
    assert said is not None
    assert said.group(1) == f"{measured['median_seconds']['stapes --help']:.2f}"


def test_the_card_of_the_shipped_model_says_what_was_measured():
    card = (ROOT / "src" / "stapes" / "models" / "cats-dogs.md").read_text()
    clips = json.loads((ROOT / "benchmarks" / "results" / "shipped.json").read_text())["clips"]
    low, high = clips["interval"]
    assert f"{clips['accuracy']:.3f} of clips (95 % interval {low:.3f} to {high:.3f})" in card


def test_what_was_measured_and_shipped_is_the_recipe_of_today():
    today = as_dict(TrainingConfig(**preset_training("classic")))
    measured = json.loads((ROOT / "benchmarks" / "results" / "shipped.json").read_text())
    for recipe in (measured["settings"], load("cats-dogs").model.about["settings"]):
        assert recipe == today


@pytest.mark.parametrize("name", ["cats_dogs", "esc10"])
def test_every_row_of_the_ladder_is_of_a_network_and_settings_of_today(name):
    found = json.loads((ROOT / "benchmarks" / "results" / f"accuracy_{name}.json").read_text())
    assert list(found["presets"]) == list(PRESETS)
    for preset, row in found["presets"].items():
        config = ModelConfig(tuple(row["classes"]), **PRESETS[preset])
        recipe = preset_training(preset, n_classes=len(config.classes))
        assert row["settings"] == as_dict(TrainingConfig(**recipe))
        assert row["parameters"] == config.n_parameters
        assert row["multiply_adds"] == config.n_multiply_adds


def test_the_readme_names_every_command_and_no_other():
    named = set(re.findall(r"^\| `stapes (\w+)", README, flags=re.MULTILINE))
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert named == commands


def test_every_picture_and_page_that_a_document_links_is_there():
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_how_often_intervals_hold_is_what_was_simulated():
    found = json.loads((ROOT / "benchmarks" / "results" / "intervals.json").read_text())["worlds"]
    ours, bootstrap = ([row[k]["held"] for row in found] for k in ("ours", "bootstrap"))
    said = (
        f"in {min(ours):.2f} to {max(ours):.2f} of cases, a bootstrap in"
        f" {min(bootstrap):.2f} to {max(bootstrap):.2f}"
    )
    assert said in " ".join((ROOT / "README.md").read_text().split())
    architecture = " ".join((ROOT / "ARCHITECTURE.md").read_text().split())
    assert f"{min(ours):.2f} to {max(ours):.2f} of all its worlds" in architecture
