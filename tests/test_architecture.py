"""The house holds: imports point downwards, torch stays out where start-up must be instant, nothing grows too large."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import latentart

ROOT = Path(latentart.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(("latentart", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for path in FILES
}

ORDER = (  # from the bottom up; a package imports only what stands below it
    {"errors", "kinds", "printable"},
    {"core", "storage"},
    {"config", "process"},
    {"data"},
    {"builders", "layout"},
    {"model"},
    {"sampling"},
    {"scoring"},
    {"training"},
    {"workspace"},
    {"export", "planning", "reporting"},
    {"studio"},
    {"api", "cli"},
    {"__main__", "__init__"},  # of the package itself, which hands on the names of api when they are asked for
)
PLACES = {package: place for place, packages in enumerate(ORDER) for package in packages}
BUILDERS = {"latentart.builders", "latentart.layout", "latentart.model.description", "latentart.training.build"}
STORIES = {
    f"latentart.{name}"
    for name in (
        "planning.bench",
        "planning.plan",
        "planning.schedule",
        "sampling.sample",
        "studio.studio",
        "scoring.evaluate_ldm",
        "scoring.evaluate_vae",
        "training.encode",
        "training.find_lr",
        "training.train_ldm",
        "training.train_vae",
        "workspace.clean_data",
        "workspace.demo",
        "workspace.init",
        "workspace.minutes",
        "workspace.weights",
    )
}
MAX_FILES_IN_A_FOLDER = 15

NAMES_OF_OTHERS = {"_functorch", "_compiled_call_impl", "_foreach_lerp_", "_exit"}  # torch and os give no other
INSTANT = {"cli", "config", "data", "errors", "kinds", "printable", "__main__", "__init__"}
ALSO_INSTANT = {"latentart.workspace.clean_data"}  # a command that needs no torch
WITH_TORCH = {"latentart.data.datasets", "latentart.data.loading", "latentart.data.latent_cache"}
HEAVY = {"torch", "torchvision", "torchmetrics", "lpips", "einops", "safetensors"}
HARMLESS = {"flush", "isatty", "reconfigure"}  # methods of stdout and stderr that write nothing of ours
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "shared", "base_utils"}
MAX_FILE_LINES = 330
MAX_FUNCTION_LINES = 75
MAX_PARAMETERS = 8


@dataclass(frozen=True)
class Import:
    """One import of a module; ``is_at_top`` when it runs as soon as the module is imported."""

    importer: str
    imported: str
    is_at_top: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


def name_of(path: Path) -> str:
    """Return a file's module name."""
    parts = ("latentart", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    """Return what is written in a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of a file."""
    return tuple(ast.walk(tree_of(path)))


def package_of(module: str) -> str:
    """Return the ring's member that a module belongs to; the root itself is __init__."""
    return module.split(".")[1] if "." in module else "__init__"


def walk(node: ast.AST, *, is_at_top: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node below ``node`` and whether it runs at import."""
    for child in ast.iter_child_nodes(node):
        is_later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
            isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        )
        yield child, is_at_top
        yield from walk(child, is_at_top=is_at_top and not is_later)


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Return every import in a file, wherever it stands."""
    importer, found = name_of(path), []
    for node, is_at_top in walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [Import(importer, alias.name, is_at_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [Import(importer, name if name in MODULES else node.module, is_at_top) for name in full]
    return tuple(found)


def ours() -> list[Import]:
    """Return every import of one of our modules by another."""
    return [i for path in FILES for i in imports_of(path) if i.imported.split(".")[0] == "latentart"]


def test_imports_point_downwards_only() -> None:
    """As ``ORDER`` says; so there are no circles between packages either."""
    found = {
        str(one)
        for one in ours()
        if (above := package_of(one.importer)) != (below := package_of(one.imported)) and below != "__init__"
        if PLACES[above] <= PLACES[below]
    }

    assert found == set()


def test_every_package_has_its_place() -> None:
    """A new one must be given its own."""
    assert {package_of(name_of(path)) for path in FILES} - {"__init__"} <= PLACES.keys()


def test_modules_do_not_import_in_circles() -> None:
    """Wherever the import stands, in a function too."""
    imported = {name_of(path): {i.imported for i in imports_of(path)} for path in FILES}
    del imported["latentart"]  # it imports nothing before it is asked to
    waiting = dict(imported)
    while free := [name for name, others in waiting.items() if not (others - {name}) & waiting.keys()]:
        for name in free:
            del waiting[name]

    assert sorted(waiting) == []


def test_core_and_config_never_see_each_other() -> None:
    """Only builders know both; core imports the words of the choices alone, config the one reader of JSON besides."""
    allowed = {"core": {"core", "kinds"}, "config": {"config", "errors", "kinds", "storage"}}

    wrong = [
        str(one)
        for one in ours()
        if package_of(one.imported) not in allowed.get(package_of(one.importer), {package_of(one.imported)})
    ]

    assert wrong == []


def test_the_words_of_a_choice_are_spelled_once() -> None:
    """In ``kinds``, which core, config and the command line all import."""
    spelled = {
        path: {
            frozenset(ast.literal_eval(node.slice))
            for node in nodes_of(path)
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
            if isinstance(node.slice, ast.Tuple) and all(isinstance(one, ast.Constant) for one in node.slice.elts)
        }
        for path in FILES
    }
    choices = spelled.pop(ROOT / "kinds.py")

    assert {name_of(path): again for path, found in spelled.items() if (again := found & choices)} == {}


def test_only_stories_builders_and_the_two_interfaces_import_config() -> None:
    """All other modules take plain arguments, so each is usable from a notebook."""
    readers = {
        one.importer
        for one in ours()
        if package_of(one.imported) == "config" and package_of(one.importer) not in ("api", "cli", "config")
    }

    assert readers - BUILDERS - STORIES == set()


def test_core_does_not_log() -> None:
    """It raises ValueError, or returns."""
    found = {i.importer for path in FILES for i in imports_of(path) if i.imported == "logging"}

    assert {name for name in found if package_of(name) == "core"} == set()


def test_no_module_uses_the_private_names_of_another() -> None:
    """Neither by import nor through an object."""
    found = set()
    for path in FILES:
        nodes = nodes_of(path)
        own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        private = {name for name in used if name.startswith("_") and not name.startswith("__")}
        found |= {f"{name_of(path)}: {name}" for name in private - own - NAMES_OF_OTHERS}

    assert found == set()


def test_folders_stay_small() -> None:
    """A folder with more files wants folders of its own."""
    folders = {path.parent for path in FILES}
    full = {
        str(folder.relative_to(ROOT))
        for folder in folders
        if len(list(folder.glob("[!_]*.py"))) > MAX_FILES_IN_A_FOLDER
    }

    assert full == set()


def test_core_needs_torch_einops_and_the_standard_library_only() -> None:
    """Pure mathematics in the middle."""
    allowed = set(sys.stdlib_module_names) | {"torch", "einops", "latentart"}

    roots = {
        one.imported.split(".")[0] for path in FILES for one in imports_of(path) if package_of(one.importer) == "core"
    }

    assert roots - allowed == set()


@cache
def loaded_by(module: str) -> frozenset[str]:
    """Return every module that importing ``module`` loads: its own imports and theirs, parents included."""
    by_name = {name_of(path): path for path in FILES}
    seen, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        waiting += [current.rpartition(".")[0]] if "." in current else []
        waiting += [i.imported for i in imports_of(by_name[current]) if i.is_at_top] if current in by_name else []
    return frozenset(seen)


def test_instant_modules_load_no_torch() -> None:
    """Help and worker processes start fast: neither they nor what they import at the top loads anything heavy."""
    wrong = [
        f"{module} loads {', '.join(heavy)}"
        for module in map(name_of, FILES)
        if (package_of(module) in INSTANT or module in ALSO_INSTANT) and module not in WITH_TORCH
        if (heavy := sorted(loaded_by(module) & HEAVY))
    ]

    assert wrong == []


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    """A module is named for what it holds."""
    wrong = [str(path) for path in FILES if FORBIDDEN_NAMES & {path.stem, *path.relative_to(ROOT).parts}]

    assert wrong == []


def test_files_and_functions_stay_small() -> None:
    """One can be held in the head."""
    wrong = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            wrong.append(f"{path}: {lines} lines")
        for node in nodes_of(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    wrong.append(f"{path}: {node.name} has {lines} lines")

    assert wrong == []


def test_functions_take_few_parameters() -> None:
    """What belongs together is one value; of a command in cli the parameters are its options, so many as it has."""
    many = set()
    for path in FILES:
        nodes = nodes_of(path)
        for node in [] if package_of(name_of(path)) == "cli" else nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given, stars = node.args, (node.args.vararg, node.args.kwarg)
                names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, stars))]
                if len(names) - (names[:1] in (["self"], ["cls"])) > MAX_PARAMETERS:
                    many.add(f"{name_of(path)}: {node.name}")

    assert many == set()


def test_three_modules_lead_to_the_terminal() -> None:
    """All others hand their text to these, which make it printable, and need not think of a stranger's names."""
    ways = re.compile(
        r"print|input|typer\.(s?echo|confirm|prompt)|os\.write|sys\._*(stdout|stderr)(_*|\.(buffer|write|writelines))"
        r"|warnings\.warn|(traceback|faulthandler|logging)\.(print_|dump_|enable|StreamHandler|basicConfig)\w*"
    )
    found = set()
    for path in FILES:
        nodes, place = nodes_of(path), path.relative_to(ROOT).as_posix()
        harmless = {node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr in HARMLESS}
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        harmless |= {node.args[0] for node in calls if ast.unparse(node.func) == "isinstance"}
        for node in nodes:
            is_way = isinstance(node, (ast.Name, ast.Attribute)) and ways.fullmatch(ast.unparse(node))
            found |= {place} if is_way and node not in harmless else set()
        roots = {one.imported.split(".")[0] for one in imports_of(path)}
        found |= {place} if roots & {"rich", "click", "getpass"} else set()
        from_imports = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        found |= {place} if from_imports & {"sys", "typer", "traceback", "warnings"} else set()

    assert found == {"cli/log_lines.py", "cli/options.py", "process/progress.py"}


def test_every_module_says_what_lives_there() -> None:
    """Each has a docstring, and so has every public function and class."""
    wrong = []
    for path in FILES:
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            wrong.append(str(path))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not ast.get_docstring(node):
                wrong += [f"{path}: {node.name}"] * (not node.name.startswith("_"))

    assert wrong == []
