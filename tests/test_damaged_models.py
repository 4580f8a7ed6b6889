"""Files of a model that were damaged, or made up: one line, whatever is wrong in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from qcq.data import Simulated
from qcq.embeddings import MODEL, STUDENTS, WEIGHTS, Embeddings
from qcq.errors import ConfigError, EmbeddingError, QCQError
from qcq.models.weights import Weights
from qcq.recipes import embed

ROOM = Simulated(questions=60, concepts=8, students=40, responses=10).read()
TABLES: dict[str, dict[str, Any]] = {
    "svd": {"trainer": "svd"},
    "netmf": {"trainer": "netmf"},
    "spectral": {"trainer": "spectral"},
    "fastrp": {"trainer": "fastrp"},
    "concept-mean": {"trainer": "concept-mean"},
    "sgns": {"walk": "qcq", "trainer": "sgns"},
    "mlm": {"walk": "qcq", "trainer": "mlm", "sections": {"mlm": {"steps": 5}}},
    "numbers": {"trainer": "svd", "numbers": ["rasch", "difficulty"]},
}
ANSWERS = {"student": [ROOM.students[0], "never"], "question": ["new", "new"], "correct": [1, 0]}


@pytest.fixture(scope="module", params=TABLES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = embed(ROOM, dim=8, **TABLES[request.param])
    file = table.save(tmp_path_factory.mktemp("saved") / "v.safetensors")
    table.save_model(file)
    return file


def asked(file: Path) -> Embeddings:
    """Vectors for a new question that has no twin, from answers too."""
    return Embeddings.load(file).infer({"new": ROOM.concepts[:6]}, responses=ANSWERS)


def held(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(str(file.with_name(file.name + ".model") / MODEL), framework="numpy") as opened:
        return json.loads(opened.metadata()["model"]), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def without_digest(file: Path, home: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], object]) -> Path:
    """A copy of table and model as an earlier version wrote them, with a change."""
    made = home / file.name
    folder = home / f"{file.name}.model"
    folder.mkdir()
    for old in [file, *file.with_name(folder.name).iterdir()]:
        (made if old == file else folder / old.name).write_bytes(old.read_bytes())
    said, arrays = held(file)
    del said["digest"]
    change(said, arrays)
    save_file(arrays, folder / MODEL, metadata={"model": json.dumps(said)})
    return made


def refused(file: Path, words: str = "") -> None:
    with pytest.raises(QCQError, match=words) as caught:
        asked(file)
    assert isinstance(caught.value, EmbeddingError | ConfigError)
    assert "\n" not in str(caught.value)


def refused_or_harmless(file: Path, whole: Path) -> None:
    """An error; or the vectors are the same, or the table says that they aren't the model's."""
    refusal = None
    try:
        made = asked(file)
    except (EmbeddingError, ConfigError) as error:
        refusal = str(error)
    if refusal is None:
        same = made.vectors.tobytes() == asked(whole).vectors.tobytes()
        assert same or made.provenance["inferred"] == {"concepts": 1}
    else:
        assert "\n" not in refusal


def test_a_model_of_an_earlier_version_is_read(saved: Path, tmp_path: Path) -> None:
    made = without_digest(saved, tmp_path, lambda said, arrays: None)
    assert asked(made).vectors.tobytes() == asked(saved).vectors.tobytes()


def test_a_changed_byte_is_noticed(saved: Path, tmp_path: Path) -> None:
    """Whatever the byte stands for: also where the file could be read, and would give other vectors."""
    made = without_digest(saved, tmp_path, lambda said, arrays: None)
    file, whole = (
        tmp_path / f"{saved.name}.model" / MODEL,
        (saved.with_name(f"{saved.name}.model") / MODEL).read_bytes(),
    )
    rng = np.random.default_rng(0)
    for at in [*range(0, 400, 40), *rng.integers(len(whole), size=30)]:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :])
        refused(made, "no readable model")
    file.write_bytes(whole)
    assert asked(made).vectors.tobytes() == asked(saved).vectors.tobytes()


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "missing": lambda array: None,
    "a row less": lambda array: array[1:],
    "a dimension more": lambda array: array[None],
    "a column more": lambda array: np.hstack([array, array[:, :1]]) if array.ndim == 2 else np.r_[array, array[:1]],
    "NaN": lambda array: np.full(array.shape, np.nan),
    "truths": lambda array: np.zeros(array.shape, dtype=bool),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_array_that_does_not_fit_is_one_line(change: str, saved: Path, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(held(saved)[1])):

        def changed(said: dict[str, Any], arrays: dict[str, np.ndarray], name: str = name) -> None:
            array = CHANGES[change](arrays.pop(name))
            if array is not None:
                arrays[name] = np.ascontiguousarray(array)

        home = tmp_path / str(number)
        home.mkdir()
        refused_or_harmless(without_digest(saved, home, changed), saved)


@pytest.mark.parametrize("key", ["format", "tables", "questions", "concepts", "parts", "weights"])
def test_what_is_said_of_a_model_has_all_its_keys(key: str, saved: Path, tmp_path: Path) -> None:
    refused(without_digest(saved, tmp_path, lambda said, arrays: said.pop(key)), "no readable model")


SAID: dict[str, Callable[[dict[str, Any]], object]] = {
    "a key that nobody knows": lambda said: said.update(more=1),
    "a newer format": lambda said: said.update(format=99),
    "questions that are numbers": lambda said: said.update(questions=list(range(60))),
    "a question less": lambda said: said["questions"].pop(),
    "a question twice": lambda said: said["questions"].__setitem__(0, said["questions"][1]),
    "another question": lambda said: said["questions"].__setitem__(0, "nobody's"),
    "a concept more": lambda said: said["concepts"].append("more"),
    "added questions that the table lacks": lambda said: said.update(added={"nobody's": []}),
    "a part of another kind": lambda said: said["parts"][0].update(kind="other"),
    "a part without its trainer": lambda said: said["parts"][0].pop("trainer"),
    "a trainer without settings": lambda said: said["parts"][0].update(trainer=["svd"]),
    "settings that nobody knows": lambda said: said["parts"][0]["trainer"][1].update(nobodys=1),
    "a part that is wider": lambda said: said["parts"][0].update(dim=99),
    "a part of negative width": lambda said: said["parts"][0].update(dim=-1),
    "parts that are none": lambda said: said.update(parts=3),
}


@pytest.mark.parametrize("change", SAID)
def test_what_is_said_of_a_model_fits_its_table(change: str, saved: Path, tmp_path: Path) -> None:
    refused_or_harmless(without_digest(saved, tmp_path, lambda said, arrays: SAID[change](said)), saved)


def test_weights_of_another_training_are_refused(saved: Path, tmp_path: Path) -> None:
    made = without_digest(saved, tmp_path, lambda said, arrays: said.update(weights="0" * 64))
    there = (tmp_path / f"{saved.name}.model" / WEIGHTS).exists()
    refused(made, "is of another training" if there else "no readable weights")


@pytest.mark.parametrize("name", ["graph.indices", "graph.indptr"])
def test_indices_that_are_no_whole_numbers_are_refused(name: str, saved: Path, tmp_path: Path) -> None:
    refused(
        without_digest(saved, tmp_path, lambda said, arrays: arrays.update({name: arrays[name] + 0.5})),
        "indices of its graph that are no whole numbers",
    )


@pytest.mark.parametrize("step", [-1, 1])
def test_settings_of_another_training_are_one_line(step: int, saved: Path, tmp_path: Path) -> None:
    def change(said: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        said["parts"][0]["trainer"][1]["dim"] += step

    refused_or_harmless(without_digest(saved, tmp_path, change), saved)


def test_weights_that_are_none_are_one_line(tmp_path: Path) -> None:
    table = np.ones((3, 2), dtype=np.float32)
    fine = {"questions": ["a", "b"], "concepts": ["c"], "trainer": {"name": "sgns", "dim": 2}}
    for said, arrays in (
        ({**fine, "questions": "ab"}, {"table.input": table}),
        ({**fine, "trainer": 3}, {"table.input": table}),
        ({"questions": ["a", "b"]}, {"table.input": table}),
        (fine, {"table.output": table}),
        (fine, {"table.input": table[0]}),
        (fine, {"table.input": table, "table.bias": table[0, 0]}),
        (fine, {"table.input": table, "table.output": table[:2]}),
    ):
        save_file(
            {n: np.ascontiguousarray(a) for n, a in arrays.items()}, tmp_path / WEIGHTS, {"weights": json.dumps(said)}
        )
        with pytest.raises(ConfigError, match="no readable weights") as caught:
            Weights.load(tmp_path / WEIGHTS)
        assert "\n" not in str(caught.value)


def test_a_changed_mark_of_a_student_is_noticed(tmp_path: Path) -> None:
    """It would let answers be read that belong to validation or test."""
    table = embed(ROOM, dim=4, trainer="svd", numbers=["difficulty"])
    file = table.save(tmp_path / "v.npz")
    table.save_model(file)
    vectors = asked(file).vectors
    students = tmp_path / "v.npz.model" / STUDENTS
    whole = students.read_bytes()
    noticed = 0
    for at in range(len(whole)):
        students.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert np.array_equal(asked(file).vectors, vectors)  # the word "digest" itself was hit
        except QCQError:
            noticed += 1
    assert len(whole) - 6 <= noticed < len(whole)
    students.write_bytes(whole)
    with safe_open(str(students), framework="numpy") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file(arrays, students)  # as an earlier version wrote it
    asked(file)
    for bad in ({"students": arrays["students"]}, {**arrays, "training": arrays["training"][1:]}):
        save_file(bad, students)
        refused(file, STUDENTS)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, STUDENTS])
@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.bfloat16])
def test_numbers_of_a_type_that_numpy_does_not_have(name: str, kind: torch.dtype, saved: Path, tmp_path: Path) -> None:
    made = tmp_path / saved.name
    folder = Path(shutil.copytree(saved.with_name(f"{saved.name}.model"), tmp_path / f"{saved.name}.model"))
    shutil.copy(saved, made)
    if not (folder / name).is_file():
        pytest.skip("this trainer has no such file")
    with safe_open(str(folder / name), framework="pt") as opened:
        said = opened.metadata()
        arrays = {key: opened.get_tensor(key).to(kind) for key in opened.keys()}  # noqa: SIM118
    save_tensors(arrays, folder / name, said)
    refused(made)
