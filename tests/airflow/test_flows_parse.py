"""The flows are light, fast to parse, and in the order of the paper's Figure 3."""

import json
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.release.gates import GATES
from flywheel_core.stages import CLIMB
from operators.docs import HEADINGS
from operators.gates import GATE_NAMES

HEAVY = {"torch", "ray", "vllm", "transformers", "trl", "deepspeed", "datasets", "pyarrow", "numpy"}
MAX_PARSE_S = 0.5

PROBE = """
import json, os, runpy, sys, time
import airflow.sdk, airflow.sdk.definitions.context
import airflow.providers.standard.operators.hitl, airflow.triggers.base
airflow.sdk.DAG, airflow.sdk.BaseOperator, airflow.sdk.Param
before = set(sys.modules)
name = sys.argv[2]
started = time.process_time()
flow = runpy.run_path(os.path.join(sys.argv[1], f"flywheel_{name}.py"))
dag = next(v for v in flow.values() if isinstance(v, airflow.sdk.DAG))
found = {
    "parse_s": time.process_time() - started,
    "upstream": {t.task_id: sorted(t.upstream_task_ids) for t in dag.tasks},
    "trigger_rules": {t.task_id: t.trigger_rule.value for t in dag.tasks},
    "retries": {t.task_id: t.retries for t in dag.tasks},
    "max_active_runs": dag.max_active_runs,
    "doc_md": dag.doc_md,
    "task_docs": {t.task_id: t.doc_md for t in dag.tasks},
    "failure_callbacks": {t.task_id: len(t.on_failure_callback) for t in dag.tasks},
    "params": {name: param.value for name, param in dag.params.items()},
}
loaded = sorted({name.split(".")[0] for name in set(sys.modules) - before})
print(json.dumps({"flow": found, "modules": loaded}))
"""


@cache
def parsed() -> dict[str, Any]:
    """Every flow, each parsed in a fresh interpreter without any of our environment variables."""
    flows, modules = {}, set()
    for name in ("weekly", "nightly", "ab_test"):
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(RECIPE_FOLDER.parent), name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        one = json.loads(done.stdout.splitlines()[-1])
        flows[name] = one["flow"]
        modules |= set(one["modules"])
    return {"flows": flows, "modules": sorted(modules)}


def test_parsing_loads_nothing_heavy() -> None:
    assert not HEAVY & set(parsed()["modules"])


def test_parsing_is_fast() -> None:
    for name, flow in parsed()["flows"].items():
        assert flow["parse_s"] < MAX_PARSE_S, name


def test_weekly_is_figure_3() -> None:
    upstream = parsed()["flows"]["weekly"]["upstream"]
    order = ["wait_for_traffic", "resolve", *(stage.name for stage in CLIMB)]
    for before, after in pairwise(order):
        assert upstream[after] == [before]
    gates = sorted(f"gate_{gate}" for gate in GATES)
    assert all(upstream[gate] == ["evaluate"] for gate in gates)
    assert upstream["approval"] == gates
    assert upstream["report"] == gates
    assert upstream["promote"] == ["approval"]
    assert set(upstream) == {*order, *gates, "report", "approval", "promote"}


def test_approval_is_never_skipped_or_retried() -> None:
    weekly = parsed()["flows"]["weekly"]
    assert weekly["retries"]["approval"] == 0
    rules = weekly["trigger_rules"]
    assert {rules[task] for task in rules if task != "report"} == {"all_success"}
    assert rules["report"] == "all_done"
    flows = parsed()["flows"]
    assert all(flow["doc_md"] for flow in flows.values())
    assert flows["weekly"]["max_active_runs"] == flows["nightly"]["max_active_runs"] == 1
    # A question may wait for five days; the daily runs read on beside it.
    assert flows["ab_test"]["max_active_runs"] > 5 + 1


def test_an_experiments_answer_is_followed_whatever_it_was() -> None:
    flow = parsed()["flows"]["ab_test"]
    assert flow["upstream"] == {
        "readout": [],
        "ramp_approval": ["readout"],
        "ramp": ["ramp_approval"],
    }
    assert flow["retries"]["ramp_approval"] == 0
    # A rejection is a red approval, and an answer to be followed.
    assert flow["trigger_rules"] == {
        "readout": "all_success",
        "ramp_approval": "all_success",
        "ramp": "all_done",
    }
    assert flow["params"] == {"recipe": "tiny_cpu", "day": None}


def test_gate_names_are_the_gates() -> None:
    assert tuple(GATES) == GATE_NAMES


def test_every_page_says_what_it_is_what_red_means_and_what_to_do() -> None:
    flows = parsed()["flows"]
    pages = {name: flow["doc_md"] for name, flow in flows.items()}
    for name, flow in flows.items():
        pages |= {f"{name}.{task}": doc for task, doc in flow["task_docs"].items()}
    assert len(pages) == 3 + sum(len(flow["upstream"]) for flow in flows.values())
    for page, text in pages.items():
        found = [line for line in text.splitlines() if line in HEADINGS]
        assert found == list(HEADINGS), page
        sections = text.split("## ")[1:]
        assert all(section.partition("\n")[2].strip() for section in sections), page
    assert "five days" in pages["weekly"]
    assert "queued" in pages["weekly"]
    stages = [pages[f"weekly.{stage.name}"] for stage in CLIMB]
    assert all(stage.summary[1:] in page for stage, page in zip(CLIMB, stages, strict=True))


def test_every_task_tells_when_it_fails() -> None:
    for flow in parsed()["flows"].values():
        assert set(flow["failure_callbacks"].values()) == {1}


def test_what_a_run_by_hand_is_asked() -> None:
    flows = parsed()["flows"]
    assert flows["weekly"]["params"] == {
        "recipe": "tiny_cpu",
        "week_ending": None,
        "start_from": None,
        "checkpoint": None,
        "dry_run": False,
    }
    assert flows["nightly"]["params"] == {"recipe": "tiny_cpu", "day": None}
