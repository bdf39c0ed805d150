"""Other work on the CPUs while a table is measured."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.profiling.notes import company_note
from workers.profiling.other_work import OtherWork

TICK = os.sysconf("SC_CLK_TCK")


class Machine:
    """Two CPUs whose busy times, clock and own time are set by hand; all in seconds."""

    def __init__(self) -> None:
        self.now, self.own = 50.0, 3.0
        self.user, self.stolen = [10.0, 20.0], [1.0, 1.0]

    def stat(self) -> str:
        lines = ["cpu  1 2 3 4 5 6 7 8 9 10"]
        for number in range(2):
            fields = [self.user[number], 0, 0, 999.0, 999.0, 0, 0, self.stolen[number], self.user[number], 0]
            lines.append(f"cpu{number} " + " ".join(str(round(TICK * field)) for field in fields))
        return "\n".join([*lines, "intr 1 2 3", ""])

    def watch(self, *cpus: int) -> OtherWork:
        return OtherWork(cpus or (0, 1), read=self.stat, own_s=lambda: self.own, clock=lambda: self.now)


def test_work_of_others_and_of_the_hypervisor_counts_and_ones_own_does_not() -> None:
    machine = Machine()
    both, second = machine.watch(), machine.watch(1)
    machine.now += 10
    machine.own += 4
    machine.user = [10.0 + 1.0, 20.0 + 4.0]
    machine.stolen = [1.0 + 2.0, 1.0]
    assert both.busy_cpus() == pytest.approx((1 + 4 + 2 - 4) / 10)
    assert second.busy_cpus() == 0.0
    assert (both.cpus, second.cpus) == (2, 1)


def test_a_busy_machine_is_told_of_and_a_quiet_one_is_not() -> None:
    machine = Machine()
    other_work = machine.watch()
    assert company_note(other_work) == ()
    machine.now += 10
    machine.user[0] += 2.9
    assert company_note(other_work) == ()
    machine.user[0] += 3.1
    (note,) = company_note(other_work)
    assert note.startswith("other work kept 0.6 of 2 CPUs busy while rows were measured")
    assert company_note(None) == ()


@pytest.mark.parametrize("text", ["", "cpu 1 2 3 4 5 6 7 8\n"])
def test_a_system_that_can_not_tell_is_left_alone(text: str) -> None:
    def missing() -> str:
        raise FileNotFoundError("/proc/stat")

    assert OtherWork((0,), read=missing).busy_cpus() is None
    assert OtherWork((0,), read=lambda: text).busy_cpus() is None
    assert company_note(OtherWork((0,), read=missing)) == ()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_another_process_is_seen() -> None:
    busy = "while True: pass"
    other_work = OtherWork()
    with subprocess.Popen([sys.executable, "-c", busy]) as process:
        started = time.monotonic()
        while not other_work.busy_cpus() and time.monotonic() < started + 60:
            sum(random.random() for _ in range(1000))
        process.kill()
    assert other_work.busy_cpus()
