"""Conditions on the facts of one attempt, each of which can be tried in Python and written in SQL, to the same effect.

A fact that was not recorded (None, NULL) meets no condition but `Unknown`. No I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Is:
    """The fact is one of these values."""

    fact: str
    values: tuple[str | int | bool, ...]

    def holds(self, facts: Mapping[str, Value]) -> bool:
        return facts[self.fact] in self.values and facts[self.fact] is not None

    def sql(self) -> str:
        if len(self.values) == 1:
            return f"{self.fact} = {_literal(self.values[0])}"
        return f"{self.fact} in ({', '.join(map(_literal, self.values))})"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact,)


@dataclass(frozen=True, slots=True)
class Begins:
    """The fact is a text that begins so."""

    fact: str
    prefix: str

    def holds(self, facts: Mapping[str, Value]) -> bool:
        value = facts[self.fact]
        return isinstance(value, str) and value.startswith(self.prefix)

    def sql(self) -> str:
        return f"starts_with({self.fact}, {_literal(self.prefix)})"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact,)


@dataclass(frozen=True, slots=True)
class Over:
    """The fact is a number above the limit."""

    fact: str
    limit: float

    def holds(self, facts: Mapping[str, Value]) -> bool:
        value = facts[self.fact]
        return isinstance(value, int | float) and not value <= self.limit  # NaN is above every number in SQL

    def sql(self) -> str:
        return f"{self.fact} > {self.limit}"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact,)


@dataclass(frozen=True, slots=True)
class AtMost:
    """The fact is a number, and not above the limit."""

    fact: str
    limit: float

    def holds(self, facts: Mapping[str, Value]) -> bool:
        value = facts[self.fact]
        return isinstance(value, int | float) and value <= self.limit

    def sql(self) -> str:
        return f"{self.fact} <= {self.limit}"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact,)


@dataclass(frozen=True, slots=True)
class Known:
    """The fact was recorded."""

    fact: str

    def holds(self, facts: Mapping[str, Value]) -> bool:
        return facts[self.fact] is not None

    def sql(self) -> str:
        return f"{self.fact} is not null"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact,)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The fact was not recorded."""

    fact: str

    def holds(self, facts: Mapping[str, Value]) -> bool:
        return facts[self.fact] is None

    def sql(self) -> str:
        return f"{self.fact} is null"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact,)


@dataclass(frozen=True, slots=True)
class MoreThanOneIn:
    """Of two counts that make a whole, the first is more than one in `n` of it: packets lost and received, say."""

    fact: str
    rest: str
    n: int

    def holds(self, facts: Mapping[str, Value]) -> bool:
        value, rest = facts[self.fact], facts[self.rest]
        return isinstance(value, int) and isinstance(rest, int) and float(value) * (self.n - 1) > float(rest)

    def sql(self) -> str:
        return f"cast({self.fact} as double) * {self.n - 1} > {self.rest}"  # as integers a hostile count would overflow

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact, self.rest)


@dataclass(frozen=True, slots=True)
class Differ:
    """Both facts were recorded, and they are not the same."""

    fact: str
    other: str

    def holds(self, facts: Mapping[str, Value]) -> bool:
        value, other = facts[self.fact], facts[self.other]
        return value is not None and other is not None and value != other

    def sql(self) -> str:
        return f"{self.fact} <> {self.other}"

    @property
    def facts(self) -> tuple[str, ...]:
        return (self.fact, self.other)


Condition = Is | Begins | Over | AtMost | Known | Unknown | MoreThanOneIn | Differ


def is_(fact: str, *values: str | int | bool) -> Is:
    """`Is` with its values one after another; words of an enumeration become plain text."""
    return Is(fact, tuple(str(value) if isinstance(value, str) else value for value in values))


def _literal(value: str | int | bool) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()
