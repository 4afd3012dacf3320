"""Train the bundled generator anew, as the study's best arm was trained, and put it in its place.

    python experiments/demo.py

Needs the study's results. The bundled generator is replaced if its Fréchet distance to the bundled
images is larger than the new one's; the new one's provenance goes to probe/demo/README.md.
"""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from execute import BANK, finished_result, finished_training
from findings import Results
from jobs import Stopped
from judge import open_judge
from plan import HERE, Run, Study, longer, read_json, read_study
from records import last_snapshot
from study import Doing, arguments, locked, run_missing

from probe.bundled import DEMO_GENERATOR, DEMO_REALS
from probe.errors import ProbeError, UsageError
from probe.files import write_text
from probe.images.open import open_images

MOST_BYTES = 5_000_000
README = DEMO_GENERATOR.parent / "README.md"
BEGIN, END = "<!-- generator: begin -->", "<!-- generator: end -->"


def best_arm(results: Results) -> str:
    """Return the arm with the least final distance on most images, by the deciding evaluator.

    Among arms of which every seed of the contrast is done, so that luck counts less.
    """
    images = results.sizes[0]
    wanted = set(results.seeds(images, ["none"]))
    means = {}
    for arm in results.arms(images):
        found = results.measured(images, arm, "frechet")
        if wanted <= set(found):
            means[arm] = sum(math.log(found[s]) for s in wanted) / len(wanted)
    return min(means, key=lambda arm: means[arm])


def make_config(results: Results, changes: dict[str, Any], path: Path) -> Study:
    """Write the configuration of the one run; return it."""
    record = {**results.study}
    arm = best_arm(results)
    record["train"] = {**record["train"], **changes["train"]}
    record["arms"] = {arm: longer(record["arms"][arm], changes["scale"])}
    record["groups"] = [
        {"name": "demo", "images": len(open_images(DEMO_REALS)), "arms": [arm], "seeds": [0]}
    ]
    record["evaluators"] = record["evaluators"][:1]
    record["probe_seeds"] = []
    del record["name"]
    write_text(path, json.dumps(record, indent=2))  # JSON is YAML
    return read_study(path)


def provenance(run: Run, result: dict[str, Any], distances: tuple[float, float]) -> str:
    """Return what the demo's README says about the generator."""
    joined = [f"`{j['name']}` at {j['kimg']:g}" for j in result["training"]["joined"]]
    machine, versions = result["machine"], result["versions"]
    options = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in run.options.items()
        if name not in ("holdout", "track_probes")
    ]
    command = textwrap.fill(
        f"$ probe train --real probe/demo/reals.zip --bank experiments/bank.yaml --backbones "
        f"{','.join(run.backbones)} {' '.join(options)}",
        94, break_on_hyphens=False, break_long_words=False, subsequent_indent="    ",
    ).replace("\n", " \\\n")  # fmt: skip
    facts = (
        (f"Backbones joined (thousands of images): {', '.join(joined)}. " if joined else "")
        + f"Probe {versions['probe']}, commit {versions['commit']}, torch {versions['torch']}, "
        f"{result['precision']}; {result['seconds']['steps'] / 3600:.1f} hours of steps with "
        f"{machine['threads']} thread(s) on {machine['cpu']}. Fréchet distance to the bundled "
        f"images in `{run_evaluator(result)}`: {distances[1]:.1f}; previous generator: "
        f"{distances[0]:.1f}."
    )
    return (
        "The generator was made by `python experiments/demo.py`: the best arm of docs/study.md, "
        "trained on\nall bundled images. As a command:\n\n"
        f"```console\n{command}\n```\n\n{textwrap.fill(facts, 98, break_on_hyphens=False)}"
    )


def run_evaluator(result: dict[str, Any]) -> str:
    """Return the evaluator that judged."""
    return next(iter(result["judged"]["last"]))


def replace_generator(study: Study, out: Path) -> str:
    """Put the trained generator in the bundled one's place, where it is better.

    Returns:
        What was done, as a sentence.

    Raises:
        UsageError: too large to bundle.
    """
    (run,) = study.runs
    result = finished_result(out, study, run)
    trained = finished_training(out, study, run)
    assert result is not None and trained is not None
    # The best by the judge of the whole run, not by the trainer's small samples alone.
    kimg = {"last": run.kimg, "best": result["training"]["best_kimg"]}
    source = open_images(study.archive)
    judge = open_judge(
        out / BANK, study.evaluators[0], source, resolution=study.train["resolution"]
    )
    measured = {
        which: judged[judge.name]["all"]["frechet"] for which, judged in result["judged"].items()
    }
    which = min(measured, key=lambda name: measured[name])
    present = judge.features(
        DEMO_GENERATOR,
        count=study.fakes,
        seed=study.judge_seed,
        resolution=study.train["resolution"],
    )
    before = judge.measure(present, {"all": range(len(source))})["all"]["frechet"]
    text = f"Fréchet distance {measured[which]:.1f}, the bundled generator's {before:.1f}"
    if measured[which] >= before:
        return f"Not replaced: {text}."
    packed = out / "generator.safetensors"
    command = [str(HERE.parent / "scripts" / "pack_generator.py")]
    snapshot = last_snapshot(trained, kimg[which])
    subprocess.run([sys.executable, *command, str(snapshot), str(packed)], check=True)
    if packed.stat().st_size > MOST_BYTES:
        raise UsageError(f"{packed} has {packed.stat().st_size} bytes, more than {MOST_BYTES}.")
    readme = README.read_text("utf-8")
    head, _, rest = readme.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise UsageError(f"{README} lacks the lines {BEGIN} and {END}.")
    DEMO_GENERATOR.write_bytes(packed.read_bytes())
    block = provenance(run, result, (before, measured[which]))
    write_text(README, f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}")
    return f"Replaced: {text}."


def main() -> None:
    """Run the command."""
    parser = arguments(__doc__, "demo.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "study.json")
    given = parser.parse_args()
    try:
        record = read_json(given.results)
        if not record or not record["runs"]:
            raise UsageError(f"{given.results} holds no results. Run experiments/study.py first.")
        out = given.out or HERE / "runs" / "demo"
        changes = yaml.safe_load(given.config.read_text("utf-8"))
        study = make_config(Results(record), changes, out / "demo.json")
        with locked(out):
            if run_missing(study, study.runs, out, Doing(jobs=1, device=given.device)):
                sys.exit(f"The run failed; see log.txt in {out}/runs.")
            print(replace_generator(study, out))
    except ProbeError as error:
        sys.exit(f"error: {error}")
    except Stopped:
        sys.exit("Stopped. Repeat the command to go on.")


if __name__ == "__main__":
    main()
