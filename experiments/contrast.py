"""One contrast, repeated by one command: no backbones against `progressive`, one seed.

    python experiments/contrast.py              # under half an hour on two cores
    python experiments/contrast.py --seed 3

Prints how many times smaller the Fréchet distance is with chosen backbones, with its 95 % interval
over images; the last line on stdout is the same as JSON. May be stopped and repeated.
"""

import json
import sys
from dataclasses import replace

from execute import finished_result
from findings import TARGET
from jobs import Stopped
from plan import HERE, read_study
from study import Doing, arguments, image_intervals, jobs_of, locked, run_missing

from probe.errors import ProbeError
from probe.files import write_text


def main() -> None:
    """Run both, and print their ratio."""
    parser = arguments(__doc__, "quick.yaml")
    parser.add_argument("--seed", type=int, default=0, help="of both runs, and of their images")
    given = parser.parse_args()
    try:
        out = given.out or HERE / "runs" / f"{given.config.stem}-s{given.seed}"
        study = read_study(_with_seed(given.config, out, given.seed))
        with locked(out):
            doing = Doing(jobs=jobs_of(given, study), device=given.device)
            if failed := run_missing(study, study.runs, out, doing):
                sys.exit(f"Failed: {', '.join(failed)}; see log.txt in {out}/runs.")
            found = [finished_result(out, study, run) for run in study.runs]
            results = [result for result in found if result is not None]
            (interval,) = image_intervals(study, out, results).values()
    except ProbeError as error:
        sys.exit(f"error: {error}")
    except Stopped:
        sys.exit("Stopped. Repeat the command to go on.")
    judge = study.evaluators[0]
    record = {"seed": given.seed, "evaluator": judge, "kimg": study.runs[0].kimg}
    for run, result in zip(study.runs, results, strict=True):
        measured = result["judged"]["last"][judge]
        joined = [f"{j['name']} at {j['kimg']:g} kimg" for j in result["training"]["joined"]]
        record[run.arm] = measured["all"]["frechet"]
        print(
            f"{run.arm:12} Fréchet {measured['all']['frechet']:.1f}  kernel·1000 "
            f"{1000 * measured['all']['kernel']:.1f}  precision "
            f"{measured['neighbours']['precision']:.2f}  recall "
            f"{measured['neighbours']['recall']:.2f}"
            + (f"  ({', '.join(joined)})" if joined else "")
        )
    record["ratio"] = {k: interval[k] for k in ("value", "low", "high")}
    print(
        f"none / progressive = {interval['value']:.2f} times, 95 % interval over images "
        f"{interval['low']:.2f} to {interval['high']:.2f} (asked for: {TARGET:g})"
    )
    print(json.dumps(record))


def _with_seed(config, out, seed):
    """Write the configuration with another seed beside its runs; return its path."""
    study = read_study(config)
    groups = [{**group, "seeds": [seed]} for group in study.groups]
    record = dict(vars(replace(study, groups=groups)))
    del record["path"], record["runs"]
    path = out / config.name
    write_text(path, json.dumps(record, indent=2))  # JSON is YAML
    return path


if __name__ == "__main__":
    main()
