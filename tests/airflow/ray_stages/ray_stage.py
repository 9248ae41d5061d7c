"""A stage for tests of the operator: a real Ray job that sleeps, talks and commits.

`config` says how it behaves: `sleep_s`, `fail_with`, `commit`. Runs as `python -m ray_stage`.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from flywheel_core.artifacts import Attempt, is_done
from flywheel_core.plan import load_plan
from flywheel_core.store import open_store


def main(name: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--work", default="")
    parser.add_argument("--job", default="")
    arguments = parser.parse_args()
    store = open_store(arguments.store)
    stage = load_plan(store, arguments.plan).stage(name)
    if is_done(store, stage.ref):
        return
    attempt = Attempt(store, stage.ref, Path(mkdtemp()))
    steps = int(stage.config.get("sleep_s", 0) * 2) or 1
    for step in range(steps):
        print(f"progress: {step + 1}/{steps} naps", flush=True)
        time.sleep(0.5)
    if stage.config.get("fail_with"):
        print(f"error: {stage.config['fail_with']}", flush=True)
        attempt.drop()
        sys.exit(1)
    if stage.config.get("commit", True):
        (attempt.folder / "out.txt").write_text(name)
        attempt.commit(kind="test", stage_version=1)
