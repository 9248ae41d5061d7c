"""Finds calls that would run what they read: pickles, eval, unsafe YAML, shells."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNSAFE_YAML = {"yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "yaml.SafeLoader", "yaml.CSafeLoader"}
NEVER_TRUE = {"shell", "allow_pickle", "trust_remote_code"}


@dataclass(frozen=True)
class Unsafe:
    """One place, and what it does."""

    line: int
    what: str


def unsafe_calls(source: str) -> list[Unsafe]:
    """Every unsafe call or import in a module's source."""
    tree = ast.parse(source)
    safe = SAFE_LOADERS | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(_name(base) in SAFE_LOADERS for base in node.bases)
    }
    found = [*_imports(tree)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [Unsafe(node.lineno, what) for what in _faults(node, safe)]
    return sorted(found, key=lambda one: one.line)


def _imports(tree: ast.Module) -> Iterator[Unsafe]:
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        for module in modules:
            if module.split(".")[0] in PICKLES:
                yield Unsafe(node.lineno, f"imports {module}")


def _faults(call: ast.Call, safe_loaders: set[str]) -> Iterator[str]:
    name = _name(call.func)
    if name in BUILTINS or name in SHELLS or name in UNSAFE_YAML or name.endswith(".read_pickle"):
        yield f"calls {name}"
    if name in ("yaml.load", "yaml.load_all") and _loader(call) not in safe_loaders:
        yield f"calls {name} without a safe loader"
    if name == "torch.load" and not _is_true(call, "weights_only"):
        yield "calls torch.load without weights_only=True"
    if name.endswith("import_module") and not isinstance(call.args[0], ast.Constant):
        yield "imports a module by a name that is data"
    yield from (f"passes {word}=True" for word in sorted(NEVER_TRUE) if _is_true(call, word))


def _loader(call: ast.Call) -> str:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "Loader"]
    found = given or call.args[1:2]
    return _name(found[0]) if found else ""


def _is_true(call: ast.Call, word: str) -> bool:
    """Anything but a plain False counts: what is worked out at run time may be True."""
    for keyword in call.keywords:
        if keyword.arg == word:
            return not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
    return False


def _name(node: ast.expr) -> str:
    """`a.b.c` as it is written; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return ""


def modules(*folders: Path) -> Iterator[Path]:
    """Every Python file below the folders."""
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))
