"""`python -m benchmarks`: measure, prove the ledgers, and only then say how fast it was."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import django
from tqdm import tqdm

from benchmarks import generator, machine, proof
from benchmarks.bench import SMOKE, Bench, Scale
from benchmarks.cases import CASES
from benchmarks.figures import Result
from benchmarks.processes import ProgramError
from benchmarks.reference import Reference
from benchmarks.report import Report, put_into
from benchmarks.servers import Stage, stage
from fintech_core.embedded.environment import PROJECT
from fintech_core.embedded.errors import EmbeddedError

RESULTS = PROJECT / "benchmarks" / "results"
DEFAULTS = {"cases": list(CASES), "rounds": 3, "seconds": 10.0}
SMOKE_DEFAULTS = {"cases": ["A", "B", "D", "E", "H"], "rounds": 1, "seconds": 1.0}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", type=_letters, help=f"all, or letters with commas. {_cases()}")
    parser.add_argument("--rounds", type=_positive, help="default 3")
    parser.add_argument("--seconds", type=float, help="of each measurement; default 10")
    parser.add_argument("--seed", type=int, default=1, help="of who sends to whom")
    parser.add_argument(
        "--entries",
        type=_sizes,
        default=Scale.entries,
        help="case F: ledgers of these many entries (default 10000,1000000)",
    )
    parser.add_argument(
        "--requests", type=_positive, default=Scale.requests, help="case I: how many (100000)"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="everything tiny, on any server: shows that it runs; the figures mean nothing",
    )
    parser.add_argument("--document", type=Path, help="write the table into its marked section")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.set_defaults(**(SMOKE_DEFAULTS if "--smoke" in arguments else DEFAULTS))
    return parser.parse_args(arguments)


def _letters(text: str) -> list[str]:
    letters = [letter.strip().upper() for letter in text.split(",")]
    for letter in letters:
        if letter not in CASES:
            raise argparse.ArgumentTypeError(f"there is no case {letter}")
    return letters


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _sizes(text: str) -> list[int]:
    return sorted(_positive(size) for size in text.split(","))


def _cases() -> str:
    return "; ".join(f"{letter}: {case.title}" for letter, case in CASES.items())


def main(options: argparse.Namespace) -> int:
    """The exit code: 0, or 1 when a ledger is broken, or a case failed that must not."""
    began = datetime.now(tz=UTC).isoformat(timespec="seconds")
    before = machine.describe()
    with stage(lenient=options.smoke) as made:
        bench = prepare(made, options)
        circumstances = {
            "began": began,
            "commit": machine.commit(),
            "seed": options.seed,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "machine": before,
            "versions": machine.versions(),
            "load": generator.describe(),
            "server": made.durability(),
        }
        results = measure(bench, options.cases)
        say("Proving the ledgers ...")
        proof.require_sound(bench)
    report = Report(circumstances, results)
    path = report.write(options.output)
    if options.document:
        put_into(options.document, report.as_markdown())
    print(report.as_markdown())  # noqa: T201 - what it was run for
    say(f"Written to {path} and beside it as Markdown.")
    return int(any(result.has_failed for result in results))


def prepare(made: Stage, options: argparse.Namespace) -> Bench:
    """The databases, the people with their money and tokens, the reference's tables."""
    say("Preparing people, wallets and the reference ...")
    scale = SMOKE if options.smoke else Scale(entries=options.entries, requests=options.requests)
    populated = made.create("people")
    os.environ.update(populated.environment)
    made.manage(populated, "migrate", "--no-input", "--verbosity", "0").require("migrate failed")
    django.setup()
    from benchmarks.population import gather  # its models need the settings

    people = gather(senders=scale.senders, recipients=scale.recipients, seed=options.seed)
    probes = sum(CASES[letter].probes(scale) for letter in options.cases)
    progress = tqdm(
        total=probes * options.rounds,
        unit="measurement",
        disable=None,  # shown on a terminal alone
    )
    return Bench(
        stage=made,
        scale=scale,
        rounds=options.rounds,
        seconds=options.seconds,
        seed=options.seed,
        populated=populated,
        people=people,
        reference=Reference.prepare(made.create("reference"), scale.reference),
        progress=progress,
    )


def measure(bench: Bench, letters: Sequence[str]) -> list[Result]:
    results = []
    with bench.progress:
        for letter in letters:
            bench.progress.set_description(f"case {letter}")
            if bench.progress.disable:
                say(f"Case {letter}: {CASES[letter].title} ...")
            results.append(CASES[letter].measure(bench))
    return results


def say(line: str) -> None:
    """Beside the results, which alone go to standard output."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _stop(*_: object) -> NoReturn:
    """As Ctrl-C does, so that everything that was started is ended."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main(parse(sys.argv[1:])))
    except (ProgramError, EmbeddedError, proof.Broken) as refusal:
        say(f"\n{refusal}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
