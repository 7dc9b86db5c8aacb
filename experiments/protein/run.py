"""Best-of-N rewards on IgLM-S beside tuned GRPO: python experiments/protein/run.py FOLDER --task unconditional."""

from __future__ import annotations

import argparse
from operator import itemgetter
from pathlib import Path

import yaml
from arms import run, warm_up, weights
from outcome import DECIDES, report

from operant.core.record import append_record, read_records
from operant.hf import quiet
from operant.reproduce import write_comparisons


def main() -> None:
    """Run the arms that are missing, seed by seed; print the table; write the comparisons and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="results.jsonl is there; started again, the run goes on")
    parser.add_argument("--task", choices=["unconditional", "conditional"], required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--model", type=Path, help="what examples/get_iglm.py writes. Default: fetched into FOLDER")
    parser.add_argument("--quick", action="store_true", help="two seeds, two arms, one rate, ten steps, fewer samples")
    args = parser.parse_args()
    whole = yaml.safe_load(Path(__file__).with_name("config.yaml").read_text(encoding="utf-8"))
    seeds, config, results = args.seeds, whole[args.task], args.folder / "results.jsonl"
    if args.quick:
        seeds, config["arms"] = seeds[:2], ["grpo", DECIDES]
        config["rates"], config["train"]["max_steps"] = config["rates"][1:2], 10
        for split in ("development", "test"):
            config[split] = {k: min(most, 16 if k == "prompts" else 128) for k, most in config[split].items()}
    args.folder.mkdir(parents=True, exist_ok=True)
    arms = ["start", *config["arms"]]
    rows = read_records(results) if results.is_file() else []
    done = {(r["seed"], r["arm"]) for r in rows}
    quiet()
    for seed, arm in [(s, a) for s in seeds for a in arms if (s, a) not in done]:
        start = args.model or weights(args.folder / "iglm-s")
        if "warm_up" in config:
            start = warm_up(start, args.folder / "work" / f"warm{seed}", config, seed)
        found = run(start, arm, whole, args.task, seed, args.folder / "work")
        append_record(results, "run", seed=seed, arm=arm, **found)
        print(f"seed {seed} {arm}: {found}", flush=True)
    found = [r for r in read_records(results) if r["seed"] in seeds and r["arm"] in arms]
    write_comparisons(args.folder, report(sorted(found, key=itemgetter("seed")), whole["judged"], args.folder))


if __name__ == "__main__":
    main()
