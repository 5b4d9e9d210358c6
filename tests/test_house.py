"""The rules of the house: public names, the floors of imports, what `import dip` costs, and one version."""

from __future__ import annotations

import ast
import configparser
import graphlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dip

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "dip").rglob("*.py"))
LONGEST = 450  # lines: what can be read in one sitting

PUBLIC_NAMES = [
    "CheckpointError",
    "Deblur",
    "Dejpeg",
    "Denoise",
    "DivergenceError",
    "Fit",
    "Inpaint",
    "Reconstruct",
    "SuperResolve",
    "__version__",
    "averaging",
    "callbacks",
    "codes",
    "datasets",
    "deblur",
    "degradations",
    "dejpeg",
    "denoise",
    "devices",
    "files",
    "fit",
    "images",
    "inpaint",
    "losses",
    "metrics",
    "networks",
    "noise",
    "operators",
    "presets",
    "reconstruct",
    "run_all",
    "stopping",
    "super_resolve",
    "trained",
]

# From the ground up. A module may import from floors below its own, or from its own floor without a circle.
FLOORS = [
    {"_version", "errors"},
    {
        "images",
        "decoding",
        "encoding",
        "metadata",
        "files",
        "stacks",
        "storage",
        "metrics",
        "datasets",
        "devices",
        "guides",
        "groups",
        "wiener",
        "noise",
        "masks",
        "ranges",
    },
    {"networks", "operators", "degradations", "losses", "codes", "draws", "jitter", "falling", "flips"},
    {"presets"},
    {"stopping", "averaging", "history", "guard", "optimizers", "problem", "callbacks", "checkpoint", "likeness"}
    | {"stretch"},
    {
        "settings",
        "sizes",
        "solver",
        "ahead",
        "renewal",
        "replay",
        "kept",
        "recorder",
        "merged",
        "compared",
        "company",
        "crops",
        "folds",
        "excerpt",
        "trained",
    },
    {"tasks", "light", "denoising", "deblurring", "reconstruction", "decompression", "inpainting"},
    {"restore", "several"},
    {"plot", "batch", "benchmark"},
    {"demo", "arguments", "cli", "commands", "comparison", "console", "folder", "job", "order", "work"}
    | {
        "benchmark_arguments",
        "fit_arguments",
        "noise_arguments",
        "place_arguments",
        "parcels",
        "train_arguments",
        "train_command",
        "trained_job",
        "__main__",
    },
    {"__init__"},  # the roof: it exports, and nothing inside imports it
]
FLOOR = {name: height for height, floor in enumerate(FLOORS) for name in floor}

# Loaded when they are needed, not by `import dip`.
LATE = ["IPython", "PIL", "dask", "deepinv", "imageio", "ipywidgets", "matplotlib", "png", "pooch"]
LATE += ["safetensors", "scipy", "skimage", "tensorboard", "tifffile", "tqdm"]


def module_name(path: Path) -> str:
    """dip/networks/blocks.py -> dip.networks.blocks, dip/networks/__init__.py -> dip.networks."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def storey(module: str) -> str:
    """The entry of FLOORS that a module belongs to: the first name below the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def running_nodes(module: str, *, functions: bool) -> Iterator[ast.AST]:
    """The syntax tree of a module without what stands under `if TYPE_CHECKING:`, which never runs.

    With functions=False only what runs when the module is imported.
    """
    todo: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
        elif functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))


def imported_modules(module: str) -> Iterator[tuple[str, int]]:
    """The modules of the package that a module imports, in its functions too, with the line."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in running_nodes(module, functions=True):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from dip import images` is the module, `from dip.images import describe` what is in it
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "dip":
                yield name, node.lineno


def test_public_names_are_the_agreed_ones():
    assert sorted(dip.__all__) == sorted(PUBLIC_NAMES)
    assert len(set(dip.__all__)) == len(dip.__all__)
    missing = [name for name in PUBLIC_NAMES if not hasattr(dip, name)]
    assert not missing


def test_nothing_else_is_visible_at_the_top():
    modules = {name.split(".")[1] for name in MODULES if "." in name}
    visible = {name for name in vars(dip) if not name.startswith("_")}
    assert visible <= {*PUBLIC_NAMES, *modules, "annotations"}


def test_every_module_has_a_floor():
    homeless = sorted({storey(name) for name in MODULES} - set(FLOOR))
    assert not homeless, f"give these a place in FLOORS: {homeless}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module):
    height = FLOOR[storey(module)]
    up = [
        f"{MODULES[module].name}:{line} imports {target} from a higher floor"
        for target, line in imported_modules(module)
        if FLOOR[storey(target)] > height
    ]
    assert not up


def test_imports_make_no_circle():
    # A package's own __init__ reads its modules, so a module that imports its package closes a circle too.
    graph = {name: {target for target, _ in imported_modules(name)} for name in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_only_torch_and_numpy_are_imported_at_module_level(module):
    packages = set()
    for node in running_nodes(module, functions=False):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(str(node.module).split(".")[0])
    assert packages - set(sys.stdlib_module_names) <= {"dip", "numpy", "torch"}


def run_python(code: str) -> dict:
    """What a fresh interpreter prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_brings_nothing_beside_torch_and_numpy():
    report = "; print(json.dumps({name.partition('.')[0]: True for name in sys.modules}))"
    before = run_python("import json, sys, numpy, torch" + report)
    added = set(run_python("import json, sys, numpy, torch, dip" + report)) - set(before)
    assert not added & set(LATE)
    third_party = {name for name in added - set(sys.stdlib_module_names) if not name.startswith("_")}
    assert third_party == {"dip"}


