"""No call that runs what a file says: looked for in the syntax tree of every source file."""

import ast
import pathlib

import pytest
from packages import PACKAGES

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "__import__"}
METHODS = {"extractall", "extract_all", "unpack_archive", "read_pickle"}
QUALIFIED = {
    "torch.load",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}
KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}

GUARDED = {
    # The one place that reads pickles, by an unpickler that calls nothing a file names.
    "realdex_jax/data/unpickle.py": {"import pickle"},
}


def unsafe(tree: ast.AST) -> set[str]:
    found = set()
    known = {  # by what name a module goes here
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                f"import {alias.name}"
                for alias in node.names
                if alias.name.partition(".")[0] in MODULES
            }
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            methods = METHODS & {alias.name for alias in node.names}
            if module.partition(".")[0] in MODULES or names & QUALIFIED or methods:
                found.add(f"from {module} import")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.add(f"{node.func.id}()")
            if isinstance(node.func, ast.Attribute):
                owner = node.func.value
                owned = known.get(owner.id, owner.id) if isinstance(owner, ast.Name) else "?"
                name = f"{owned}.{node.func.attr}"
                positional = name == "numpy.load" and len(node.args) > 2
                loads = name == "importlib.import_module" and any(
                    isinstance(a, ast.Constant) and a.value in MODULES for a in node.args
                )
                if positional or loads:
                    found.add(f"{name}()")
                if name in QUALIFIED or node.func.attr in METHODS or name == "builtins.eval":
                    found.add(f"{name}()")
            found |= {
                f"{keyword.arg}="
                for keyword in node.keywords
                if keyword.arg in KEYWORDS
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
            }
    return found


def test_no_source_file_runs_what_a_file_says(repository: pathlib.Path) -> None:
    hits, seen = {}, 0
    for package in PACKAGES:
        for path in sorted((repository / package).rglob("*.py")):
            seen += 1
            relative = path.relative_to(repository).as_posix()
            found = unsafe(ast.parse(path.read_text(encoding="utf-8")))
            if found - GUARDED.get(relative, set()):
                hits[relative] = sorted(found - GUARDED.get(relative, set()))
    assert not hits
    assert seen > 100


def test_the_guarded_files_are_there(repository: pathlib.Path) -> None:
    for relative, allowed in GUARDED.items():
        assert unsafe(ast.parse((repository / relative).read_text(encoding="utf-8"))) == allowed


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import dill.source",
        "from torch import load",
        "eval(text)",
        "exec('x')",
        "__import__(name)",
        "torch.load(path)",
        "yaml.load(f)",
        "os.system('ls')",
        "archive.extractall(path)",
        "zipfile.ZipFile(p).extractall()",
        "subprocess.run(x, shell=True)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=yes)",
        "import numpy as np\nnp.load(path, None, True)",
        "import torch as t\nt.load(path)",
        "from shutil import unpack_archive",
        "pandas.read_pickle(path)",
        "joblib.load(path)\nimport joblib",
        "yaml.full_load(f)",
        "subprocess.getoutput('ls')",
        "importlib.import_module('pickle')",
    ],
)
def test_the_lint_sees_each_kind(line: str) -> None:
    assert unsafe(ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "jax.ensure_compile_time_eval()",
        "np.load(path, allow_pickle=False)",
        "model.eval()",
        "import numpy as np\nnp.load(path)",
        "importlib.import_module(name)",
        "json.load(f)",
        "subprocess.run(x, shell=False)",
        "'eval(text)'",
    ],
)
def test_the_lint_leaves_the_rest_alone(line: str) -> None:
    assert not unsafe(ast.parse(line))
