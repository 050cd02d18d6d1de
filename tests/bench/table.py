"""What was measured, as lines for a terminal and as Markdown."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from tests.bench.processes import Values

LIMIT = "the machine's limit"


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found of a work.

    Attributes:
        work: its name.
        rounds: of each program, the first being the one that others are compared with, what each
            round gave.
        limit: what the machine would allow at most.
    """

    work: str
    rounds: dict[str, list[Values]]
    limit: Values

    @property
    def reference(self) -> Values:
        """The medians of the first program."""
        return medians(next(iter(self.rounds.values()), []))

    def columns(self) -> list[str]:
        """Returns the names of all values, in the order in which they were met."""
        return list(dict.fromkeys(v for found in self.rounds.values() for v in found[0]))

    def cell(self, program: str, value: str) -> str:
        """Returns a value's median, its range, and its ratio to the first program's."""
        found = [each[value] for each in self.rounds[program] if value in each]
        if not found:
            return ""
        middle = statistics.median(found)
        cell = number(middle)
        if len(found) > 1:
            cell += f" ({number(min(found))}-{number(max(found))})"
        if program != next(iter(self.rounds)) and self.reference.get(value):
            cell += f" = {middle / self.reference[value]:.2f} x"
        return cell

    def limit_cell(self, value: str) -> str:
        """Returns a value's limit, and how near to it the first program comes."""
        if value not in self.limit or value not in self.reference:
            return ""
        share = self.reference[value] / self.limit[value]
        return f"{number(self.limit[value])}: {share:.0%} of it reached"


def number(value: float) -> str:
    """Returns a number with three or four digits that count."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def medians(rounds: Sequence[Values]) -> Values:
    """Returns each value's median over rounds that all have the same values."""
    return {v: statistics.median(each[v] for each in rounds) for v in (rounds[0] if rounds else ())}


def lines(result: Result) -> str:
    """Returns a work's part of the table for a terminal."""
    told = [f"\n{result.work}"]
    for program in result.rounds:
        cells = [(value, result.cell(program, value)) for value in result.columns()]
        row = " | ".join(f"{value} {cell}" for value, cell in cells if cell)
        told.append(f"  {program:<26} {row}")
    limits = [(value, result.limit_cell(value)) for value in result.columns()]
    row = " | ".join(f"{value} {cell}" for value, cell in limits if cell)
    return "\n".join([*told, f"  {LIMIT:<26} {row}"] if row else told)


def markdown(facts: Sequence[str], results: Sequence[Result]) -> str:
    """Returns everything as Markdown: what was measured on, and a table for each work."""
    parts = ["\n".join(f"- {fact}" for fact in facts)]
    parts += [section(result) for result in results if result.rounds]
    return "\n\n".join(parts) + "\n"


def section(result: Result) -> str:
    """Returns a work's table."""
    columns = result.columns()
    rows = [[f"**{result.work}**", *columns], ["---"] * (len(columns) + 1)]
    for program in result.rounds:
        rows.append([program, *(result.cell(program, value) for value in columns)])
    if any(result.limit_cell(value) for value in columns):
        rows.append([LIMIT, *(result.limit_cell(value) for value in columns)])
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)
