"""Compiled inner loops. They use arrays, and nothing else of the package."""
