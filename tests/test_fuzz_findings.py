"""What benchmarks/fuzz.py found, each as small as it can be: a typed error of one line, and nothing on the terminal."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcq.config import Config
from qcq.corpus import Corpus
from qcq.data import checks, read, table
from qcq.embeddings import Embeddings
from qcq.engine.verify import verify
from qcq.errors import QCQError
from qcq.graph import KnowledgeGraph
from qcq.run import Run
from qcq.support.arrays import read_npy, read_npz, read_sparse
from qcq.support.folders import write_mark
from qcq.support.memory import amount
from qcq.walks import WALKS

DEEP = "[" * 5_000
LONG = "9" * 5_000  # more digits than Python reads
S2KT = {
    "train.txt": "2\n0,1\n0,1\n1,0\n",
    "dev.txt": "1\n1\n1\n1\n",
    "test.txt": "1\n0\n0\n0\n",
    "problem_id_hashmap.json": '{"p0": 0, "p1": 1}',
    "skill_id_hashmap.json": '{"10": 0, "10_13": 1}',
}


def npy(header: bytes, data: bytes = b"") -> bytes:
    """An array file with any header."""
    text = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def npz(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as held:
        for name, data in members.items():
            held.writestr(f"{name}.npy", data)
    return path


def whole(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def folder(home: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return home


def vectors(ending: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda home: Embeddings.load(folder(home, {f"v{ending}": content}) / f"v{ending}")


HEADERS = {
    "a bracket too few": npy(b"{'descr': '<U3', 'shape': (3,"),
    "no header": npy(b"hello"),
    "keys of two types": npy(b"{'descr': '<U3', 1: 2}"),
    "a type that is none": npy(b"{'descr': ',f8', 'fortran_order': False, 'shape': (1,), }"),
    "objects": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x" * 8),
    "too few bytes": npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (9,), }", b"x" * 8),
    "too many bytes for any machine": npy(
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1" + b"0" * 15 + b",), }"
    ),
    "characters beyond the last": npy(b"{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff" * 4),
    "half a character": npy(b"{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\x00\xd8\x00\x00"),
    "half a character, other order": npy(
        b"{'descr': '>U1', 'fortran_order': False, 'shape': (1,), }", b"\x00\x00\xd8\x00"
    ),
    "nothing": b"",
    "the start of an archive": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", HEADERS)
def test_an_array_that_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(HEADERS[name])
    table = npz(tmp_path / "v.npz", {"ids": HEADERS[name], "vectors": whole(np.eye(1))})
    for act in (lambda: read_npy(tmp_path / "a.npy"), lambda: read_npz(table)):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            act()
    with pytest.raises(QCQError, match=r"v.npz: (no readable embeddings \([^\n]+\)|it holds an array of objects)"):
        Embeddings.load(table)
    members = {"questions": HEADERS[name], "concepts": whole(np.array(["c"])), "format": whole(np.array(b"csr"))}
    members |= {"data": whole(np.ones(1)), "indices": whole(np.zeros(1, int)), "indptr": whole(np.array([0, 1]))}
    with pytest.raises(QCQError, match=r"g.npz: [^\n]+"):
        read(f"graph:{npz(tmp_path / 'g.npz', members | {'shape': whole(np.array([1, 1]))})}")


@pytest.mark.parametrize("pointers", [[0, 5, 0], [0, 1 << 62, 0], [0, -1, 0], [0, 2, 1]])
def test_row_pointers_that_decrease(pointers: list[int], tmp_path: Path) -> None:
    """scipy doesn't check them where the last one is zero, and its compiled code would write wherever they point."""
    members = {"format": np.array(b"csr"), "shape": np.array([2, 2]), "indptr": np.array(pointers)}
    members |= {"data": np.ones(2), "indices": np.zeros(2, int)}
    members |= {name: np.array([f"{name}{i}" for i in range(2)]) for name in ("questions", "concepts")}
    path = npz(tmp_path / "g.npz", {name: whole(array) for name, array in members.items()})
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        read_sparse(path)
    with pytest.raises(QCQError, match=r"g.npz: no readable sparse matrix [^\n]+"):
        read(f"graph:{path}")


def workbook(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], object]:
    """A bank in a workbook of which a member was changed."""

    def act(home: Path) -> object:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in (["question", "concepts"], ["q1", "a"], ["q2", "b"]):
            book.active.append(row)
        book.save(home / "bank.xlsx")
        with zipfile.ZipFile(home / "bank.xlsx") as held:
            members = {name: held.read(name) for name in held.namelist()}
        before = dict(members)
        change(members)
        assert members != before
        with zipfile.ZipFile(home / "bank.xlsx", "w") as made:
            for name, text in members.items():
                made.writestr(name, text)
        return read(f"csv:{home / 'bank.xlsx'}")

    return act


