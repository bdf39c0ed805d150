"""Throughput under concurrent load, with calls that only wait."""

import threading
import time

import pytest

from workers.export.throughput import clients_for, measure_throughput


def test_clients_call_at_once_each_its_own():
    opened, together, lock = [], [0, 0], threading.Lock()

    def open_call():
        opened.append(object())

        def call():
            with lock:
                together[0] += 1
                together[1] = max(together)
            time.sleep(0.01)
            with lock:
                together[0] -= 1

        return call

    found = measure_throughput(open_call, clients=3, examples=8, seconds=0.2)
    assert len(opened) == found.clients == 3
    assert together[1] > 1
    assert found.examples_per_s == pytest.approx(3 * 8 * 1000 / found.median_ms, rel=0.5)
    assert 10 <= found.median_ms <= found.p99_ms


def test_a_slow_call_is_made_once_by_each():
    found = measure_throughput(lambda: lambda: time.sleep(0.05), clients=2, examples=1, seconds=0.01)
    assert found.p99_ms >= 50


def test_clients_leave_each_call_its_threads():
    assert clients_for(1_000_000) == 1
    assert clients_for(1) >= 1
