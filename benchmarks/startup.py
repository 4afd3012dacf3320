"""How long the command line takes to answer, process start included.

    python benchmarks/startup.py [--quick] [--runs 10] [--out FILE.json]

`import torch` alone stands beside for comparison: a part that no command that computes can save.
"""

from statistics import median

from common import Record, arguments, run_probe, run_python, scratch

COMMANDS = {  # arguments → target in seconds
    ("--help",): 0.3,
    ("rank", "--help"): 0.3,
    ("bank", "list"): 1.0,
}


def main() -> None:
    parser = arguments(__doc__, "startup")
    parser.add_argument("--runs", type=int, help="of every command (10; quick 1)")
    args = parser.parse_args()
    runs = args.runs or (1 if args.quick else 10)
    record = Record("startup", "How long the command line takes to answer")
    record.settings = {"runs": runs}
    imports = ("import torch", "import probe.api.rank")
    with scratch() as cache:
        sides = {
            **{
                f"probe {' '.join(command)}": lambda c=command: run_probe(*c, cache=cache)
                for command in COMMANDS
            },
            **{text: lambda t=text: run_python(["-c", t], cache=cache) for text in imports},
        }
        for work in sides.values():
            work()
        times = {name: [] for name in sides}
        for _ in range(runs):
            for name, work in sides.items():
                times[name].append(work().seconds)
    record.table(
        f"Seconds, {runs} runs in turn",
        ["command", "median", "least", "most"],
        [[name, median(found), min(found), max(found)] for name, found in times.items()],
    )
    for command, target in COMMANDS.items():
        name = f"probe {' '.join(command)}"
        record.check(name, median(times[name]), at_most=target, unit=" s")
    record.values = {"seconds": times}
    record.finish(args.out, quick=args.quick)


if __name__ == "__main__":
    main()
