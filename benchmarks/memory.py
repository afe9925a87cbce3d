"""Case I: how much memory web, worker and beat have, and whether it grows with work."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.figures import Ratio, Result, Sample, Target
from benchmarks.generator import put
from benchmarks.load import Load
from benchmarks.processes import Program
from benchmarks.servers import Web
from fintech_core.embedded.processes import PROC

MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """In bytes. Resident: shared pages count for each process; proportional: they are split."""

    resident: int = 0
    proportional: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.resident + other.resident, self.proportional + other.proportional)


def of(programs: Iterable[Program]) -> Memory:
    """All of them with their children; a process that ends meanwhile counts nothing."""
    each = [_of_process(pid) for program in programs for pid in program.members()]
    return sum(each, Memory())


def _of_process(pid: int) -> Memory:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return Memory()
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines[1:]}
    return Memory(int(sizes["Rss"]) * 1024, int(sizes["Pss"]) * 1024)


def use(bench: Bench) -> Result:
    """Transfers and reads, in equal parts; a tenth more of them, before, warms up.

    The web server's processes are not replaced meanwhile, which would hide a leak.
    """
    count = bench.scale.requests
    kept = {"GUNICORN_CMD_ARGS": "--max-requests 0"}
    with (
        bench.stage.web(bench.main, kept) as web,
        bench.stage.worker(bench.main) as worker,
        bench.stage.beat(bench.main) as beat,
    ):
        programs = {"web": [web.program], "worker": [worker], "beat": [beat]}
        programs["together"] = [web.program, worker, beat]
        _work(bench, web, count // 10)
        before = {name: of(group) for name, group in programs.items()}
        taken = {"requests": [_work(bench, web, count)]}
        after = {name: of(group) for name, group in programs.items()}
        bench.progress.update(bench.rounds)
    grown = Ratio(
        "proportional memory after ÷ before, web, worker and beat together",
        [after["together"].proportional / before["together"].proportional],
        Target(at_most=1.05),
    )
    facts: dict[str, float | str] = {
        f"{name}, MiB": (
            f"resident {before[name].resident / MIB:.0f} then {after[name].resident / MIB:.0f},"
            f" proportional {before[name].proportional / MIB:.0f}"
            f" then {after[name].proportional / MIB:.0f}"
        )
        for name in programs
    }
    return Result("I", taken, [grown], facts)


def _work(bench: Bench, web: Web, count: int) -> Sample:
    """Transfers, then reads, each kind one half of the requests."""
    transfers, balances = bench.people.transfers(), bench.people.balances()
    half = count // 2
    moved = put(Load(requests=transfers, count=half, keyed=True, expected=201), web)
    read = put(Load(requests=balances, count=half), web)
    rate = (moved.count + read.count) / (moved.seconds + read.seconds)
    return Sample(rate, errors=moved.errors + read.errors, facts={"requests": 2 * half})