def replaced(member: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.__setitem__(member, members[member].replace(old, new, 1))


SHEET = "xl/worksheets/sheet1.xml"


def data(form: str, files: dict[str, str | bytes]) -> Callable[[Path], object]:
    return lambda home: read(f"{form}:{folder(home, files)}")


def settings(text: str) -> Callable[[Path], object]:
    return lambda home: Config.load(folder(home, {"a.toml": text}) / "a.toml")


EDNET: dict[str, str | bytes] = {
    "contents/questions.csv": "question_id,correct_answer,tags\nq1,a,1\n",
    "KT1/u1.csv": 'timestamp,question_id,user_answer\n1,"q1,a\n2,q1,a"\n',
}
CASES: dict[str, Callable[[Path], object]] = {
    "a length of thousands of digits": data(
        "edmine",
        {
            "data.txt": f"user_id,seq_len;question_seq,correctness_seq\n0\n{LONG}\n0,1\n1,0\n",
            "Q_table.npy": whole(np.eye(2)),
        },
    ),
    "a number of answers of thousands of digits": data(
        "edudata", {"item.csv": "item,knowledge\n1,2\n", "log.txt": f"{LONG}\n1\n0\n"}
    ),
    "minus signs alone": data("s2kt", {**S2KT, "train.txt": "1\n0\n0\n---1"}),
    "a Q-matrix of records": data(
        "edmine",
        {
            "data.txt": "user_id,seq_len;question_seq,correctness_seq\n0\n2\n0,1\n1,0\n",
            "Q_table.npy": whole(np.zeros((2, 2), dtype=[("a", "i4")])),
        },
    ),
    "a workbook without a sheet": workbook(
        lambda members: members.update(
            {"xl/workbook.xml": re.sub(rb"<sheets>.*</sheets>", b"<sheets/>", members["xl/workbook.xml"])}
        )
    ),
    "a sheet that ends within a cell": workbook(replaced(SHEET, b"</sheetData>", b"<")),
    "a sheet with an unknown word": workbook(replaced(SHEET, b"summaryBelow", b"summarySight")),
    "a row that has no number": workbook(replaced(SHEET, b'r="2"', b'r="3inf"')),
    "a row beyond every sheet": workbook(replaced(SHEET, b'r="2"', b'r="2000000"')),
    "a row of 301 digits": workbook(replaced(SHEET, b'r="2"', b'r="1e300"')),
    "a cell in no column": workbook(replaced(SHEET, b'"A2"', b'"A\xef\xbc\x912"')),
    "an answer of thousands of digits": data("s2kt", {**S2KT, "train.txt": "1\n0\n0\n" + LONG}),
    "an index of thousands of digits": data("s2kt", {**S2KT, "skill_id_hashmap.json": f'{{"a": {LONG}}}'}),
    "half a character in a map": data("s2kt", {**S2KT, "skill_id_hashmap.json": '{"\\ud800": 0, "10": 1}'}),
    "a heading of a byte order mark alone": data("icd", {"item.csv": b"\xff\xfe"}),
    "a quote in an answer": data("ednet", EDNET),
    "vectors nested too deeply": vectors(".json", f'{{"q": {DEEP}'),
    "a whole number that no float holds": vectors(".json", '{"q": [1' + 400 * "0" + "]}"),
    "half a character in an id": vectors(".json", '{"\\ud800": [1, 2]}'),
    **{
        f"heading {heading[:12]!r} of {len(heading)} letters ({ending})": vectors(ending, f"{heading}\n".encode() + row)
        for heading in (f"3 {10**25}", f"0 {10**25}", f"3 {LONG}", f"{LONG} 1", "² 1")
        for ending, row in ((".txt", b"a 1\n"), (".vec", b"a 1\n"), (".bin", b"a \0\0\0\0"))
    },
    "settings nested too deeply": settings(f"seeds = {DEEP}"),
    "a student with thousands of digits": data("pykt", {"data.txt": f"s,{LONG}\na\nx\n1\n1\nNA\n"}),
    "an amount of memory of thousands of digits": lambda home: amount(LONG),
    "settings longer than any": settings("# a\n" * 30_000),
    "a key with more points than any": settings("a" + ".a" * 40_000 + " = 1"),
    "a setting of thousands of digits": settings(f"seeds = {LONG}"),
    "an override of thousands of digits": lambda home: Config.load(overrides=[f"seeds={LONG}"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_typed_error_of_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(QCQError) as caught:
        CASES[name](tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", npy(b"{'descr': '<i4', 'shape': (12,(12, 4), }")])
def test_a_damaged_shard_of_walks(content: bytes, tmp_path: Path) -> None:
    WALKS["qcq"](length=3, per_question=1).sample(KnowledgeGraph.from_edges([("a", "c"), ("b", "c")])).save(tmp_path)
    shard = next(tmp_path.glob("*.npy"))
    for path, damage in ((shard, content), (tmp_path / "corpus.json", DEEP.encode())):
        path.write_bytes(damage)
        with pytest.raises(QCQError, match="no readable corpus"):
            Corpus.load(tmp_path)


def test_a_literal_is_read_without_warnings(tmp_path: Path) -> None:
    folder(tmp_path, {"pro_id_dict.txt": "{'q1': 0, 'q2': 1}", "pro_skill_dict.txt": "{'q1': '5', 'q2': '6'}"})
    folder(tmp_path, {"data.txt": "[1]\n[0]\n[0]\n[1or]\n"})
    code = (
        f"from qcq.data import read\ntry: read({f'pebg:{tmp_path}'!r})\nexcept Exception as e: print(type(e).__name__)"
    )
    made = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=False)
    assert (made.stdout.strip(), made.stderr) == ("DataError", "")


def test_rows_without_a_trainer_are_no_rows(tmp_path: Path) -> None:
    folder(tmp_path, {"config.toml": "seeds = 1", "training.jsonl": '{"vrainer": "svd", "walk": "none"}\n'})
    for act in (lambda run: run.trained("svd"), lambda run: run.frame("training")):
        with pytest.raises(QCQError, match=r"training.jsonl: is damaged \(row 1, trainer: field required"):
            act(Run.open(tmp_path))


def test_half_a_character_in_a_row_of_a_run(tmp_path: Path) -> None:
    row = {"dataset": "d", "walk": "none", "trainer": "svd", "readout": "table", "seed": 0, "task": "t", "value": 0.5}
    for metric, whole in (("\ud800", False), ("\U0001f600", True)):
        folder(tmp_path, {"config.toml": "seeds = 1", "results.jsonl": json.dumps({**row, "metric": metric}) + "\n"})
        if whole:
            assert Run.open(tmp_path).frame()["metric"].to_list() == [metric]
            continue
        with pytest.raises(QCQError, match=r"results.jsonl: is damaged \(half a character\)"):
            Run.open(tmp_path).frame()


ABOUT = {"dataset": "d", "notes": [], "graph_digest": "", "data_digest": "", "students": {}, "responses": 0}
ABOUT |= {"graph": {"questions": 3, "concepts": 2, "edges": 3}, "skipped_tasks": {}, "finished": True}


@pytest.mark.parametrize("key", [key for key in ABOUT if key != "finished"])
def test_what_is_known_of_a_run_has_all_its_keys(key: str, tmp_path: Path) -> None:
    """A notebook shows it; keys that damage had changed were a KeyError."""
    held = {("x" + name if name == key else name): value for name, value in ABOUT.items()}
    folder(tmp_path, {"config.toml": "seeds = 1", "about.json": json.dumps(held)})
    with pytest.raises(QCQError, match=rf"about.json: is damaged \({key}: field required\)"):
        Run.open(tmp_path)._repr_html_()


ROW = {"walk": "none", "trainer": "svd", "seed": 0, "readout": "table", "readouts": ["table"], "settings": {}}
ROW |= dict.fromkeys(["objective", "loss", "floor", "excess", "excess_se", "unigram", "verdict", "corpus_digest"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"readouts": "table"}, "row 1, readouts: input should be a valid list"),
        ({"seed": "0"}, "row 1, seed: input should be a valid integer"),
        ({"judged": {"kt": 3}}, "row 1, judged.kt: input should be a valid dictionary"),
        ({"readout": None}, "row 1, readout: input should be a valid string"),
    ],
)
def test_a_row_of_another_kind_is_named(change: dict[str, object], said: str, tmp_path: Path) -> None:
    folder(tmp_path, {"config.toml": "seeds = 1", "training.jsonl": json.dumps({**ROW, **change}) + "\n"})
    with pytest.raises(QCQError, match=re.escape(f"training.jsonl: is damaged ({said})")):
        Run.open(tmp_path).embeddings("svd")


READ: dict[str, Callable[[Run], object]] = {
    "config.toml": lambda run: run.config,
    "about.json": lambda run: run.finished,
    "results.jsonl": lambda run: run.rows("results"),
    "graph.npz": lambda run: run.arrays("graph.npz"),
    "questions.csv": lambda run: run.table("questions.csv"),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("content", [DEEP.encode(), b"\xff\x00", b'["' + b"9" * 5_000, b'"a\nb,c'])
def test_a_damaged_file_of_a_run_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    folder(tmp_path, {"config.toml": "seeds = 1", "about.json": "{}", name: content})
    with pytest.raises(QCQError, match=rf"{name}: is damaged \(.*; remove it and run the same command again"):
        READ[name](Run.open(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")  # of a finished run
    with pytest.raises(QCQError, match=rf"{name}: is damaged \(.*--repair' makes it again"):
        READ[name](Run.open(tmp_path))


@pytest.mark.parametrize("content", ["[]", '{"files": {"about.json": 3}}', '{"files": 7}', DEEP])
def test_a_manifest_that_is_none_is_a_fault(content: str, tmp_path: Path) -> None:
    folder(tmp_path, {"config.toml": "seeds = 1", "about.json": '{"finished": true}', "manifest.json": content})
    write_mark(tmp_path, "run")
    cell = tmp_path / "cells" / ("0a" * 16)
    cell.mkdir(parents=True)
    write_mark(tmp_path / "cells", "store")
    (cell / "row.json").write_text('{"kind": "Trained", "label": "x", "row": {}, "files": 3}')
    faults, _ = verify(Run.open(tmp_path))
    found = [(fault.path.name, fault.what) for fault in faults]
    assert found == [("row.json", "cannot be read"), ("manifest.json", "changed since it was written")]


EDGES = {
    "indptr": np.array([0, 1, 2, 2, 3]),
    "indices": np.array([0, 1, 2]),
    "degree": np.ones(4, dtype=np.int64),
    "difficulty": np.full(4, np.nan),
}


@pytest.mark.parametrize(
    "change",
    [
        {"degree": None},
        {"indices": None},
        {"indptr": np.array([0, 1, 2, 3])},
        {"indptr": np.array([0, 2, 1, 2, 3])},
        {"indices": np.array([0, 1, 3])},
        {"indices": np.array([0, 1, -1])},
        {"indices": np.array([0.0, 1.0, 2.0])},
        {"difficulty": np.zeros(3)},
        {"degree": np.array(["a"] * 4)},
    ],
)
def test_edges_that_do_not_fit_the_questions_are_named(change: Mapping[str, Any], tmp_path: Path) -> None:
    tables = {
        "questions.csv": "question,name,concepts\na,,\nb,,\nc,,\nd,,\n",
        "concepts.csv": "concept,name\nx,\ny,\nz,\n",
    }
    folder(tmp_path, {"config.toml": "seeds = 1", "about.json": "{}", **tables})
    held = {key: array for key, array in {**EDGES, **change}.items() if array is not None}
    np.savez(tmp_path / "graph.npz", **held)
    with pytest.raises(
        QCQError, match=r"graph.npz: is damaged \(.*; remove it and run the same command again"
    ) as caught:
        Run.open(tmp_path).edges()
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "graph.npz", **EDGES)  # type: ignore[arg-type]
    assert Run.open(tmp_path).edges().keys() == EDGES.keys()


@pytest.mark.parametrize("name", ["questions.csv", "concepts.csv"])
def test_an_id_that_occurs_twice_in_a_run_is_named(name: str, tmp_path: Path) -> None:
    heading = "question,name,concepts" if name == "questions.csv" else "concept,name"
    rows = [heading, *(each + "," * heading.count(",") for each in "aba")]
    folder(tmp_path, {"config.toml": "seeds = 1", "about.json": "{}", name: "\n".join(rows) + "\n"})
    with pytest.raises(QCQError, match=rf"{name}: is damaged \('a' occurs twice\); remove it and run"):
        Run.open(tmp_path).table(name)


def test_a_heading_is_compared_once_for_each_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of two million commas took 38 seconds: each empty heading was compared with each missing column."""
    looked: list[str] = []
    monkeypatch.setattr(checks, "meant", lambda name, known: looked.append(name))
    monkeypatch.setattr(table, "meant", lambda name, known: looked.append(name))
    wide = folder(tmp_path, {"wide.csv": "a," * 1_000 + "b\n" + "," * 1_000})
    with pytest.raises(QCQError, match="missing columns question and concept"):
        table.RawTable.read(wide / "wide.csv", ["question", "concept"])
    assert looked == ["a", "b"] * 2
    looked.clear()
    (wide / "log.csv").write_text("question,concept" + ",x" * 1_000 + "\n" + "q,c" + ",1" * 1_000)
    notes = table.RawTable.read(wide / "log.csv", ["question", "concept"], ["weight"]).notes()
    assert "and 992 more" in "".join(notes)
    assert looked == ["x"]
