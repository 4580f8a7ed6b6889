"""Responses of test students, offered to everything that learns from responses: mypy must refuse each line.

``make types`` checks this file with the rest. An ignore that isn't needed is an error there, so a signature that began
to accept test students would fail the check. Nothing imports it.
"""

from qcq.data.dataset import Dataset, Split
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.models.pebg import PEBG
from qcq.walks.just import Just
from qcq.walks.metapath import Metapath
from qcq.walks.session import Session


def allowed(graph: KnowledgeGraph, split: Split) -> None:
    TypedGraph.of(graph, split.train)
    Metapath().prepare(graph, split.train)
    Session().prepare(graph, split.train)
    Just().prepare(graph, split.train)
    PEBG().prepare(graph, split.train)
    graph.with_responses(split.train)


def refused(graph: KnowledgeGraph, split: Split, data: Dataset) -> None:
    TypedGraph.of(graph, split.test)  # type: ignore[arg-type]
    TypedGraph.of(graph, data)  # type: ignore[arg-type]
    TypedGraph.of(graph, data.interactions)  # type: ignore[arg-type]
    Metapath().prepare(graph, split.validation)  # type: ignore[arg-type]
    Session().prepare(graph, split.test)  # type: ignore[arg-type]
    Just().prepare(graph, split.test)  # type: ignore[arg-type]
    PEBG().prepare(graph, split.test)  # type: ignore[arg-type]
    graph.with_responses(split.test)  # type: ignore[arg-type]
