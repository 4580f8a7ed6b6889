"""Settings are frozen dataclasses that check themselves: the class of a walk or a trainer *is* its configuration."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as _dataclass

from qcq.errors import ConfigError, UnknownNameError

T = TypeVar("T")
LARGEST = 2**31 - 1  # of an integer setting other than a seed; gensim and torch take no more


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only, self-checking dataclass; a wrong key or value raises a one-line ConfigError.

    Examples
    --------
    >>> @settings
    ... class Step:
    ...     length: int = 40
    >>> Step(lenght=3)
    Traceback (most recent call last):
    ...
    qcq.errors.UnknownNameError: unknown setting 'lenght'; did you mean length? (known: length)
    """
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    made: Any = _dataclass(frozen=True, kw_only=True, config=config)(cls)
    init = made.__init__

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise explain(error, made) from None
        for key in fields(made):
            _bounded(key, getattr(self, key))

    made.__init__ = checked
    return cast(type[T], made)


def _bounded(key: str, value: Any) -> None:
    if isinstance(value, int) and abs(value) > LARGEST and key != "seed":
        said = f"{value:,}" if abs(value) < 10**15 else f"one of about {round(math.log10(abs(value)))} digits"
        raise ConfigError(f"setting {key}: an integer is at most {LARGEST:,}, given {said}; give a smaller one")


def fields(cls: type) -> dict[str, Any]:
    """The settings of a walk or trainer class: name → default.

    Examples
    --------
    >>> @settings
    ... class Step:
    ...     length: int = 40
    >>> fields(Step)
    {'length': 40}
    """
    return {field.name: field.default for field in dataclasses.fields(cls)}


def explain(error: ValidationError, cls: type, section: str = "") -> ConfigError:
    """The first complaint of a pydantic ValidationError as one line that names the key and its valid values."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    full = f"{section}.{key}" if section else key
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [f"{section}.{name}" if section else name for name in fields(cls)]
        return UnknownNameError("setting", full, known)
    message = first["msg"].removeprefix("Value error, ")
    if not key:  # a rule about several settings together
        return ConfigError(f"settings of {section or cls.__name__}: {message}")
    if first["type"] == "tuple_type":
        message = f"should be a list, for example {json.dumps([first['input']], default=str)}"
    return ConfigError(f"setting {full}: {message[0].lower()}{message[1:]}, given {first['input']!r}")
