"""Export: every row of docs/interop.md is run and read as its tool reads it; rows by index; what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

import qcq
from qcq import cli
from qcq.embeddings import Embeddings
from qcq.errors import ConfigError, EmbeddingError, UnknownNameError
from qcq.models.inference import with_model
from qcq.report.export import FORMATS, PADDING, export
from qcq.report.hub import _yaml
from qcq.report.maps import Map
from qcq.run import Run
from qcq.support.vectors import WRITERS

ROOT = Path(qcq.__file__).parent
QUESTIONS = 60
ORDER = {f"q{i}": (i * 7) % QUESTIONS for i in range(QUESTIONS)}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on two walks with two seeds."""
    folder = tmp_path_factory.mktemp("export") / "runs" / "first"
    room = ["simulated.questions=60", "simulated.students=40", "simulated.responses=20", "tune=false", "walk.length=8"]
    args = ["--walks", "qcq,concept-hop", "--trainers", "svd,ppmi-svd", "--seeds", "2", "--tasks", "edges,difficulty"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", *args, *(w for each in room for w in ("--set", each)), "--out", str(folder), "--quiet"])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def home(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``runs/first`` and ``keyid2idx.json``, where commands are run."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(first, target_is_directory=True)
    keys = {"questions": ORDER, "concepts": {"7": 0}, "uid": {"3": 0}, "max_concepts": 1}
    (tmp_path / "keyid2idx.json").write_text(json.dumps(keys))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(command: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(command)[1:])
    return int(stop.value.code or 0)


def best(home: Path) -> Embeddings:
    run = Run(home / "runs" / "first")
    trainer, walk = run.best()
    return run.embeddings(trainer, walk=walk)


def arranged(home: Path) -> np.ndarray:
    """The best vectors in the order of ``keyid2idx.json``, by a rule of its own."""
    emb = best(home)
    out = np.empty((QUESTIONS, emb.dim), dtype=np.float32)
    for name, row in ORDER.items():
        out[row] = emb[name]
    return out


# --- each row of the page, read as its tool reads it -----------------------------------------------------------------


def by_name(path: Path, emb: Embeddings) -> None:
    back = Embeddings.load(path)
    assert list(back.ids) == list(emb.ids)
    assert np.array_equal(back.vectors, emb.vectors)


def safetensors(path: Path, home: Path) -> None:
    by_name(path, best(home))
    back = Embeddings.load(path)
    assert back.provenance == best(home).provenance
    assert np.array_equal(back.concept_vectors, best(home).concept_vectors)


def numpy_file(path: Path, home: Path) -> None:
    by_name(path, best(home))
    with np.load(path, allow_pickle=False) as held:
        assert held["ids"].tolist() == list(best(home).ids)


def parquet(path: Path, home: Path) -> None:
    by_name(path, best(home))
    frame = pytest.importorskip("pandas").read_parquet(path).set_index("question")
    assert np.array_equal(frame.loc["q5"].to_numpy(), best(home)["q5"])


def csv_file(path: Path, home: Path) -> None:
    by_name(path, best(home))
    frame = pytest.importorskip("pandas").read_csv(path, index_col="question")
    assert frame.loc["q5"].to_numpy() == pytest.approx(best(home)["q5"], abs=1e-7)


def json_file(path: Path, home: Path) -> None:
    by_name(path, best(home))
    assert set(json.loads(path.read_text())) == set(best(home))


def word2vec(path: Path, home: Path) -> None:
    by_name(path, best(home))
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    kv = keyed.load_word2vec_format(path, binary=path.suffix == ".bin")
    assert list(kv.index_to_key) == list(best(home).ids)
    assert np.allclose(kv.vectors, best(home).vectors)


def torch_file(path: Path, home: Path) -> None:
    by_name(path, best(home))
    held = torch.load(path, weights_only=True)
    assert held["ids"] == list(best(home).ids)
    assert held["vectors"].dtype == torch.float32


def projector(path: Path, home: Path) -> None:
    """Numbers without a heading; names with one, because there is more than one column."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert np.array_equal(np.array(rows, dtype=np.float32), best(home).vectors)
    with path.with_name(f"{path.stem}-metadata.tsv").open(encoding="utf-8", newline="") as file:
        told = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["question"] for row in told] == list(best(home).ids)
    about = pl.read_csv(home / "runs" / "first" / "questions.csv", infer_schema=False)
    assert [row["name"] for row in told] == about["name"].to_list()
    assert [row["concepts"] for row in told] == about["concepts"].to_list()
    assert {0 <= float(row["difficulty"]) <= 1 for row in told if row["difficulty"]} == {True}


def atlas(path: Path, home: Path) -> None:
    emb, frame = best(home), pl.read_parquet(path)
    assert frame.columns == ["id", "vector", "name", "concepts", "difficulty", "x", "y", "neighbours"]
    assert np.array_equal(np.array(frame["vector"].to_list(), dtype=np.float32), emb.vectors)
    about = pl.read_csv(home / "runs" / "first" / "questions.csv", infer_schema=False)
    assert ["; ".join(names) for names in frame["concepts"].to_list()] == about["concepts"].to_list()
    assert frame["x"].null_count() == 0
    ids = frame["id"].to_list()
    for q, near in zip(ids, frame["neighbours"].to_list(), strict=True):
        assert [1 - d for d in near["distances"]] == pytest.approx(
            [emb.unit[emb.index[q]] @ emb.unit[j] for j in near["ids"]], abs=1e-6
        )
        assert near["distances"][0] == pytest.approx(1 - emb.nearest(q, 1)[0][1], abs=1e-5)


def rows_of_torch(path: Path, home: Path) -> None:
    held = torch.load(path, weights_only=True)
    assert np.array_equal(held["vectors"].numpy(), arranged(home))
    assert [ORDER[name] for name in held["ids"]] == list(range(QUESTIONS))


def rows_of_numpy(path: Path, home: Path) -> None:
    assert np.array_equal(np.load(path, allow_pickle=False), arranged(home))


def rows_of_json(path: Path, home: Path) -> None:
    """As edmine and KCQRL read it: as many rows as keys, each by its number as text."""
    held = json.loads(path.read_text())
    rows = torch.tensor([held[str(i)] for i in range(len(held))], dtype=torch.float)
    assert np.array_equal(rows.numpy(), arranged(home))


def card(path: Path, home: Path) -> None:
    """The folder, read by huggingface_hub itself; nothing is uploaded."""
    by_name(path / "vectors.safetensors", best(home))
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    yaml = pytest.importorskip("yaml", reason="needs the extra hf")
    run = Run(home / "runs" / "first")
    trainer, walk = run.best()
    made = hub.ModelCard.load(path / "README.md")
    assert made.data.model_name == "for-the-hub"
    (readout,) = {row["readout"] for row in run.rows("training") if (row["walk"], row["trainer"]) == (walk, trainer)}
    found = {(each.task_name, each.metric_type): each.metric_value for each in made.data.eval_results}
    mine = [r for r in run.rows("results") if (r["walk"], r["trainer"], r["readout"]) == (walk, trainer, readout)]
    assert set(found) >= {("edges", "mrr"), ("difficulty", "r2")}
    for (task, metric), value in found.items():
        seeds = [r["value"] for r in mine if (r["task"], r["metric"]) == (task, metric)]
        assert value == pytest.approx(np.mean(seeds), abs=1e-6)
    assert {(each.dataset_name, each.dataset_split) for each in made.data.eval_results} == {("simulated", "test")}
    assert run.read_json("about.json")["data_digest"] in made.text
    told = yaml.safe_load((path / ".eval_results" / "qcq.yaml").read_text(encoding="utf-8"))
    entries = hub.parse_eval_result_entries(told)
    assert {each.task_id: each.value for each in entries} == {"-".join(key): x for key, x in found.items()}
    for entry in entries:  # an interval holds its value
        low, high = map(float, re.findall(r"interval (\S+) to (\S+)", entry.notes)[0])
        assert low - 1e-3 <= entry.value <= high + 1e-3
    (block,) = re.findall(r"```python\n(.*?)```", made.text, flags=re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:  # as if it had been uploaded
        patch.setattr(hub, "hf_hub_download", lambda name, file: str(path / file))
        names: dict = {}
        exec(compile(block, "README.md", "exec"), names)
    assert np.array_equal(names["vector"], best(home).vectors[0])


TOOLS = {
    "vectors.safetensors": safetensors,
    "vectors.npz": numpy_file,
    "vectors.parquet": parquet,
    "vectors.csv": csv_file,
    "vectors.json": json_file,
    "vectors.vec": word2vec,
    "vectors.txt": word2vec,
    "vectors.bin": word2vec,
    "vectors.pt": torch_file,
    "vectors.tsv": projector,
    "atlas.parquet": atlas,
    "rows.pt": rows_of_torch,
    "rows.npy": rows_of_numpy,
    "rows.json": rows_of_json,
    "for-the-hub": card,
}
PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| .+ \| `(qcq export .+)` \|$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=[each.split()[-1] for each in COMMANDS])
def test_a_row_of_the_page_does_what_it_says(command: str, home: Path) -> None:
    assert call(command) == 0
    path = home / command.split()[-1]
    TOOLS[path.name](path, home)


def test_the_page_has_every_format() -> None:
    assert [each.split()[-1] for each in COMMANDS] == list(TOOLS)
    endings = {Path(name).suffix for name in TOOLS}
    assert endings == {each.ending for each in FORMATS.values()} == {*WRITERS, ".npy", ".tsv", ""}


def test_the_last_line_is_the_command_that_uploads(home: Path, capsys) -> None:
    assert call("qcq export runs/first --to hub --out 'my vectors.v2'") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "to upload it: hf upload YOUR-NAME/'my vectors.v2' 'my vectors.v2' ."
    assert call("qcq export runs/first --to hub --out 'my vectors.v2'") == 2
    assert "exists already; name another file, or replace it with --redo" in capsys.readouterr().err
    assert call("qcq export runs/first --to hub --out 'my vectors.v2' --redo") == 0
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    assert call("qcq export runs/first --to hub --out mine") == 2
    assert "holds files that qcq did not make ('thesis.txt')" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


def test_a_file_has_a_card_without_figures(home: Path) -> None:
    emb = Embeddings(["a", "b"], np.array([[1.0, 2.0], [3.0, 4.0]]))
    emb.save("mine.npz")
    made = export("mine.npz", "hub", "hub")
    assert sorted(path.name for path in made.files) == ["README.md", "vectors.safetensors"]
    by_name(Path("hub/vectors.safetensors"), emb)
    assert "data, split and figures aren't known here" in Path("hub/README.md").read_text()


def test_no_name_adds_a_line_to_a_card() -> None:
    name = "bank\nlicense: mit"
    lines = _yaml({"tags": ["qcq", name], "model-index": [{"name": name, "results": [{"name": name}]}]})
    assert not [line for line in lines if "\n" in line or line.startswith("license")]
    assert sum(json.dumps(name) in line for line in lines) == 3


def test_a_language_model_gets_a_card_in_its_own_folder(home: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    hub = pytest.importorskip("huggingface_hub")
    graph = qcq.KnowledgeGraph.from_edges([(f"q{i}", f"c{i % 3}") for i in range(9)])
    source = qcq.TrainingData(graph, qcq.WALKS["qcq"](length=6, per_question=2))
    shape = {"layout": "bert", "norm": "post", "position": "absolute", "combine": "add"}
    model = qcq.TRAINERS["mlm"](dim=8, heads=2, layers=1, steps=2, **shape).fit(source)
    model.to_huggingface("bert")
    model.embeddings().save("bert.npz")
    export("bert.npz", "bert", "hub")
    made = hub.ModelCard.load("bert/README.md")
    assert made.data.library_name == "transformers"
    for line in re.findall(r'= (\w+)\.from_pretrained\("YOUR-NAME/bert"\)', made.text):
        assert getattr(transformers, line).from_pretrained("bert", local_files_only=True) is not None
    assert "AutoModelForMaskedLM.from_pretrained" in made.text


@pytest.mark.parametrize(
    ("data", "named", "said"),
    [
        ("ednet:x", "cc-by-nc-4.0", "CC BY-NC 4.0 (https://github.com/riiid/ednet)"),
        ("akt:x", "other", "own terms: not to be passed on (https://"),
        ("pykt:x", None, "not known here"),
        ("x", None, "not known here"),
    ],
)
def test_the_licence_of_the_data_is_said_where_it_is_known(data: str, named: str | None, said: str, home: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    shutil.copytree(home / "runs/first", "other")
    text = Path("other/config.toml").read_text().replace('data = "simulated"', f'data = "{data}"')
    Path("other/config.toml").write_text(text)
    export("other", "hub", "hub")
    made = hub.ModelCard.load("hub/README.md")
    assert made.data.license == named
    assert (made.data.to_dict().get("license_link") is not None) == (named == "other")
    assert f"Licence of the data: {said}" in made.text


# --- which vectors ---------------------------------------------------------------------------------------------------


def test_vectors_are_those_that_did_best_on_validation_as_similar_shows(home: Path, capsys) -> None:
    rows = [json.loads(line) for line in (home / "runs/first/tuning.jsonl").read_text().splitlines()]
    (home / "other").mkdir()
    for name in ("config.toml", "about.json", "training.jsonl", "questions.csv", "concepts.csv", "graph.npz"):
        shutil.copy(home / "runs/first" / name, home / "other")
    (home / "other" / "embeddings").symlink_to(home / "runs/first/embeddings", target_is_directory=True)
    for at, want in enumerate(rows):
        if not want["chosen"] or want["walk"] == "none":  # a baseline is never taken by itself
            continue
        scored = [{**row, "score": float(i == at)} for i, row in enumerate(rows)]
        (home / "other/tuning.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored))
        made = export("other", f"{at}.npz")
        right = Run("runs/first").embeddings(want["trainer"], walk=want["walk"])
        assert np.array_equal(made.embeddings.vectors, right.vectors)
        assert call("qcq similar other q3 --json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["trainer"] == want["trainer"]
        assert [n["question"] for n in shown["similar"]] == [q for q, _ in right.nearest("q3")]


def test_trainer_walk_and_seed_are_chosen_by_name(home: Path) -> None:
    made = export("runs/first", "v.npz", trainer="ppmi-svd", walk="concept-hop", seed=1)
    right = Run("runs/first").embeddings("ppmi-svd", walk="concept-hop", seed=1)
    assert np.array_equal(made.embeddings.vectors, right.vectors)
    assert made.label == "ppmi-svd on walk concept-hop, table, seed 1"
    assert export("runs/first", "w.npz", walk="concept-hop").label.startswith("ppmi-svd on walk concept-hop")
    with pytest.raises(UnknownNameError, match="did you mean svd"):
        export("runs/first", "x.npz", trainer="svdd")
    with pytest.raises(UnknownNameError, match="did you mean qcq"):
        export("runs/first", "x.npz", walk="qcp")
    with pytest.raises(ConfigError, match="no seed 9; it has 0, 1"):
        export("runs/first", "x.npz", seed=9)
    assert not Path("x.npz").exists()


def test_a_file_is_exported_like_a_run(home: Path) -> None:
    emb = Embeddings(["a b", "c"], np.array([[1.0, 2.0], [3.0, 4.0]]))
    emb.save("mine.npz")
    assert export("mine.npz", "mine.csv").label == "mine.npz"
    by_name(Path("mine.csv"), emb)
    export("mine.npz", "mine.tsv")
    assert Path("mine-metadata.tsv").read_text() == "a b\nc\n"  # one column has no heading
    made = export("mine.npz", "mine-atlas.parquet", "atlas")
    assert pl.read_parquet("mine-atlas.parquet").columns == ["id", "vector"]
    assert [note.partition(":")[0] for note in made.notes] == [
        "names, concepts and difficulty are known of a run's questions only",
        "no map of these vectors",
    ]
    Embeddings(["a\tb"], np.ones((1, 2))).save("tab.json")
    with pytest.raises(EmbeddingError, match=r"'a\\tb' has white space"):
        export("tab.json", "tab.tsv")
    assert not list(home.glob("tab*.tsv*"))  # neither of the two files


def test_a_map_of_some_questions_leaves_the_others_without_a_place(home: Path, monkeypatch) -> None:
    whole = Map.load
    some = np.array([3, 10, 20])

    def part(path: Path) -> Map:
        made = whole(path)
        assert made is not None
        near = np.array([[1, 2], [0, 2], [1, 0]], dtype=np.int32)
        similar = np.full((3, 2), 0.25, dtype=np.float32)
        return Map(some, made.pca[some], made.explained, made.tsne[:0], 0, made.twins[some], near, similar, near)

    monkeypatch.setattr("qcq.report.export.Map.load", part)
    made = export("runs/first", "some.parquet", "atlas")
    assert made.notes[-1] == "57 of 60 questions aren't on the map: no x, y and neighbours"
    frame = pl.read_parquet("some.parquet")
    assert frame["x"].null_count() == frame["neighbours"].null_count() == 57
    assert frame["neighbours"][10] == {"ids": [3, 20], "distances": [0.75, 0.75]}  # rows of the table, not of the map


def test_a_seed_without_a_map_has_no_places(home: Path) -> None:
    made = export("runs/first", "second.parquet", "atlas", trainer="ppmi-svd", seed=1)
    assert "no map of these vectors: x, y and neighbours left out; embedding-atlas --vector makes them" in made.notes
    assert pl.read_parquet("second.parquet").columns == ["id", "vector", "name", "concepts", "difficulty"]


def test_a_folder_whose_questions_are_in_another_order_is_refused(home: Path) -> None:
    shutil.copytree(home / "runs/first", "other")
    lines = Path("other/questions.csv").read_text().splitlines()
    Path("other/questions.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    with pytest.raises(ConfigError, match="isn't in the order of the vectors"):
        export("other", "atlas.parquet", "atlas")


# --- rows by index ---------------------------------------------------------------------------------------------------

THREE = Embeddings(["a", "b", "c"], np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


@pytest.mark.parametrize(
    ("order", "padding", "rows"),
    [
        ({"c": 0, "a": 1, "b": 2}, None, [[5, 6], [1, 2], [3, 4]]),
        ({"c": 0, "a": 1, "b": 2}, "first", [[0, 0], [5, 6], [1, 2], [3, 4]]),
        ({"c": 0, "a": 1, "b": 2}, "last", [[5, 6], [1, 2], [3, 4], [0, 0]]),
        ({"questions": {"b": 2, "c": 1, "a": 3}}, "first", [[0, 0], [5, 6], [3, 4], [1, 2]]),
    ],
)
def test_rows_are_where_the_order_says(order: dict, padding, rows: list, tmp_path: Path) -> None:
    THREE.save(tmp_path / "v.npz")
    (tmp_path / "o.json").write_text(json.dumps(order))
    for name in ("r.npy", "r.pt", "r.json"):
        made = export(tmp_path / "v.npz", tmp_path / name, order=tmp_path / "o.json", padding=padding)
        assert made.embeddings.vectors.tolist() == rows
        assert len([note for note in made.notes if "is the padding row" in note]) == (padding is not None)
    assert np.load(tmp_path / "r.npy").tolist() == rows
    assert [*json.loads((tmp_path / "r.json").read_text()).values()] == rows
    back = Embeddings.load(tmp_path / "r.pt")
    assert back.vectors.tolist() == rows
    assert [name for name in back.ids if name != PADDING] == [str(THREE.ids[r[0] // 2]) for r in rows if any(r)]


def test_vectors_that_the_order_has_no_question_for_are_counted(tmp_path: Path) -> None:
    THREE.save(tmp_path / "v.npz")
    (tmp_path / "o.json").write_text('{"c": 0}')
    made = export(tmp_path / "v.npz", tmp_path / "r.npy", order=tmp_path / "o.json")
    assert made.notes == (f"2 of 3 vectors left out, no questions of {tmp_path / 'o.json'}: 'a' first",)
    assert np.load(tmp_path / "r.npy").tolist() == [[5, 6]]


def test_rows_of_zeros_are_told_of_where_a_tool_divides_by_their_length(tmp_path: Path) -> None:
    Embeddings(["a", "b"], np.array([[0.0, 0.0], [1.0, 0.0]])).save(tmp_path / "v.npz")
    (tmp_path / "o.json").write_text('{"a": 0, "b": 1}')
    made = export(tmp_path / "v.npz", tmp_path / "r.json", order=tmp_path / "o.json")
    assert made.notes[0].startswith("1 rows are zeros: edmine and KCQRL")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory; give the keyid2idx.json"),
        ("{", "no readable JSON"),
        ("[1]", "no object of indices"),
        ('{"questions": [["a", 0]]}', "no object of indices"),
        ('{"questions": {}, "concepts": {"x": 0}}', "no questions in it"),
        ('{"a": "0"}', "question 'a' has the index '0'; give a whole number from 0"),
        ('{"a": true}', "question 'a' has the index True"),
        ('{"a": -1}', "question 'a' has the index -1"),
        ('{"a": 0.0}', "question 'a' has the index 0.0"),
        ('{"a": 0, "b": 1, "a": 2}', "1 questions occur more than once"),
        ('{"a": 0, "b": 0}', "2 questions have 1 indices from 0 to 0; number them from 0"),
        ('{"a": 0, "b": 2}', "2 questions have 2 indices from 0 to 2; number them from 0"),
        ('{"a": 2, "b": 3}', "2 questions have 2 indices from 2 to 3; number them from 0"),
        ('{"a": 1, "b": 2}', "its indices begin with 1, so row 0 is for padding; add --padding first"),
        ('{"a": 0, "d": 1, "e": 2}', "2 of 3 questions have no vector: 'd', 'e'; the file's other ids are 'b', 'c'"),
    ],
)
def test_an_order_is_never_guessed(text: str | None, words: str, tmp_path: Path) -> None:
    THREE.save(tmp_path / "v.npz")
    order = tmp_path / "o.json"
    if text is not None:
        order.write_text(text)
    with pytest.raises((ConfigError, EmbeddingError)) as caught:
        export(tmp_path / "v.npz", tmp_path / "r.npy", order=order)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{order}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "r.npy").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--out v.h5", "v.h5: nothing is exported as '.h5'; give .safetensors"),
        ("--out v", "nothing is exported as 'no ending'"),
        ("--out v.parquet --to parket", "did you mean parquet"),
        ("--out v.csv --to atlas", "v.csv: atlas is written to a path that ends in .parquet"),
        ("--out v.npy", "v.npy: npy has no ids, only rows; say which row is whose with --order"),
        (
            "--out v.csv --order keyid2idx.json",
            "csv goes by ids, not by rows; leave --order out, or write .json, .pt, .npy",
        ),
        ("--out v.pt --padding first", "a padding row needs an order of rows; add --order"),
        ("--out there.csv", "there.csv: exists already; name another file, or replace it with --redo"),
        ("--out there.tsv", "there-metadata.tsv: exists already"),
    ],
)
def test_what_cannot_be_exported_is_one_line(options: str, words: str, home: Path, capsys) -> None:
    for name in ("there.csv", "there-metadata.tsv"):
        (home / name).write_text("mine")
    before = sorted(home.iterdir())
    assert call(f"qcq export runs/first {options}") == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert sorted(home.iterdir()) == before
    assert (home / "there.csv").read_text() == "mine"


def test_redo_replaces_a_file_and_a_file_has_one_table(home: Path, capsys) -> None:
    Path("v.csv").write_text("mine")
    assert call("qcq export runs/first --out v.csv --redo") == 0
    by_name(Path("v.csv"), best(home))
    assert "v.csv: 60 vectors of" in capsys.readouterr().out
    assert call("qcq export v.csv --out w.npz --seed 1 --walk qcq") == 2
    assert "v.csv: a file holds one table; leave --walk, --seed out" in capsys.readouterr().err
    assert call("qcq export nowhere.npz --out w.npz") == 2
    assert "nowhere.npz: no such run folder or file of vectors" in capsys.readouterr().err
    assert call("qcq export runs --out w.npz") == 2
    assert "runs: no run in this folder" in capsys.readouterr().err


def test_a_trainer_that_failed_has_no_vectors(home: Path) -> None:
    shutil.copytree(home / "runs/first", "other")
    rows = Run("other").rows("training")
    failed = [{key: row[key] for key in ("walk", "trainer", "seed")} | {"error": "no memory"} for row in rows]
    Path("other/training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in failed))
    with pytest.raises(ConfigError, match=r"svd failed and has no vectors \(no memory\); run it again"):
        export("other", "v.npz", trainer="svd")
    assert "<th>failed</th><td>svd, " in Run("other")._repr_html_()


def test_a_notebook_shows_a_run(home: Path) -> None:
    shown = Run("runs/first")._repr_html_()
    for cell in (
        "<td>simulated</td>",
        "<td>finished</td>",
        "<td>60</td>",
        "<td>qcq, concept-hop</td>",
        "<td>0, 1</td>",
    ):
        assert cell in shown
    assert "nothing in this folder yet" in Run("<empty>")._repr_html_()
    assert "<empty>" not in Run("<empty>")._repr_html_()


# --- the released tools themselves, where they are installed ----------------------------------------------------------


@pytest.mark.tools
def test_edmine_itself_loads_the_rows(home: Path) -> None:
    layers = pytest.importorskip("edmine.model.module.EmbedLayer", reason="needs edmine")
    export("runs/first", "rows.json", order="keyid2idx.json")
    dim = best(home).dim
    config = {"num_item": QUESTIONS, "dim_item": dim, "learnable": False, "embed_path": "rows.json"}
    layer = layers.EmbedLayer({"question": config})
    made = layer.get_emb("question", torch.arange(QUESTIONS)).numpy()
    rows = arranged(home)
    assert made == pytest.approx(rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.sqrt(QUESTIONS), abs=1e-4)


@pytest.mark.tools
def test_the_reader_of_embedding_atlas_loads_the_table(home: Path) -> None:
    utils = pytest.importorskip("embedding_atlas.utils", reason="needs embedding-atlas")
    from embedding_atlas.graph_metrics import compute_degree_columns

    export("runs/first", "atlas.parquet", "atlas")
    frame = utils.load_pandas_data("atlas.parquet")
    assert np.array_equal(np.stack(frame["vector"]), best(home).vectors)
    inward, outward, _ = compute_degree_columns(frame, neighbors="neighbours")
    assert set(outward) == {10}
    assert sum(inward) == 10 * QUESTIONS


@pytest.mark.tools
def test_the_plugin_of_tensorboard_reads_both_files(home: Path) -> None:
    plugin = pytest.importorskip("tensorboard.plugins.projector.projector_plugin", reason="needs tensorboard")
    export("runs/first", "vectors.tsv")
    assert np.array_equal(plugin._read_tensor_tsv_file("vectors.tsv").astype(np.float32), best(home).vectors)


def pykt_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pykt_vectors", ROOT / "examples" / "pykt_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_put_into_a_table_of_either_shape() -> None:
    """The rule of the example, without pyKT."""
    put, rows = pykt_example().put, torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    model = torch.nn.ModuleDict({"one": torch.nn.Embedding(2, 2), "two": torch.nn.Embedding(4, 4)})
    put(model, "one", rows, trained=False)
    put(model, "two", rows, trained=True)
    assert model["one"].weight.tolist() == rows.tolist()
    assert model["two"].weight.tolist() == [[0, 0, 1, 2], [0, 0, 3, 4], [1, 2, 0, 0], [3, 4, 0, 0]]
    assert [model[name].weight.requires_grad for name in ("one", "two")] == [False, True]
    with pytest.raises(ValueError, match=r"two is \(4, 4\), the rows \(2, 3\); set emb_size to 3"):
        put(model, "two", torch.ones(2, 3), trained=True)


@pytest.mark.tools
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("name", "table", "settings"),
    [
        ("qdkt", "model.interaction_emb", {}),
        ("iekt", "model.que_emb.que_emb", {"lamb": 40, "n_layer": 1, "cog_levels": 10, "acq_levels": 10, "dropout": 0}),
        ("saint", "encoder.0.embd_ex", {"seq_len": 20, "num_attn_heads": 2, "dropout": 0.0}),
    ],
)
def test_an_unmodified_pykt_model_trains_on_our_rows(name: str, table: str, settings: dict, trained: bool, home: Path):
    models = pytest.importorskip("pykt.models", reason="needs pykt-toolkit")
    example = pykt_example()
    export("runs/first", "rows.pt", order="keyid2idx.json")
    rows = torch.load("rows.pt", weights_only=True)["vectors"]
    assert np.array_equal(rows.numpy(), arranged(home))
    halves = 2 if name == "qdkt" else 1
    data = {"num_q": QUESTIONS, "num_c": 3, "max_concepts": 1, "emb_path": ""}
    model = models.init_model(name, {"emb_size": halves * rows.shape[1], **settings}, data, "qid")
    example.put(model, table, rows, trained)
    weight = model.get_submodule(table).weight
    right = weight[:QUESTIONS, (halves - 1) * rows.shape[1] :]  # questions, or wrong answers to them
    assert torch.equal(right, rows)
    before, given = weight.detach().clone(), answers(example)
    if name == "saint":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    else:
        model.compile(optimizer="adam", lr=0.01)
        optimizer = model.opt
    for _ in range(3):
        optimizer.zero_grad()
        loss(name, model, given).backward()
        optimizer.step()
    assert torch.equal(weight, before) == (not trained)
    assert (weight - before).abs().max() < 0.1  # it began with ours
    with torch.no_grad():  # and what it predicts goes by the table
        one = loss(name, model, given)
        weight.zero_()
        assert loss(name, model, given) != one


def answers(example: ModuleType, students: int = 8, length: int = 20) -> dict[str, torch.Tensor]:
    """Made-up answers, read by the example from a file in pyKT's form and stacked as a loader does."""
    made = np.random.default_rng(0)
    with open("train_valid_sequences_quelevel.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["fold", "uid", "questions", "responses"])
        for student in range(students):
            q, r = made.integers(QUESTIONS, size=length), made.integers(2, size=length)
            lines.writerow([student % 2, student, ",".join(map(str, q)), ",".join(map(str, r))])
    read = example.Answers(Path("train_valid_sequences_quelevel.csv"), {0, 1})
    return torch.utils.data.default_collate([read[i] for i in range(len(read))])


def test_the_example_reads_folds_and_masks_padding(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('fold,uid,questions,responses\n0,a,"3,1,-1,-1","1,0,-1,-1"\n1,b,"2,2,4,0","0,1,1,1"\n')
    read = pykt_example().Answers(file, {0})
    assert len(read) == 1
    got = {name: each.tolist() for name, each in read[0].items()}
    assert (got["qseqs"], got["shft_qseqs"]) == ([3, 1, 0], [1, 0, 0])
    assert (got["rseqs"], got["shft_rseqs"]) == ([1, 0, 0], [0, 0, 0])
    assert got["masks"] == got["smasks"] == [True, False, False]
    assert len(pykt_example().Answers(file, {0, 1})) == 2


def loss(name: str, model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(0)  # of dropout, and of what IEKT draws
    if name == "saint":
        q, r = (torch.cat([given[k][:, :1], given[f"shft_{k}"]], dim=1) for k in ("qseqs", "rseqs"))
        said = model(q, torch.zeros_like(q), r[:, :-1].long())
        return torch.nn.functional.binary_cross_entropy(said, r)
    if name == "iekt":  # a concept list a question, which the example's batch leaves out
        given = {**given, **{key: given[key][..., None] for key in ("cseqs", "shft_cseqs")}}
    return model.train_one_step(given)[1]


# --- what an earlier output left -------------------------------------------------------------------------------------


def all_files(folder: str | Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_card_never_stands_beside_the_results_of_another_export(home: Path) -> None:
    export("runs/first", "hub", "hub")
    assert ".eval_results/qcq.yaml" in all_files("hub")
    Path("hub/.eval_results/mine.yaml").write_text("mine")
    Embeddings(["a"], np.ones((1, 2))).save("mine.npz")
    with pytest.raises(ConfigError, match="exists already; name another file, or replace it with --redo"):
        export("mine.npz", "hub", "hub")
    export("mine.npz", "hub", "hub", redo=True)
    assert all_files("hub") == {"README.md", "vectors.safetensors", "qcq.json", ".eval_results/mine.yaml"}
    Path("hub/.eval_results/mine.yaml").unlink()
    export("runs/first", "hub", "hub", redo=True)
    export("mine.npz", "hub", "hub", redo=True)
    assert not Path("hub/.eval_results").exists()
    export("runs/first", "hub", "hub", redo=True)
    for name in ("README.md", "vectors.safetensors"):
        Path("hub", name).unlink()
    with pytest.raises(ConfigError, match=r"qcq\.yaml: exists already"):
        export("mine.npz", "hub", "hub")


@pytest.mark.parametrize(("to", "out"), [("hub", "made"), ("tensorboard", "made.tsv")])
def test_a_killed_export_leaves_no_files_of_two_tables(to: str, out: str, home: Path, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    names = [f"n{i}" for i in range(3)]
    for name, number in (("old", 1.0), ("new", 2.0)):
        Embeddings(names, np.full((3, 2), number)).save(f"{name}.npz")
    made = export("old.npz", out, to).files
    old = {path.name: path.read_bytes() for path in made}
    rename, left = os.replace, 1

    def replaced(source, target) -> None:
        nonlocal left
        if Path(target) in made:
            if not left:
                raise Killed
            left -= 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replaced)
        with pytest.raises(Killed):
            export("new.npz", out, to, redo=True)
    there = [path for path in made if path.exists()]
    assert len(there) == 1
    export("new.npz", out, to, redo=True)
    assert {path.name: path.read_bytes() for path in made} != old


@pytest.mark.parametrize("to", [None, "atlas"])
def test_a_table_never_stands_beside_the_model_of_another(to: str | None, home: Path, capsys) -> None:
    room = "--set simulated.questions=60 --set simulated.students=40"
    assert call(f"qcq embed {room} --trainer sgns --walk qcq --dim 4 --out e.parquet --quiet") == 0
    made = {"model.safetensors", "weights.safetensors", "students.safetensors", "qcq.json"}
    assert all_files("e.parquet.model") == made
    table = Embeddings.load("e.parquet")
    Embeddings(list(table.ids), -table.vectors).save("n.npz")
    assert call("qcq export n.npz --out e.parquet") == 2
    assert call(f"qcq export e.parquet --out e.parquet --redo{f' --to {to}' if to else ''}") == 0  # its own model stays
    assert Path("e.parquet.model/model.safetensors").is_file()
    Path("e.parquet.model/mine.txt").write_text("mine")
    assert call(f"qcq export n.npz --out e.parquet --redo{f' --to {to}' if to else ''}") == 0
    assert all_files("e.parquet.model") == {"mine.txt"}
    capsys.readouterr()
    assert call(f"qcq similar e.parquet {table.ids[0]}") == 0
    assert table.ids[1] in Embeddings.load("e.parquet")


def test_saving_removes_the_model_of_another_table_and_nothing_else(tmp_path: Path) -> None:
    bank = qcq.KnowledgeGraph.from_edges([(f"q{i}", f"c{i % 3}") for i in range(9)])
    old = with_model(Embeddings(bank.questions, np.eye(9)), bank, [])
    file = tmp_path / "v.npz"
    old.save_model(old.save(file))
    old.save(file)
    folder = tmp_path / "v.npz.model"
    assert folder.is_dir()  # the same table
    Embeddings(bank.questions, 2 * np.eye(9)).save(file)
    assert not folder.exists()
    old.save_model(file)
    assert replace(old, model=None).save_model(file) is None
    assert not folder.exists()
    folder.mkdir()
    save_file({"weight": np.ones(2)}, folder / "model.safetensors")  # of another library
    Embeddings(bank.questions, 2 * np.eye(9)).save(file)
    assert all_files(folder) == {"model.safetensors"}
    shutil.rmtree(folder)
    (old.save_model(file) / "model.safetensors").write_bytes(b"damaged")
    Embeddings(bank.questions, 2 * np.eye(9)).save(file)
    assert not folder.exists()
