"""Run the benchmarks of this folder by name, or all of them."""

import importlib
import time

import torch

from benchmarks.harness import RESULTS, keep_memory, write
from benchmarks.options import parse

BENCHMARKS = (
    "kernels",
    "every_mechanism",
    "whole_models",
    "growth",
    "detection",
    "data_loading",
    "keras_layers",
    "cluster",
    "inference",
    "site",
    "in_network",
    "explorer",
)


def main() -> None:
    """Run each benchmark and write its record as soon as it is complete."""
    command = parse(BENCHMARKS, RESULTS)
    keep_memory()
    if command.options.threads:
        torch.set_num_threads(command.options.threads)
    for name in command.names:
        began = time.perf_counter()
        for record in importlib.import_module(f"benchmarks.{name}").measure(command.options):
            path = command.results / f"{record['name']}.json"
            write(record, path)
            print(f"{name}: {time.perf_counter() - began:.0f} s, {path}", flush=True)
    print("Now: python tools/bench_tables.py")


if __name__ == "__main__":
    main()
