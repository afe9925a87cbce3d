"""What a run found, as a Markdown table for people and as JSON for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.figures import Ratio, Result

_BEGIN, _END = "<!-- measured -->", "<!-- /measured -->"
_VERDICTS = {True: "yes", False: "**no**", None: "-"}


@dataclass(frozen=True)
class Report:
    """Results, and the circumstances that they hold for."""

    circumstances: Mapping[str, Any]
    results: Sequence[Result]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.circumstances,
            "cases": {result.letter: _plain(result) for result in self.results},
        }

    def as_markdown(self) -> str:
        return "\n".join([*self._ratios(), "", *self._rates(), "", *self._circumstances(), ""])

    def _ratios(self) -> Iterator[str]:
        yield "| Case | Ratio | Median | Spread | Must reach | Reached | HTTP errors |"
        yield "|---|---|--:|--:|--:|:-:|--:|"
        for result in self.results:
            for ratio in result.ratios:
                yield _row(result, ratio)

    def _rates(self) -> Iterator[str]:
        yield "Absolute figures of this run; they mean nothing elsewhere."
        yield ""
        yield "| Case | Measured | Each round, or once |"
        yield "|---|---|--:|"
        for result in self.results:
            for name, taken in result.samples.items():
                shown = ", ".join(f"{sample.rate:,.0f}/s" for sample in taken)
                yield f"| {result.letter} | {name} | {shown} |"
            for name, value in result.facts.items():
                shown = value if isinstance(value, str) else f"{value:,.4g}"
                yield f"| {result.letter} | {name} | {shown} |"
        unexpected = [
            f"* {result.letter}, {name}: {text}"
            for result in self.results
            for name, taken in result.samples.items()
            for sample in taken
            for text in sample.unexpected
        ]
        if unexpected:
            yield ""
            yield from unexpected

    def _circumstances(self) -> Iterator[str]:
        for name, value in self.circumstances.items():
            shown = (
                ", ".join(f"{key} {text}" for key, text in value.items())
                if isinstance(value, Mapping)
                else value
            )
            yield f"* {name.replace('_', ' ')}: {shown}"

    def write(self, folder: Path) -> Path:
        """Both, under the time at which the run began; returns the JSON's path."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = str(self.circumstances["began"]).replace(":", "").replace("+0000", "Z")
        (folder / f"{stem}.md").write_text(self.as_markdown(), encoding="utf-8")
        path = folder / f"{stem}.json"
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")
        return path


def put_into(document: Path, markdown: str) -> None:
    """In place of what is between the two marks. Raises ValueError when they are not there."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{document} has no {_BEGIN} and {_END}")
    document.write_text(f"{before}{begin}\n{markdown}{end}{after}", encoding="utf-8")


def _row(result: Result, ratio: Ratio) -> str:
    low, high = ratio.spread
    return (
        f"| {result.letter}. {CASES[result.letter].title} | {ratio.name} | {ratio.median:.3f}"
        f" | {low:.3f} to {high:.3f} | {ratio.target or '-'}"
        f" | {_VERDICTS[False if result.has_failed else ratio.is_reached]} | {result.errors} |"
    )


def _plain(result: Result) -> dict[str, Any]:
    return {
        "title": CASES[result.letter].title,
        "errors": result.errors,
        "failed": result.has_failed,
        "ratios": [
            {
                "name": ratio.name,
                "median": ratio.median,
                "spread": ratio.spread,
                "rounds": list(ratio.rounds),
                "target": str(ratio.target) if ratio.target else None,
                "reached": ratio.is_reached,
            }
            for ratio in result.ratios
        ],
        "samples": {
            name: [asdict(sample) for sample in taken] for name, taken in result.samples.items()
        },
        "facts": dict(result.facts),
    }
