"""Graphs both ways: every file and every library gives back the identifiers, their order and the weights exactly."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qcq
from qcq import cli
from qcq.data import DATASETS, load, read
from qcq.data.graphs import READERS, WRITERS
from qcq.errors import ArgumentError, ConfigError, DataError, GraphError
from qcq.graph import KnowledgeGraph

ENDINGS = list(WRITERS)
LETTERS = "abcAB é中ß😀0123456789.,;:\"'<>&|/\\=_-+#()[]{}\u00a0"
NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and name != "-1" and not re.search(r"^\s|\s$", name)
)
POSITIVE = st.floats(min_value=2.3e-308, max_value=1e306)


@st.composite
def graphs(draw: st.DrawFn) -> KnowledgeGraph:
    """Any graph with at least one question and one concept, isolated ones and names on both sides among them."""
    questions = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    concepts = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    cells = st.tuples(st.integers(0, len(questions) - 1), st.integers(0, len(concepts) - 1))
    edges = draw(st.dictionaries(cells, POSITIVE, max_size=12))
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    shape = (len(questions), len(concepts))
    weights = scipy.sparse.csr_array((list(edges.values()), (rows, columns)), shape=shape, dtype=np.float64)
    return KnowledgeGraph(questions, concepts, weights)


def small() -> KnowledgeGraph:
    """Concepts against the order of the edges, a name on both sides, a question and a concept without an edge."""
    weights = scipy.sparse.csr_array(np.array([[0, 0.1, 0], [1 / 3, 0, 0], [0, 0, 0]]))
    return KnowledgeGraph(["b", "a", "c"], ["b", "z", 'é,"'], weights)


def same(one: KnowledgeGraph, other: KnowledgeGraph) -> bool:
    return (
        list(one.questions) == list(other.questions)
        and list(one.concepts) == list(other.concepts)
        and np.array_equal(one.weights.toarray(), other.weights.toarray())
        and one.weights.nnz == other.weights.nnz
    )


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=graphs())
def test_a_graph_comes_back_from_its_file_exactly(ending: str, graph: KnowledgeGraph, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are alike are doubtful, and kept
        back = KnowledgeGraph.load(graph.save(tmp_path / f"graph{ending}"))
    assert same(back, graph)
    assert back.digest == graph.digest


@settings(max_examples=60, deadline=None)
@given(graph=graphs())
def test_a_graph_comes_back_from_networkx_exactly(graph: KnowledgeGraph) -> None:
    assert same(KnowledgeGraph.from_networkx(graph.to_networkx()), graph)


@pytest.mark.tools
@settings(max_examples=60, deadline=None)
@given(graph=graphs())
def test_a_graph_comes_back_from_pyg_exactly(graph: KnowledgeGraph) -> None:
    pytest.importorskip("torch_geometric", reason="needs PyTorch Geometric")
    data = graph.to_pyg()
    assert data.validate()
    assert same(KnowledgeGraph.from_pyg(data), graph)


# ---------------------------------------------------------------------------------------------------- other readers


def test_networkx_reads_our_graphml_and_we_read_its_own(tmp_path: Path) -> None:
    theirs = nx.read_graphml(small().save(tmp_path / "ours.graphml"))
    sides = nx.get_node_attributes(theirs, "bipartite")
    names = nx.get_node_attributes(theirs, "identifier")
    assert [names[node] for node in theirs if sides[node] == 0] == ["b", "a", "c"]
    held = {(names[a], names[b], w) for a, b, w in theirs.edges(data="weight")}
    assert held == {("b", "z", 0.1), ("a", "b", 1 / 3)}
    made = nx.DiGraph()
    made.add_nodes_from(["q2", "q1"], bipartite=0)
    made.add_nodes_from(["c"], bipartite=1)
    made.add_edge("c", "q1")
    nx.write_graphml(made, tmp_path / "theirs.graphml")
    found = KnowledgeGraph.load(tmp_path / "theirs.graphml")  # no identifiers: the ids of the nodes
    assert (list(found.questions), list(found.concepts)) == (["q2", "q1"], ["c"])
    assert found.weights.toarray().tolist() == [[0], [1]]


def test_scipy_reads_our_matrix(tmp_path: Path) -> None:
    loaded = scipy.sparse.load_npz(small().save(tmp_path / "graph.npz"))
    assert isinstance(loaded, scipy.sparse.csr_array)
    assert np.array_equal(loaded.toarray(), small().weights.toarray())


@pytest.mark.parametrize("form", ["coo", "csc", "csr", "bsr", "dia"])
def test_a_matrix_of_scipy_in_any_form_is_read_with_names_beside_it(form: str, tmp_path: Path) -> None:
    dense = np.array([[0, 2.5], [1, 0], [0, 1]])
    scipy.sparse.save_npz(tmp_path / "bare.npz", scipy.sparse.coo_array(dense).asformat(form))
    with pytest.raises(
        DataError, match=r"bare.npz: a matrix without the names of its rows and columns.*add two arrays"
    ):
        KnowledgeGraph.load(tmp_path / "bare.npz")
    held = dict(np.load(tmp_path / "bare.npz"))
    np.savez(tmp_path / "named.npz", **held, questions=np.array(["q1", "q2", "q3"]), concepts=np.array(["x", "y"]))
    assert np.array_equal(KnowledgeGraph.load(tmp_path / "named.npz").weights.toarray(), dense)


def test_an_edge_list_is_own_data_too(tmp_path: Path) -> None:
    """Where no concept stands alone or out of order, csv reads what save wrote."""
    graph = KnowledgeGraph.from_edges([("q1", "x"), ("q2", "x"), ("q2", "y")])
    for ending in (".csv", ".tsv"):
        data = read(graph.save(tmp_path / f"bank{ending}"))
        assert data.notes[0] == "recognised as csv"
        assert same(KnowledgeGraph.from_dataset(data), graph)
    assert (tmp_path / "bank.csv").read_text() == "question,concept,weight\nq1,x,1.0\nq2,x,1.0\nq2,y,1.0\n"


@pytest.mark.tools
def test_pyg_turned_round_renamed_and_undirected(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_geometric", reason="needs PyTorch Geometric")
    from torch_geometric.data import HeteroData
    from torch_geometric.transforms import ToUndirected

    graph = small()
    both = ToUndirected()(graph.to_pyg())
    assert len(both.edge_types) == 2
    assert same(KnowledgeGraph.from_pyg(both), graph)
    data = HeteroData()
    data["item"].ids, data["skill"].ids = ["i1", "i2"], ["s1"]
    data["skill", "of", "item"].edge_index = torch.tensor([[0, 0, 0], [1, 0, 1]])
    found = KnowledgeGraph.from_pyg(data, question="item", concept="skill")
    assert found.weights.toarray().tolist() == [[1], [1]]
    data["skill", "of", "item"].edge_weight = torch.tensor([2.0, 1.0, 3.0])
    with pytest.raises(GraphError, match=r"edge 'i2' – 's1' is given with the weights 2.0 and 3.0; give it one"):
        KnowledgeGraph.from_pyg(data, question="item", concept="skill")


@pytest.mark.tools
def test_pyg_without_names_is_refused() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_geometric", reason="needs PyTorch Geometric")

    def data(change):
        made = small().to_pyg()
        change(made)
        return made

    def drop(made):
        del made["question"].ids

    def twice(made):
        made["question"].ids = ["a", "a", "c"]

    def beyond(made):
        made["question", "tests", "concept"].edge_index = torch.tensor([[0, 3], [0, 0]])

    def other(made):
        made["question", "names", "concept"].edge_index = torch.tensor([[0], [0]])

    def short(made):
        made["question", "tests", "concept"].edge_weight = torch.ones(1)

    def fewer(made):
        made["concept"].ids = ["b"]

    def features(made):
        del made["question"].num_nodes
        made["question"].x = torch.ones(4, 2)

    for change, said in (
        (drop, r"nodes of type 'question' have no identifiers; set data\['question'\].ids"),
        (twice, "two nodes of type 'question' with one identifier"),
        (beyond, "node 3 of 'question' has no identifier"),
        (other, "2 kinds of edges between 'question' and 'concept'; keep one of"),
        (short, r"edge_weight of shape \(1,\) for 2 edges"),
        (fewer, "1 identifiers for 3 nodes of type 'concept'"),
        (features, "3 identifiers for 4 nodes of type 'question'"),
    ):
        with pytest.raises(GraphError, match=said):
            KnowledgeGraph.from_pyg(data(change))
    with pytest.raises(GraphError, match="no nodes of type 'item'"):
        KnowledgeGraph.from_pyg(small().to_pyg(), question="item")
    with pytest.raises(ArgumentError, match="data takes a HeteroData, given dict; give torch_geometric"):
        KnowledgeGraph.from_pyg({})  # type: ignore[arg-type]


def test_without_pyg_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_geometric.data", None)
    with pytest.raises(ConfigError, match="pip install torch_geometric"):
        small().to_pyg()


# ------------------------------------------------------------------------------------------------------ what is lost


def test_what_has_no_place_in_a_file_is_said(tmp_path: Path) -> None:
    from dataclasses import replace

    graph = replace(small(), parents={"z": "b", "b": "top"}, prerequisites=(("b", "z"),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = KnowledgeGraph.load(graph.save(tmp_path / "graph.npz"))
    assert back.digest == graph.digest
    for ending in (".csv", ".tsv", ".graphml"):
        with pytest.warns(UserWarning, match="left out") as said:
            graph.save(tmp_path / f"graph{ending}")
        assert [str(each.message) for each in said] == [
            f"graph{ending}: 2 parents of concepts left out; .npz keeps them",
            f"graph{ending}: 1 prerequisites between concepts left out; .npz keeps them",
        ]
        assert all(each.filename == __file__ for each in said)
    seen = replace(small(), responses=np.array([1, 2, 3]))
    with pytest.warns(UserWarning, match="training responses of 3 questions left out"):
        seen.save(tmp_path / "seen.npz")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_name_that_no_reader_takes_is_never_written(ending: str, tmp_path: Path) -> None:
    weights = scipy.sparse.csr_array(np.ones((1, 1)))
    for name in (" q", "q\n1", "", "nan", "q\u200b"):
        with pytest.raises(DataError, match=f"graph\\{ending}.*column question"):
            KnowledgeGraph([name], ["c"], weights).save(tmp_path / f"graph{ending}")
    assert not list(tmp_path.iterdir())
    if ending == ".graphml":
        with pytest.raises(DataError, match="a character that XML can't hold"):
            KnowledgeGraph(["q\ufffe"], ["c"], weights).save(tmp_path / "graph.graphml")


def test_an_unknown_ending_names_the_known_ones(tmp_path: Path) -> None:
    for act in (small().save, KnowledgeGraph.load):
        (tmp_path / "graph.gml").touch()
        with pytest.raises(DataError, match=r"ending; the endings are .graphml, .csv, .tsv, .npz"):
            act(tmp_path / "graph.gml")
    with pytest.raises(ArgumentError, match="path takes a path"):
        small().save(3)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- bad files

HEAD = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
HEAD += '<key id="b" for="node" attr.name="bipartite" attr.type="int"/>'
HEAD += '<key id="w" for="edge" attr.name="weight" attr.type="string"/><graph edgedefault="undirected">'
TAIL = "</graph></graphml>"


def node(name: str, side: int | None) -> str:
    inside = "" if side is None else f'<data key="b">{side}</data>'
    return f'<node id="{name}">{inside}</node>'


def edge(a: str, b: str, weight: str = "") -> str:
    inside = f'<data key="w">{weight}</data>' if weight else ""
    return f'<edge source="{a}" target="{b}">{inside}</edge>'


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
GRAPHML = {
    "cut off": (HEAD + node("q", 0), "not readable as GraphML"),
    "no XML": ("question,concept\n", "not readable as GraphML"),
    "empty": ("", "not readable as GraphML"),
    "entities": (BOMB + HEAD + node("&b;", 0) + TAIL, "a document type in the file"),
    "file from outside": (
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + HEAD + node("&a;", 0) + TAIL,
        "a document type in the file",
    ),
    "no side": (HEAD + node("q", 0) + node("c", None) + TAIL, "node 'c' has no attribute 'bipartite'"),
    "side of text": (HEAD.replace('"int"', '"string"') + node("q", 0) + node("c", 1) + TAIL, "no node has bipartite=0"),
    "within a side": (HEAD + node("q", 0) + node("p", 0) + node("c", 1) + edge("q", "p") + TAIL, "joins two questions"),
    "weight of text": (HEAD + node("q", 0) + node("c", 1) + edge("q", "c", "much") + TAIL, "give a positive number"),
    "weight of zero": (HEAD + node("q", 0) + node("c", 1) + edge("q", "c", "0") + TAIL, "weights must be positive"),
    "weight NaN": (HEAD + node("q", 0) + node("c", 1) + edge("q", "c", "nan") + TAIL, "weights must be positive"),
    "two weights": (
        HEAD + node("q", 0) + node("c", 1) + edge("q", "c", "1") + edge("q", "c", "2") + TAIL,
        "is given with the weights 1.0 and 2.0",
    ),
    "no concept": (HEAD + node("q", 0) + TAIL, "there are no concepts"),
    "space": (HEAD + node("q ", 0) + node("c", 1) + TAIL, "identifier with space around it"),
    "NUL": (HEAD + "\0", "NUL byte"),
}


@pytest.mark.parametrize("case", GRAPHML)
def test_bad_graphml_is_one_line_that_names_the_file(case: str, tmp_path: Path) -> None:
    text, said = GRAPHML[case]
    (tmp_path / "bad.graphml").write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        load(f"graph:{tmp_path / 'bad.graphml'}")
    assert str(caught.value).startswith(str(tmp_path / "bad.graphml"))
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


EDGES = {
    "no concept column": ("question,weight\nq,1\n", "column concept: missing column"),
    "neither": ("question,concept,weight\nq,c,1\n,,2\n", "row 3, column question: neither a question nor a concept"),
    "blank question inside": (
        "question,concept,weight\nq,c,1\n,d,\nq,d,1\n",
        "row 3, column question: blank identifier",
    ),
    "weight without an edge": (
        "question,concept,weight\nq,c,1\np,,2\n",
        "row 3, column weight: a weight without an edge",
    ),
    "no weight": ("question,concept,weight\nq,c,1\nq,d,\n", "row 3, column weight: not a positive weight"),
    "negative": ("question,concept,weight\nq,c,-1\n", "row 2, column weight: not a positive weight"),
    "two weights": ("question,concept,weight\nq,c,1\nq,c,2\n", "row 3, column weight: an edge with two weights"),
    "a concept not listed": ("question,concept\nq,c\nq,d\n,c\n", "row 3, column concept: a concept that isn't among"),
    "a concept listed twice": ("question,concept\nq,c\n,c\n,c\n", "row 4, column concept: a concept listed twice"),
    "space": ("question,concept\nq,c\nq ,c\n", "column question: identifier with space around it"),
    "no question": ("question,concept\n,c\n", "there are no questions"),
    "no concept": ("question,concept\nq,\n", "there are no concepts"),
}


@pytest.mark.parametrize("case", EDGES)
def test_a_bad_edge_list_is_one_line_with_its_row(case: str, tmp_path: Path) -> None:
    text, said = EDGES[case]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        KnowledgeGraph.load(tmp_path / "bad.csv")
    assert str(caught.value).startswith(str(tmp_path / "bad.csv"))
    assert "\n" not in str(caught.value)


def test_edges_given_twice_count_once_and_are_said(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("question,concept,weight\nq,c,2\nq,c,2\n")
    with pytest.warns(UserWarning, match="1 edge given more than once, counted once"):
        graph = KnowledgeGraph.load(tmp_path / "twice.csv")
    assert graph.weights.toarray().tolist() == [[2]]


GOOD: dict[str, Any] = {
    "format": np.array(b"csr"),
    "shape": np.array([1, 2]),
    "data": np.ones(2),
    "indices": np.array([0, 1], dtype=np.int32),
    "indptr": np.array([0, 2], dtype=np.int32),
    "questions": np.array(["q"]),
    "concepts": np.array(["c", "d"]),
}
ARCHIVES: dict[str, tuple[dict, str]] = {
    "an index out of range": ({"indices": np.array([0, 2**30], dtype=np.int32)}, "no readable sparse matrix"),
    "a negative index": ({"indices": np.array([0, -5], dtype=np.int32)}, "no readable sparse matrix"),
    "pointers beyond": ({"indptr": np.array([0, 9], dtype=np.int32)}, "no readable sparse matrix"),
    "another shape": ({"shape": np.array([2, 2])}, "no readable sparse matrix"),
    "a name too many": ({"questions": np.array(["q", "p"])}, "a matrix of 1×2 for 2 questions and 2 concepts"),
    "numbers for names": ({"concepts": np.array([1, 2])}, "concepts of shape (2,) and type int64"),
    "complex": ({"data": np.array([1j, 1])}, "weights that are no real numbers: 'complex128'"),
    "a zero": ({"data": np.array([1.0, 0])}, "weights must be positive and finite"),
    "an edge twice": ({"indices": np.array([1, 1], dtype=np.int32)}, "1 edge with several entries"),
    "an unknown form": ({"format": np.array(b"xyz")}, "no readable sparse matrix"),
    "objects": ({"questions": np.array([None], dtype=object)}, "not an archive of numpy arrays"),
    "parents in one column": ({"parents": np.array(["c"])}, "parents of shape (1,)"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_bad_matrix_is_one_line(case: str, tmp_path: Path) -> None:
    change, said = ARCHIVES[case]
    np.savez(tmp_path / "bad.npz", **{**GOOD, **change})
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        KnowledgeGraph.load(tmp_path / "bad.npz")
    assert str(caught.value).startswith(str(tmp_path / "bad.npz"))
    assert "\n" not in str(caught.value)


def test_what_is_no_matrix_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", **GOOD)
    assert KnowledgeGraph.load(tmp_path / "good.npz").n_edges == 2
    (tmp_path / "text.npz").write_text("nothing")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:200])
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.ones(3))
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    for name, said in (
        ("text", "not an archive"),
        ("cut", "not an archive"),
        ("array", "one array, not an archive"),
        ("other", "no sparse matrix of scipy"),
    ):
        with pytest.raises(DataError, match=said):
            KnowledgeGraph.load(tmp_path / f"{name}.npz")
        assert not DATASETS["graph"].recognises(tmp_path / f"{name}.npz")


# ------------------------------------------------------------------------------------------------- as a data set


@pytest.mark.parametrize("ending", [".graphml", ".npz"])
def test_a_run_starts_from_a_graph_file(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    edges = [(f"q{i}", f"c{c}") for i in range(24) for c in (i % 4, 4 + i % 3)]
    path = KnowledgeGraph.from_edges(edges).save(tmp_path / f"bank{ending}")
    assert [name for name, kind in DATASETS.items() if kind.needs_path and kind.recognises(path)] == ["graph"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", "--data", str(path), "--json"])
    assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        cli.main(["embed", "--data", str(path), "--recipe", "concepts", "--out", "vectors.npz", "--quiet"])
    assert stop.value.code == 0
    assert list(np.load("vectors.npz")["ids"]) == [f"q{i}" for i in range(24)]


def test_a_folder_or_nothing_is_no_graph(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.npz"):
        assert not DATASETS["graph"].recognises(path)
        with pytest.raises(DataError, match=r"name one file: \.graphml"):
            DATASETS["graph"]().read(path)


def test_every_format_goes_both_ways() -> None:
    assert list(READERS) == list(WRITERS)


PAGE = (Path(qcq.__file__).parent / "docs" / "interop.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+) \| `(graph\..+)` \| `(KnowledgeGraph\..+)` \|$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize(("tool", "there", "back"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_page_does_what_it_says(
    tool: str, there: str, back: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "pyg" in there:
        pytest.importorskip("torch_geometric", reason="needs PyTorch Geometric")
    monkeypatch.chdir(tmp_path)
    made = eval(there, {"graph": small()})
    assert same(eval(back, {"KnowledgeGraph": KnowledgeGraph, "made": made}), small())


def test_the_page_has_every_way() -> None:
    said = " ".join(there for _, there, _ in ROWS)
    assert all(f"graph{ending}" in said for ending in WRITERS)
    assert {"graph.to_networkx()", "graph.to_pyg()"} <= {there for _, there, _ in ROWS}
