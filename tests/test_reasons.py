"""An error gives its true reason: what is missing where, in one line that a terminal shows, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qcq import cli
from qcq.data import DATASETS, read, recognise
from qcq.data.nearest import nearest
from qcq.errors import DataError

SHORT = 330  # characters of a message, its path apart
LISTED = "'qcq list data' shows what each format needs"
SEQUENCES = {"fold": "0", "uid": "1", "questions": '"1,2,3"', "concepts": '"1,2,3"', "responses": '"0,1,1"'}


def reason(source: object, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(source)
    text = str(caught.value).replace(str(folder), "HERE")
    assert "\n" not in text
    assert len(text) < SHORT
    return text


def sequences(folder: Path, without: str, names: tuple[str, ...] = ("train_valid_sequences", "test_sequences")) -> Path:
    """pyKT's files of the concept level without one column."""
    folder.mkdir()
    for name in names:
        held = {key: cell for key, cell in SEQUENCES.items() if key != without}
        if "fold" in held and name.startswith("test"):
            held |= {"fold": "-1", "uid": "2"} if "uid" in held else {"fold": "-1"}
        (folder / f"{name}.csv").write_text(f"{','.join(held)}\n{','.join(held.values())}\n")
    return folder


@pytest.mark.parametrize("named", ["", "pykt:"])
@pytest.mark.parametrize("column", ["fold", "uid", "responses", "concepts"])
def test_a_sequence_file_of_pykt_names_the_column_that_it_lacks(column: str, named: str, tmp_path: Path) -> None:
    folder = sequences(tmp_path / "room", column)
    text = reason(f"{named}{folder}", folder)
    assert text.startswith(f"HERE/train_valid_sequences.csv, row 1, column {column}: missing column")


def test_one_file_without_folds_is_not_left_out_in_silence(tmp_path: Path) -> None:
    folder = sequences(tmp_path / "room", "")
    (folder / "test_sequences.csv").write_text('uid,questions,concepts,responses\n7,"1,2,3","1,2,3","0,1,1"\n')
    assert reason(folder, folder).startswith("HERE/test_sequences.csv, row 1, column fold: missing column")


def test_a_file_of_that_name_which_is_not_of_pykt_is_left_alone(tmp_path: Path) -> None:
    folder = sequences(tmp_path / "room", "")
    (folder / "test.csv").write_text("row_id,answer\n1,0\n")
    assert read(folder).questions == ("1", "2", "3")


@pytest.mark.parametrize("where", ["bank.csv", "room/questions.csv"])
@pytest.mark.parametrize(
    ("heading", "column"), [("concept,level", "question"), ("question,level", "concepts"), ("a,b", "question")]
)
def test_a_table_names_the_column_that_it_lacks(heading: str, column: str, where: str, tmp_path: Path) -> None:
    file = tmp_path / where
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{heading}\n1,2\n")
    source = file if file.name == "bank.csv" else file.parent
    text = reason(source, source)
    assert text.startswith(f"HERE: no known format, and no column '{column}'; add it if this is a table of questions; ")
    assert text.endswith(LISTED)
    lacking = "missing columns question and concepts" if heading == "a,b" else f"column {column}: missing column"
    assert lacking in reason(f"csv:{source}", source)


def test_an_empty_folder_is_empty_and_a_foreign_one_is_short(tmp_path: Path) -> None:
    assert reason(tmp_path, tmp_path) == f"HERE: the folder is empty; put the files of a data set into it; {LISTED}"
    (tmp_path / "letter.doc").write_text("dear")
    assert reason(tmp_path, tmp_path) == f"HERE: no known format; {LISTED}"


@pytest.mark.parametrize(
    ("file", "formats"),
    [
        ("train_valid_sequences.csv", ["pykt"]),
        ("problem_id_hashmap.json", ["s2kt"]),
        ("bank_test3.csv", ["akt"]),
        ("bank_test.csv", []),
        ("algebra_train.txt", ["kddcup"]),
        ("Info_Content.csv", ["junyi"]),
        ("metadata", ["xes3g5m"]),
        ("item.csv", ["icd", "edudata"]),
        ("data.txt", ["pebg", "math2015", "pykt"]),
    ],
)
def test_a_folder_looks_like_the_formats_whose_files_it_has(file: str, formats: list[str], tmp_path: Path) -> None:
    (tmp_path / file).write_text("")
    assert nearest(tmp_path, DATASETS) == formats
    if formats:
        text = reason(tmp_path, tmp_path)
        assert f"it looks like {', '.join(formats)}: {formats[0]}:PATH says what is missing; {LISTED}" in text
        with pytest.raises(DataError):
            read(f"{formats[0]}:{tmp_path}")  # and it does


def test_a_file_looks_like_the_formats_whose_columns_it_has(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("order_id,user_id,problem_id,correct\n1,2,3,1\n")
    assert nearest(tmp_path / "log.csv", DATASETS)[0] == "assistments"
    with pytest.raises(DataError, match="otherwise it looks like assistments"):
        recognise(tmp_path / "log.csv")


@pytest.mark.parametrize(
    "words",
    [["similar", "RUN", "q1"], ["export", "RUN", "--out", "x"], ["trace", "RUN", "s.csv"], ["verify", "RUN"],
     ["report", "RUN"], ["audit", "RUN"], ["diff", "RUN", "RUN"], ["score", "RUN"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_run_that_is_not_there_is_said_to_be_missing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main([word.replace("RUN", "runs/mine") for word in words])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert re.match(r"error: runs/mine: no such (run folder or file of vectors|folder|file); check the spelling", text)
    assert text.count("\n") == 1
    assert not list(tmp_path.iterdir())
