"""XES3G5M: pyKT's sequence files at two levels, and the questions with their texts and their routes of concepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from qcq.data.assembly import q_matrix, remarks
from qcq.data.dataset import Dataset
from qcq.data.reader import Reader
from qcq.data.sequences import Sequences, accounts, in_order
from qcq.data.text import json_object
from qcq.errors import DataError
from qcq.support.settings import settings
from qcq.support.words import several

QUESTIONS, CONCEPTS = "metadata/questions.json", "metadata/kc_routes_map.json"
LEVELS = {"question_level": "_quelevel", "kc_level": ""}
BETWEEN = "----"  # the concepts of a route
AGAIN = "get the file again from its source"


@settings
class XES3G5M(Reader):
    """``question_level/`` and ``kc_level/``, whichever are there, and ``metadata/`` with the two JSON files.

    The test students are uncut (``test_quelevel.csv``, ``test.csv``). The others are windows, and each level drops
    another end of a student: the longer one is taken, and the shorter must agree with it. Without either folder it is a
    graph alone.

    A question's concepts are the ends of its routes; the concepts along a route are their parents. Where a concept has
    several parents, the one in most questions counts. ``Dataset.question_names`` has the texts.

    Parameters
    ----------
    fold : the fold for validation, pyKT's ``--fold``. The other folds are for training.

    References
    ----------
    Liu et al. 2023, XES3G5M: a knowledge tracing benchmark dataset with auxiliary information, NeurIPS;
    https://github.com/ai4ed/XES3G5M
    """

    needs: ClassVar[str] = f"{QUESTIONS} and {CONCEPTS}; question_level/ or kc_level/ for responses"
    fold: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / QUESTIONS).is_file() and (path / CONCEPTS).is_file()

    def read(self, path: Path | None) -> Dataset:
        assert path is not None
        texts = _texts(path / CONCEPTS)
        contents, routes = _questions(path / QUESTIONS)
        number = {text: concept for concept, text in texts.items()}
        notes = []
        if len(number) < len(texts):
            notes.append(
                f"{several(len(texts) - len(number), 'concept')} with the name of another: left out of the parents"
            )
        ends = {
            question: dict.fromkeys(number[route[-1]] for route in of if route[-1] in number)
            for question, of in routes.items()
        }
        given = []
        for folder, level in LEVELS.items():
            found, said = accounts(path / folder, level)
            given += found
            notes += said
        if given:
            made = Sequences.together(given)
            seen = made.identifiers()
            listed: dict[str, set[str]] = {}
            for question, concept in made.edges:
                listed.setdefault(question, set()).add(concept)
            more = [(q, c) for q, of in ends.items() if q not in listed for c in of]
            ids = {
                "uid": in_order(seen["uid"]),
                "questions": in_order(dict.fromkeys([*contents, *seen["questions"]])),
                "concepts": in_order(dict.fromkeys([*seen["concepts"], *(c for _, c in more)])),
            }
            notes += _compared(listed, ends)
            data = made.dataset(path, ids, self.fold, notes, more)
        else:
            notes.append("neither question_level/ nor kc_level/: a graph without responses")
            data = _graph(path, in_order(contents), ends, notes)
        parents, said = _parents(routes.values(), number)
        shown = {*data.concepts, *parents, *parents.values()}
        return replace(
            data,
            question_names={question: text for question, text in contents.items() if text},
            concept_names={concept: text for concept, text in texts.items() if concept in shown},
            parents=parents,
            notes=(*data.notes, *said),
        )


def _texts(file: Path) -> dict[str, str]:
    """Number of a concept → its name."""
    found = json_object(file)
    for concept, text in found.items():
        if not isinstance(text, str) or not text.strip():
            raise DataError("not the name of a concept", file=file, column=concept, value=text, fix=AGAIN)
    if not found:
        raise DataError("no concepts in it", file=file, fix=AGAIN)
    return {concept: text.strip() for concept, text in found.items()}


def _questions(file: Path) -> tuple[dict[str, str], dict[str, list[list[str]]]]:
    """Number of a question → its text, and its routes."""
    found = json_object(file)
    if not found:
        raise DataError("no questions in it", file=file, fix=AGAIN)
    contents: dict[str, str] = {}
    routes: dict[str, list[list[str]]] = {}
    for question, values in found.items():
        given: Any = values.get("kc_routes") if isinstance(values, dict) else None
        if not isinstance(given, list) or not all(isinstance(route, str) for route in given):
            raise DataError("no list kc_routes", file=file, column=question, value=given, fix=AGAIN)
        routes[question] = [[name.strip() for name in route.split(BETWEEN)] for route in given if route.strip()]
        contents[question] = str(values.get("content") or "").strip()
    return contents, routes


def _graph(path: Path, questions: tuple[str, ...], ends: Mapping[str, Iterable[str]], notes: list[str]) -> Dataset:
    """Questions and the ends of their routes, without responses."""
    concepts = in_order(dict.fromkeys(concept for of in ends.values() for concept in of))
    if not concepts:
        raise DataError("no route ends at a concept", file=path / QUESTIONS, fix=f"take it together with {CONCEPTS}")
    index = {concept: i for i, concept in enumerate(concepts)}
    edges = [(row, index[concept]) for row, question in enumerate(questions) for concept in ends[question]]
    matrix, _ = q_matrix(len(questions), len(concepts), *zip(*edges, strict=True))
    return Dataset(path.resolve().name, questions, concepts, matrix, notes=(*notes, *remarks(matrix)))


def _compared(listed: Mapping[str, set[str]], ends: Mapping[str, Iterable[str]]) -> list[str]:
    """Notes on where the responses and the routes of a question differ."""
    said = []
    unknown = sum(question not in ends for question in listed)
    if unknown:
        said.append(f"{several(unknown, 'question')} of the responses not in {QUESTIONS}: without a text")
    apart = [q for q, concepts in listed.items() if q in ends and set(ends[q]) != concepts]
    if apart:
        said.append(
            f"{several(len(apart), 'question')} with other concepts in the responses than at the ends of the routes "
            f"({apart[0]!r}): the responses count"
        )
    silent = sum(question not in listed for question in ends)
    if silent:
        said.append(f"{several(silent, 'question')} without a response: concepts from the ends of the routes")
    return said


def _parents(routes: Iterable[list[list[str]]], number: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Concept → the concept before it on most questions' routes; what would close a circle is left out."""
    counts: Counter[tuple[str, str]] = Counter()
    unknown: set[str] = set()
    for of in routes:
        pairs = dict.fromkeys(pair for route in of for pair in zip(route[1:], route, strict=False))
        unknown |= {name for pair in pairs for name in pair if name not in number}
        counts.update((number[c], number[p]) for c, p in pairs if c in number and p in number and c != p)
    parents: dict[str, str] = {}
    several_parents: set[str] = set()
    circles = 0
    for (child, parent), _ in counts.most_common():  # equal counts in the order of the file
        if child in parents:
            several_parents.add(child)
            continue
        above = parent
        while above in parents and above != child:
            above = parents[above]
        if above == child:
            circles += 1
        else:
            parents[child] = parent
    said = []
    if several_parents:
        said.append(
            f"{several(len(several_parents), 'concept')} under several others: the parent in most questions counts"
        )
    if circles:
        said.append(f"{several(circles, 'parent')} left out that would close a circle")
    if unknown:
        said.append(
            f"{several(len(unknown), 'name')} on the routes that {CONCEPTS} doesn't have: left out of the parents"
        )
    return parents, said
