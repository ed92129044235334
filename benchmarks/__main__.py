"""Run the benchmarks of this folder by name, or all of them."""

import argparse
import importlib
import time

from benchmarks.harness import RESULTS, write

BENCHMARKS = ("attach_overhead",)


def main() -> None:
    """Measure and write the records."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=10, help="how often each call is timed (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch's threads (default: torch's own choice)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    for name in options.names or BENCHMARKS:
        began = time.perf_counter()
        record = importlib.import_module(f"benchmarks.{name}").measure(options.rounds, threads=options.threads)
        path = RESULTS / f"{name}.json"
        write(record, path)
        print(f"{name}: {time.perf_counter() - began:.0f} s, {path}")
    print("Now: python tools/bench_tables.py")


if __name__ == "__main__":
    main()