def test_import_touches_no_global_state():
    code = """
import hashlib, json, random, signal, sys, warnings
import numpy as np, torch
from torch.backends import cudnn

def state():
    draws = (random.getstate(), [str(part) for part in np.random.get_state()])
    return {
        "draws": hashlib.sha256(repr(draws).encode()).hexdigest(),
        "torch draws": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "dtype": [str(torch.get_default_dtype()), str(torch.get_default_device())],
        "gradients": [torch.is_grad_enabled(), torch.is_anomaly_enabled()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic],
        "matmul": torch.get_float32_matmul_precision(),
        "warnings": [str(entry) for entry in warnings.filters],
        "errors": np.geterr(),
        "printing": str(np.get_printoptions()),
        "signals": str(signal.getsignal(signal.SIGINT)),
        "hook": str(sys.excepthook),
    }

before = state()
import dip
print(json.dumps({"before": before, "after": state()}))
"""
    seen = run_python(code)
    assert seen["after"] == seen["before"]


@pytest.mark.parametrize("module", MODULES)
def test_modules_can_be_read_in_one_sitting(module):
    lines = MODULES[module].read_text(encoding="utf-8").count("\n")
    assert lines < LONGEST


def undocumented(module: str) -> Iterator[str]:
    """The public things in a module without a docstring; `forward` is described by its class."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    if tree.body and not ast.get_docstring(tree):
        yield module
    todo: list[tuple[str, ast.AST]] = [(module, node) for node in tree.body]
    while todo:
        where, node = todo.pop(0)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
        if not ast.get_docstring(node) and node.name != "forward" and not decorators & {"overload", "setter"}:
            yield f"{where}.{node.name}"
        if isinstance(node, ast.ClassDef):
            todo.extend((f"{where}.{node.name}", child) for child in node.body)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module):
    assert not list(undocumented(module))


@pytest.mark.parametrize(
    "name", [n for n in PUBLIC_NAMES if callable(getattr(dip, n, None)) and not n.endswith("Error")]
)
def test_docstrings_of_the_public_face_name_every_parameter(name):
    thing = getattr(dip, name)
    text = inspect.getdoc(thing) or ""
    silent = [p for p in inspect.signature(thing).parameters if not re.search(rf"\b{re.escape(p)}\b", text)]
    assert not silent


def distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("deep-image-prior")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("dip is read from its folder here, not installed")


def test_one_version_everywhere():
    assert distribution().version == dip.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{dip.__version__}]" in changelog


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in found}


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    lost = []
    for link in (link for link in links if "://" not in link):
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in headings(there)):
            lost.append(link)
    assert not lost


def test_pages_that_modules_name_are_there():
    named = {name for path in SOURCES for name in re.findall(r"docs/\w+\.md", path.read_text(encoding="utf-8"))}
    assert named
    assert not {name for name in named if not (ROOT / name).exists()}


def test_console_command_exists():
    (entry,) = distribution().entry_points.select(group="console_scripts", name="dip")
    assert callable(entry.load())


def test_every_requirement_is_pinned_within_its_range():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    wanted = [Requirement(line) for text in lists for line in text.strip().splitlines()]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[name] = version
    for need in wanted:
        if need.name != "deep-image-prior":
            assert need.name in pins, f"{need.name} has no line in constraints.txt"
            assert need.specifier.contains(pins[need.name]), f"{need} does not allow {pins[need.name]}"


def test_every_file_that_is_no_module_travels_with_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = [
        f"{package.replace('.', '/')}/{pattern.strip()}"
        for package, given in config["options.package_data"].items()
        for pattern in re.split(r"[\n,]", given)
        if pattern.strip()
    ]
    others = [path for path in (ROOT / "dip").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert len(others) > 5
    homeless = [path for path in others if not any(path.relative_to(ROOT).match(pattern) for pattern in patterns)]
    assert not homeless, f"give these a place in setup.cfg's package_data: {homeless}"
