"""What a benchmark measures of a process is that process's own."""

import numpy as np

from configs.benchmark import measure_in_a_process


def hold(megabytes):
    held = np.ones(megabytes * 125_000)
    return {"sum": float(held.sum())}


def test_the_peak_of_a_measured_process_leaves_out_what_its_parent_held():
    held = np.ones(50_000_000)  # 0.4 GB
    assert measure_in_a_process(hold, megabytes=1)["peak_memory_gb"] < 0.3
    assert held[0] == 1


def test_the_peak_of_a_measured_process_counts_what_it_held_and_gave_back():
    assert measure_in_a_process(hold, megabytes=400)["peak_memory_gb"] > 0.4
