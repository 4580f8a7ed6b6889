"""The walk as an exact chain, and what follows from it: objectives, floors, verdicts, what a graph can tell."""
