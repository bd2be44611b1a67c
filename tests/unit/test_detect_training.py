"""What training measures is measured right, and on patients the model never saw."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
sys.path.insert(0, SCRIPTS)
from cxr import data, evaluate  # noqa: E402 (the training is a folder of scripts, not a package)
from cxr.calibrate import choose_threshold, platt, sigmoid  # noqa: E402
from parcel import toml  # noqa: E402

sys.path.remove(SCRIPTS)

HEADER = (
    "image,patient,view,age,sex,pixel_spacing_mm_at_1024,nih_labels,rsna_class,rsna_boxes_xywh_1024,"
    "nih_boxes_label_xywh_1024\n"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(300):
        patient = f"{rng.integers(150):08d}"
        kind, boxes = [("Lung Opacity", '"[[256.0, 512.0, 128.0, 64.0]]"'), ("Normal", ""), ("", "")][number % 3]
        labels = "Pneumonia|Edema" if number % 2 else "No Finding"
        lines.append(
            f"{patient}_{number:03d}.png,{patient},{'AP' if number % 4 else 'PA'},50,F,0.3,{labels},{kind},{boxes},\n"
        )
    held_out = sorted(data.HELD_OUT)[0]
    lines.append(f"{held_out}_000.png,{held_out},PA,50,F,0.3,No Finding,Normal,,\n")
    path = tmp_path / "labels.csv"
    path.write_text(HEADER + "".join(lines))
    return path


def test_no_patient_is_in_two_folds_and_none_held_out_is_in_any(table: Path) -> None:
    films = data.load_films(table)
    folds = data.split(films, seed=0)
    assert set(folds) == set(range(data.FOLDS))
    for patient in {film.patient for film in films}:
        assert len({fold for fold, film in zip(folds, films, strict=True) if film.patient == patient}) == 1
    assert not {film.patient for film in films} & data.HELD_OUT
    assert [film.group for film in data.held_out_films(table)] == ["normal"]
    np.testing.assert_array_equal(folds, data.split(films, seed=0))


def test_boxes_are_scaled_from_the_film_to_the_input(table: Path) -> None:
    film = next(film for film in data.load_films(table) if film.group == "opacity")
    assert film.boxes == ((64.0, 128.0, 32.0, 16.0),)
    cover = data.coverage(film.boxes)
    assert cover.sum() == 2.0
    assert cover[8, 4] == cover[8, 5] == 1.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_auc_is_that_of_scikit_learn_ties_included(pairs: list[tuple[bool, int]]) -> None:
    positive = np.array([one for one, _ in pairs])
    scores = np.array([score for _, score in pairs], dtype=float)
    if positive.all() or not positive.any():
        assert np.isnan(evaluate.auc(positive, scores))
    else:
        assert evaluate.auc(positive, scores) == pytest.approx(roc_auc_score(positive, scores))


def judged(heat_cells: list[list[tuple[int, int]]], groups: list[str], scores: list[float]) -> evaluate.Judged:
    """Films with one reader's box over cells (4..7, 4..7) where opaque, and a heat map with hot cells."""
    films, heats = [], np.zeros((len(groups), 16, 16), dtype=np.float32)
    for index, (cells, group) in enumerate(zip(heat_cells, groups, strict=True)):
        boxes = ((64.0, 64.0, 64.0, 64.0),) if group == "opacity" else ()
        films.append(data.Film(f"f{index}", f"p{index}", "AP", group, float(bool(boxes)), (), boxes))
        for row, column in cells:
            heats[index, row, column] = 0.9
    return evaluate.Judged.of(films, np.array(scores), heats)


def test_found_missed_and_false_boxes_are_counted_by_hand() -> None:
    block = [(row, column) for row in range(4, 8) for column in range(4, 8)]
    elsewhere = [(12, 12), (12, 13)]
    result = judged(
        [block, elsewhere, elsewhere, []], ["opacity", "opacity", "normal", "abnormal"], [0.9, 0.8, 0.3, 0.1]
    )
    assert evaluate.peak_in_box(result) == 0.5
    false, hits = evaluate.froc(result)
    assert list(false) == [0.0, 0.25, 0.5]
    assert list(hits) == [0.5, 0.5, 0.5]
    assert evaluate.sensitivity_at(result) == 0.5
    assert evaluate.FIGURES["AUC, opacity against all others"](result) == 1.0


def test_threshold_keeps_the_sensitivity_it_promises() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(400) < 0.3
    logits = rng.normal(positive * 1.5, 1.0)
    slope, intercept = platt(logits, positive)
    scores = sigmoid(slope * logits + intercept)
    assert scores.mean() == pytest.approx(positive.mean(), abs=0.01)
    threshold = choose_threshold(scores, positive)
    assert 0.85 <= (scores[positive] >= threshold).mean() < 0.87


texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=12)
plain: Any = st.one_of(st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), st.booleans(), texts)
inner: Any = st.dictionaries(texts, plain, max_size=3)


@settings(max_examples=50)
@given(st.dictionaries(texts, plain | st.lists(plain, max_size=3) | inner | st.lists(inner, max_size=2), max_size=4))
def test_manifest_text_reads_back_as_what_was_written(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml.dumps(document)) == document


def test_training_explains_itself_and_what_is_missing_without_any_library() -> None:
    script = [sys.executable, "-I", "-S", str(Path(SCRIPTS) / "train-cxr")]
    asked = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True)
    assert "--labels" in asked.stdout
    options = ["--data", "films", "--labels", "labels.csv", "--sign-key", "key"]
    refused = subprocess.run([*script, *options], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    [sentence] = refused.stderr.splitlines()
    assert sentence.startswith("Not installed: torch,")
    assert "`scripts/venv detect,train`" in sentence
