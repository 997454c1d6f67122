"""The results of a GPU run, written again after every part: gpu.json for programs, gpu.md for people."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.gpu.parts import PARTS, Part

Row = dict[str, Any]
"""`what`, and either `error` with `limit`, or `value` with `unit` and perhaps `goal`; `why`; or only `not_run`."""
RUNNING, PASSED, FAILED = "running", "passed", "failed"


@dataclass
class Outcome:
    """What is known of one part."""

    part: Part
    status: str = "not run yet"
    seconds: float | None = None
    rows: list[Row] = field(default_factory=list)


class Report:
    """All outcomes so far, in two files."""

    def __init__(self, folder, parts, about):
        self._folder, self._about, self._started = folder, about, time.monotonic()
        self.outcomes = [Outcome(part) for part in parts]
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def json_file(self):
        return self._folder / "gpu.json"

    @property
    def markdown_file(self):
        return self._folder / "gpu.md"

    @property
    def is_good(self):
        """Whether every part ran to its end and every check passed."""
        return all(outcome.status == PASSED for outcome in self.outcomes)

    def write(self):
        seconds = round(time.monotonic() - self._started, 1)
        parts = [
            {**outcome.part._asdict(), "limit_s": outcome.part.seconds, "status": outcome.status}
            | {"seconds": outcome.seconds, "rows": outcome.rows}
            for outcome in self.outcomes
        ]
        content = {**self._about, "seconds": seconds, "good": self.is_good, "parts": parts}
        self.json_file.write_text(json.dumps(content, indent=1), encoding="utf-8")
        self.markdown_file.write_text("\n".join(self.markdown(seconds)) + "\n", encoding="utf-8")

    def markdown(self, seconds):
        rows = [row for outcome in self.outcomes for row in outcome.rows]
        checks = [row["passed"] for row in rows if "passed" in row]
        card = next((row["value"] for row in rows if row["what"] == "device"), "unknown device")
        lines = [f"# GPU run: {card}", "", ", ".join(f"{name} {value}" for name, value in self._about.items()), ""]
        lines += [f"{seconds:.0f} s, {checks.count(True)} checks passed, {checks.count(False)} failed.", ""]
        lines += ["| part | | seconds (limit) | outcome |", "|---|---|---|---|"]
        for outcome in self.outcomes:
            took = "" if outcome.seconds is None else f"{outcome.seconds:.0f} ({outcome.part.seconds:.0f})"
            lines.append(f"| {outcome.part.name} | {outcome.part.about} | {took} | {outcome.status} |")
        for outcome in self.outcomes:
            if outcome.rows:
                lines += ["", f"## {outcome.part.section}: {outcome.part.name}", ""]
                lines += ["| | result | wanted | | |", "|---|---|---|---|---|"]
                lines += ["| " + " | ".join(cells(row)) + " |" for row in outcome.rows]
        return lines


def cells(row):
    """What, found, wanted, the verdict and the reason."""
    what, why = str(row["what"]).replace("|", "\\|"), str(row.get("why", ""))
    if "not_run" in row:
        return what, "", "", "not run", row["not_run"]
    if "limit" in row:
        return what, shown(row["error"]), f"≤ {shown(row['limit'])}", "ok" if row["passed"] else "**wrong**", why
    found = f"{shown(row['value'])} {row['unit']}".strip()
    goal = row.get("goal")
    if goal is None:
        return what, found, "", "", why
    sign, met = ("≥", row["value"] >= goal) if row["more_is_better"] else ("≤", row["value"] <= goal)
    return what, found, f"{sign} {shown(goal)}", "met" if met else "missed", why


def shown(value):
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def named_parts(names):
    """The parts of these names, in their order; all parts for no name. `machine` writes the shards, so it is in all."""
    unknown = set(names) - {part.name for part in PARTS}
    if unknown:
        raise SystemExit(f"--only {', '.join(sorted(unknown))}: the parts are {', '.join(part.name for part in PARTS)}")
    return tuple(part for part in PARTS if not names or part.name in {"machine", *names})
