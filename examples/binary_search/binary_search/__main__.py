"""`python -m binary_search`: run the whole experiment and write its numbers, its picture and its tables."""

import argparse
from pathlib import Path

from binary_search import report
from binary_search.study import ALL_CONDITIONS, CONDITIONS, study


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="binary_search", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("docs/experiments"), help="folder of binary-search.{md,json,png}"
    )
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report-only", action="store_true", help="draw and write tables again from the saved numbers")
    parser.add_argument("--all", action="store_true", help="the other strategies and the weaker reward too")
    arguments = parser.parse_args()
    numbers = arguments.out / "binary-search.json"
    if not arguments.report_only:
        conditions = ALL_CONDITIONS if arguments.all else CONDITIONS
        report.save(numbers, study(arguments.processes, lambda line: print(line, flush=True), conditions))
    results = report.load(numbers)
    report.draw(arguments.out / "binary-search.png", results)
    tables = report.tables(results)
    report.rewrite(arguments.out / "binary-search.md", tables)
    print(tables)


if __name__ == "__main__":
    main()
