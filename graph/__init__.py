"""The knowledge graph of questions and concepts, and the typed graph with students and answers around it."""

from qcq.graph.knowledge import KnowledgeGraph
from qcq.graph.typed import TypedGraph

__all__ = ["KnowledgeGraph", "TypedGraph"]
