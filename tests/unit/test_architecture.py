"""The floors of the house (design.md), read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import drbd_offsite

PACKAGE = Path(drbd_offsite.__file__).parent
MODULES = {
    ".".join(["drbd_offsite", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

FLOORS = (
    ("model", "observed", "remembered", "errors"),
    ("tools", "config", "contradictions", "protocol", "messages", "wire", "invitation"),
    ("plan", "render"),
    (
        "host",
        "execute",
        "run",
        "files",
        "durable",
        "peer",
        "journal",
        "keys",
        "alert",
        "hooks",
        "namespace",
        "exposition",
        "doorbell",
        "notify",
    ),
    ("reconcile", "operations"),
    ("cli", "watch", "handler", "peer_service"),
)
ROOM_TO_FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

ONLY_IN = {
    "subprocess": {"run"},
    "jinja2": {"render"},
    "configobj": {"config"},
    "validate": {"config"},
    "pyudev": {"watch"},
    "prometheus_client": {"exposition"},
}

HEAVY = {"jinja2", "configobj", "validate", "pyudev", "debian", "argparse", "prometheus_client"}
"""Nothing that the kernel should wait for, not even while a handler takes a snapshot."""

LIGHT = {
    "os", "os.path", "posixpath", "genericpath", "stat", "_stat", "abc", "_abc", "_collections_abc", "time", "errno",
    "__future__", "drbd_offsite", "drbd_offsite.doorbell",
    "drbd_offsite.durable", "drbd_offsite.handler",
}  # fmt: skip
"""All that a handler may load when it starts; most of it every interpreter has loaded or compiled in."""

IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
IMPURE_METHODS = {
    "now", "utcnow", "today", "getenv", "environ", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir",
    "exists", "is_file", "is_dir", "stat", "iterdir", "glob", "home", "cwd", "resolve", "touch", "chmod", "rename",
}  # fmt: skip
IMPURE_MODULES = {
    "os", "sys", "time", "socket", "subprocess", "shutil", "tempfile", "fcntl", "random", "secrets", "select",
    "signal", "threading", "glob", "io", "logging",
}  # fmt: skip


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    return frozenset(_imports(module))


def _imports(module: str, nodes: Iterable[ast.AST] | None = None) -> Iterator[str]:
    """Full names of what a module imports, also inside functions; of ours the module, not the name in it."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in MODULES else base


def ours(module: str) -> set[str]:
    """With the packages around what is imported: Python runs those too."""
    found = {name for name in imports(module) if name in MODULES}
    return found | {parent for name in found for parent in parents(name)}


def parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def reached(module: str) -> set[str]:
    """A module and all of ours that it loads, now or when it calls a function."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += ours(name)
    return found


def floor(module: str) -> int | None:
    """None for the package itself, which is empty."""
    rooms = module.split(".")[1:]
    return ROOM_TO_FLOOR[rooms[0]] if rooms else None


def test_every_module_has_a_floor() -> None:
    strangers = {name for name in MODULES if name.count(".") and name.split(".")[1] not in ROOM_TO_FLOOR}
    assert not strangers


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards_only(module: str) -> None:
    here = floor(module)
    upwards = {
        name for name in ours(module) if (there := floor(name)) is not None and here is not None and there > here
    }
    assert not upwards
    assert here is not None or not ours(module), "the package itself imports nothing"


def test_no_module_imports_itself_in_a_circle() -> None:
    circular = {name for name in MODULES for other in imports(name) & MODULES.keys() - {name} if name in _below(other)}
    assert not circular


@cache
def _below(module: str) -> set[str]:
    found, waiting = set(), [module]
    while waiting:
        for name in imports(waiting.pop()) & MODULES.keys():
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_has_one_user(library: str) -> None:
    users = {name.split(".")[1] for name in MODULES for other in imports(name) if other.split(".")[0] == library}
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("module", [name for name in MODULES if floor(name) in (0, 1, 2)])
def test_words_and_mind_see_no_clock_no_environment_and_no_file(module: str) -> None:
    found = {other for other in imports(module) if other.split(".")[0] in IMPURE_MODULES}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.add(node.func.id)
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_METHODS:
            found.add(node.attr)
        elif isinstance(node, ast.Attribute) and node.attr == "read_text" and module != "drbd_offsite.config":
            found.add(node.attr)  # config reads the file that it is handed, and its own configspec
    assert not found


def test_the_handler_loads_nothing_heavy_whatever_it_does() -> None:
    loaded = {other.split(".")[0] for name in reached("drbd_offsite.handler") for other in imports(name)}
    assert "subprocess" in loaded, "it takes snapshots"
    assert not loaded & HEAVY


def test_the_handler_loads_next_to_nothing_when_it_is_started() -> None:
    code = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {str(PACKAGE.parent)!r}); "
        "import drbd_offsite.handler; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    assert "drbd_offsite.handler" in done.stdout.split()
    assert set(done.stdout.split()) <= LIGHT


def test_the_handler_s_first_lines_load_what_is_light_too() -> None:
    assert set(_imports("drbd_offsite.handler", tree("drbd_offsite.handler").body)) <= LIGHT


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES)
def test_no_shell_and_no_swallowed_error(module: str) -> None:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.keyword):
            assert node.arg != "shell", f"line {node.value.lineno}"
        elif isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            passes = all(isinstance(statement, ast.Pass) for statement in node.body)
            broad = ast.unparse(node.type) in ("Exception", "BaseException")
            assert not (passes and broad), f"line {node.lineno}"


def test_only_a_person_s_verb_prints_or_exits() -> None:
    faces = {name for name in MODULES if floor(name) == len(FLOORS) - 1}
    for module in MODULES.keys() - faces:
        calls = {ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}
        assert not calls & {"print", "sys.exit", "exit", "os._exit", "sys.stdout.write"}, module
