"""Nothing that is read from the store, a recipe or a policy is run as code.

Libraries: DeepSpeed writes its optimiser state with pickle. Such checkpoints are never artifacts;
they lie in a stage's work folder, on the machine that wrote them. Hugging Face and vLLM read
safetensors, and anything else with `weights_only=True`, which is torch's own default.
"""

import pytest

from flywheel_core.errors import ConfigError
from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.stages import CLIMB, trusted_module
from tests.security.unsafe import Unsafe, modules, unsafe_calls

REPOSITORY = RECIPE_FOLDER.parent.parent
OURS = tuple(REPOSITORY / name for name in ("flywheel_core", "operators", "dags"))

KNOWN = {
    "flywheel_core/jobs/base.py": {"imports a module by a name that is data"},
}
"""A stage's job imports its own module; `stages.trusted_module` refuses another name in a plan."""


def test_our_code_runs_nothing_it_reads() -> None:
    found: dict[str, set[str]] = {}
    num_modules = 0
    for path in modules(*OURS):
        num_modules += 1
        faults = {fault.what for fault in unsafe_calls(path.read_text())}
        if faults:
            found[path.relative_to(REPOSITORY).as_posix()] = faults
    assert num_modules > 100
    unknown = {name: faults - KNOWN.get(name, set()) for name, faults in found.items()}
    assert not {name: faults for name, faults in unknown.items() if faults}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import joblib.numpy_pickle",
        "eval(text)",
        "exec(open(path).read())",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=allowed)",
        "pandas.read_pickle(path)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "importlib.import_module(data['module'])",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert len(unsafe_calls(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Strict(yaml.SafeLoader): ...\nyaml.load(text, Loader=Strict)",
        "torch.load(path, weights_only=True)",
        "numpy.load(path)",
        "model.eval()",
        "re.compile(text)",
        "subprocess.run(command, shell=False)",
        "importlib.import_module('json')",
    ],
)
def test_the_search_leaves_alone(source: str) -> None:
    none: list[Unsafe] = []
    assert unsafe_calls(source) == none


@pytest.mark.parametrize(
    ("stage", "module"),
    [("rl", "antigravity"), ("rl", "flywheel_core.jobs.sft"), ("mine", "os"), ("mine", "")],
)
def test_a_plan_cannot_choose_what_a_job_runs(stage: str, module: str) -> None:
    with pytest.raises(ConfigError, match="the plan was edited"):
        trusted_module(stage, module, "my_stages.mine,")


def test_a_stage_has_its_own_module_and_a_site_may_add_some() -> None:
    for stage in CLIMB:
        assert trusted_module(stage.name, stage.module, "") == stage.module
    assert trusted_module("mine", "my_stages.mine", "my_stages.mine") == "my_stages.mine"
