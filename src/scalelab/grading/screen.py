"""Read an answer before it runs, and say where it reaches for what judges it instead of doing its task.

An answer shares its process with the check that judges it: what it could reach there, it could forge. So it may import
what its task needs, and must leave alone the frames, modules and classes that checks stand on, the names that they use,
and comparison. An answer that does not is set aside for a person, who sees the line and the reason. Reading proves
nothing by itself, which is why `guard` looks again when the answer has run.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalelab.course.notebooks import text_of
from scalelab.grading.bindings import (
    Comprehension,
    assembled,
    bound,
    declared,
    flows,
    imported,
    is_dunder,
    loaded,
    origins,
    rebound,
    statements,
    targets,
    values,
)
from scalelab.grading.merge import Reference
from scalelab.grading.plain_python import PlainPython

LONGEST = 100_000
"""Characters of an answer that are read; a longer one is set aside."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HARMLESS_MODULES = _words(
    "__future__ abc array asyncio base64 bisect collections concurrent.futures contextlib copy dataclasses datetime "
    "decimal enum fractions functools hashlib heapq io itertools json math numbers operator queue random re statistics "
    "string struct textwrap threading time typing uuid zlib"
)
"""What every answer may import, beside what its set's own cells import."""

ONLY = {
    "inspect": {"isawaitable", "iscoroutine", "iscoroutinefunction", "isgenerator"},
    "os": {"cpu_count", "process_cpu_count", "sched_getaffinity"},
    "scalelab.checks": {"Page", "PageError", "Request", "Server", "hint", "interleave", "run", "solution", "together"},
    "sys": {"float_info", "getrecursionlimit", "getsizeof", "getswitchinterval", "maxsize", "version_info"},
    "types": {"MappingProxyType", "SimpleNamespace"},
}
"""Modules of which an answer may use these names and no others."""

EXCEPT = {
    "asyncio": {
        "create_subprocess_exec",
        "create_subprocess_shell",
        "set_event_loop",
        "set_event_loop_policy",
    },
    "contextlib": {"chdir", "redirect_stderr", "redirect_stdout"},
    "functools": {"singledispatch", "singledispatchmethod", "update_wrapper"},
    "io": {"FileIO", "open", "open_code"},
    "numpy": {
        "DataSource",
        "ctypeslib",
        "distutils",
        "f2py",
        "fromfile",
        "genfromtxt",
        "lib",
        "load",
        "loadtxt",
        "memmap",
        "save",
        "savetxt",
        "savez",
        "savez_compressed",
        "testing",
    },
    "string": {"Formatter"},
    "threading": {"excepthook", "setprofile", "settrace", "setprofile_all_threads", "settrace_all_threads"},
    "typing": {"ForwardRef", "get_type_hints"},
}
"""Names of allowed modules that an answer may not use: they run text, replace hooks, or open files."""

MACHINERY = _words(
    "_thread builtins code codecs ctypes dis faulthandler gc imp importlib inspect linecache marshal mmap os pickle "
    "posix pdb ptrace runpy shutil socket subprocess sys sysconfig traceback tracemalloc types"
)
"""Modules that nothing may lead to, such as `random._os`."""

FRAMES = _words(
    "ag_code ag_frame co_code cr_code cr_frame f_back f_builtins f_code f_globals f_locals f_trace gi_code gi_frame "
    "get_stack print_stack tb_frame tb_next walk_stack walk_tb with_traceback"
)
NAMES = {
    **dict.fromkeys(("exec", "eval", "compile"), "runs text as code"),
    **dict.fromkeys(("globals", "locals", "vars", "dir"), "reads the names around it"),
    **dict.fromkeys(("get_ipython", "In", "Out"), "reaches for the notebook's own interpreter"),
    "__import__": "imports by text",
    "breakpoint": "starts a debugger",
    "open": "opens files",
}
BY_TEXT = frozenset({"attrgetter", "delattr", "getattr", "hasattr", "methodcaller", "setattr"})
HISTORY = re.compile(r"_i{1,3}|_i\d+|_ih|_oh|_dh|_\d+")

DUNDERS = _words(
    "aenter aexit aiter anext await call contains delitem doc enter exit future getitem init iter len main "
    "match_args missing name new next post_init qualname repr setitem slots str version"
)
"""The only names with two underscores on both sides that an answer may write, without these underscores."""
IN_TEXT = re.compile(
    rf"__(?!(?:{'|'.join(sorted(DUNDERS))})__)[a-z]\w*?__|\b(?:{'|'.join(sorted(FRAMES))}|_getframe)\b"
)
VALUES = frozenset({"bool", "bytes", "complex", "float", "frozenset", "int", "list", "set", "str", "tuple"})
OTHERS_OBJECTS = _words(
    "all_tasks current_task current_thread get_event_loop get_event_loop_policy get_loop get_running_loop main_thread "
    "type"
)
"""What these calls return belongs to others: to set its attributes changes how they work."""
PASSES_ON = (ast.Attribute, ast.Subscript, ast.Starred, ast.NamedExpr, ast.Await)
BUILTINS = frozenset(dir(builtins))

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_as_ipython_reads = PlainPython()
_one_at_a_time = threading.Lock()  # for the filters of warnings, which are the process's


@dataclass(frozen=True)
class Finding:
    """A line of an answer, counted from 1, and what it does that no answer needs, in words that follow "line 3"."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line} {self.what}"


@dataclass(frozen=True)
class Rules:
    """What the answers to one exercise have to do with.

    `imports` are the modules, and names of modules, that the set's own cells import; `given` holds every name that the
    set-up defines, with what it was imported from ("" if it was not); `needed` are the names, given or built in, that
    set-up and checks use; `values` the variables of the exercise's checks; `programs` those whose text a check runs;
    `tasks` the names that the answer is asked for.
    """

    imports: frozenset[str]
    given: tuple[tuple[str, str], ...]
    needed: frozenset[str]
    values: frozenset[str]
    programs: frozenset[str]
    tasks: frozenset[str]


def rules(reference: Reference) -> dict[str, Rules]:
    """Return the rules for the answers to each exercise of a reference."""
    setup = [ast.parse(text_of(cell["source"])) for cell in reference.setup]
    checks = {
        question.exercise: [ast.parse(text_of(cell["source"])) for cell in (question.visible, question.hidden)]
        for question in reference.questions
    }
    solutions = {question.exercise: ast.parse(question.solution) for question in reference.questions}
    first = [node for tree in setup for node in ast.walk(tree)]
    given = dict.fromkeys((name for tree in setup for name in bound(tree.body)), "") | dict(origins(first))
    answered = [node for tree in solutions.values() for node in ast.walk(tree)]
    checked = {exercise: [node for tree in trees for node in ast.walk(tree)] for exercise, trees in checks.items()}
    needed = loaded([*first, *(node for nodes in checked.values() for node in nodes)]) & (given.keys() | BUILTINS)
    found = {}
    for exercise, trees in checks.items():
        tasks = frozenset(bound(solutions[exercise].body))
        found[exercise] = Rules(
            imports=frozenset(imported([*first, *answered])),
            given=tuple(sorted(given.items())),
            needed=frozenset(needed),
            values=frozenset(name for tree in trees for name in values(tree)) - given.keys() - tasks,
            programs=frozenset(assembled(checked[exercise])),
            tasks=tasks,
        )
    return found


def screen(source: str, allowed: Rules) -> tuple[Finding, ...]:
    """Return what an answer does that no answer needs, by line: nothing for an honest one.

    Text that is no Python yields nothing: it will not run.
    """
    if len(source) > LONGEST:
        return (Finding(1, f"begins an answer of {len(source):,} characters; {LONGEST:,} are read"),)
    try:
        # What runs is what IPython makes of the text: a call where it says %magic or !command.
        text = source.lstrip()
        before = source[: len(source) - len(text)].count("\n")  # empty lines, which IPython leaves out
        with _one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _screened(_as_ipython_reads.transform_cell(source), allowed, before + 1)
    except SyntaxError:
        return ()
    except (RecursionError, MemoryError):
        return (Finding(1, "begins an answer that is nested too deeply to be read"),)
    except ValueError as error:
        return () if "null byte" in str(error) else (Finding(1, f"cannot be read ({error})"),)


def _screened(source: str, allowed: Rules, first: int = 1) -> tuple[Finding, ...]:
    look = _Look(ast.parse(source), allowed)
    found = {Finding(line + first - 1, what) for line, what in look.findings}
    for program, line in look.programs:
        try:
            found |= set(_screened(program, allowed, line + first - 1))
        except SyntaxError:
            continue
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.what)))


class _Look(ast.NodeVisitor):
    """Goes through one answer, knowing which names are its own and which stand for something of others."""

    def __init__(self, tree: ast.Module, allowed: Rules) -> None:
        self.allowed = allowed
        self.findings: list[tuple[int, str]] = []
        self.programs: list[tuple[str, int]] = []
        self._given = dict(allowed.given)
        nodes = list(ast.walk(tree))
        self._own = rebound(tree, nodes)
        self._origins = {name: origin for name, origin in self._given.items() if origin} | dict(origins(nodes))
        self._local: list[frozenset[str]] = []
        self._aliases: set[str] = set()
        self._learn_aliases(list(flows(nodes)))
        defined = (ast.FunctionDef, ast.AsyncFunctionDef)
        self._functions = {node.name for node in nodes if isinstance(node, defined)}
        self._hands_on = [node for node in nodes if self._hands_on_a_class(node)]
        self._docs = {id(text) for text in _documentation(nodes)}
        self._top(tree, nodes)
        self.visit(tree)

    def note(self, node: ast.AST, what: str) -> None:
        self.findings.append((getattr(node, "lineno", 1), what))

    # Whose a name is.

    def _is_local(self, name: str) -> bool:
        return any(name in names for names in self._local)

    def _origin(self, node: ast.expr) -> str:
        """Return the dotted name of the module, or name in one, that an expression stands for; "" for others."""
        if isinstance(node, ast.Name) and not self._is_local(node.id) and node.id not in self._own:
            return self._origins.get(node.id, "")
        if isinstance(node, ast.Attribute) and (before := self._origin(node.value)):
            return f"{before}.{node.attr}"
        return ""

    def _is_others(self, node: ast.expr) -> bool:
        """Whether an expression stands for something that an answer did not make."""
        match node:
            case ast.Name(id=name):
                given = name in self._given or name in self._origins or name in BUILTINS
                return name in self._aliases or (given and not self._is_local(name) and name not in self._own)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments):
                return name in OTHERS_OBJECTS and (name != "type" or len(arguments) == 1)
            case ast.Tuple(elts=several) | ast.List(elts=several) | ast.Set(elts=several) | ast.Dict(values=several):
                pass
            case ast.BoolOp(values=several):
                pass
            case ast.IfExp(body=one, orelse=other):
                several = [one, other]
            case _:
                value = getattr(node, "value", None)
                several = [value] if isinstance(node, PASSES_ON) and isinstance(value, ast.expr) else []
        return any(map(self._is_others, several))

    def _learn_aliases(self, given: Sequence[tuple[list[str], ast.expr]]) -> None:
        """Find the names that stand for somebody else's things, through any number of assignments."""
        while True:
            new = {
                name for names, value in given if self._is_others(value) and not self._is_plain(value) for name in names
            }
            if new <= self._aliases:
                return
            self._aliases |= new

    def _is_plain(self, value: ast.expr) -> bool:
        """Whether a value is a number or the like of a module, such as `math.inf`: nothing of it can be set."""
        return self._origin(value).partition(".")[0] in {"math", "string"} or (
            isinstance(value, ast.Name) and value.id in BUILTINS and value.id not in VALUES | {"dict", "object", "type"}
        )

    def _hands_on_a_class(self, node: ast.AST) -> bool:
        """Whether a class of others goes where its name is lost: to an answer's own function, or into a collection."""
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in self._functions:
                return any(map(self._is_class, arguments))
            case ast.Return(value=ast.expr() as value) | ast.Yield(value=ast.expr() as value):
                return self._is_class(value)
            case ast.For(iter=ast.Tuple(elts=several) | ast.List(elts=several)):
                return any(map(self._is_class, several))
            case ast.arguments(defaults=several):
                return any(map(self._is_class, several))
        return False

    def _is_class(self, node: ast.expr) -> bool:
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        return name[:1].isupper() and self._is_others(node)

    # Names and scopes.

    def _top(self, tree: ast.Module, nodes: Sequence[ast.AST]) -> None:
        """Look at what an answer calls its own where checks would find it."""
        for node in statements(tree.body):
            same = dict(origins([node]))
            for name in bound([node], deep=False):
                self._binds(node, name, same.get(name, ""))
        for outer in nodes:
            if isinstance(outer, ast.Global):
                for name in outer.names:
                    self._binds(outer, name, "")

    def _binds(self, node: ast.AST, name: str, origin: str) -> None:
        allowed = self.allowed
        same = bool(origin) and self._given.get(name) == origin
        if name in allowed.needed - allowed.tasks and not same and not _cannot_be_called(node):
            self.note(node, f"gives `{name}` another meaning, which the checks use")
        if name in allowed.programs:
            value = node.value if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                self.programs.append((value.value, value.lineno))
            elif not (isinstance(value, ast.Constant) and value.value is None):
                self.note(node, f"makes the text of `{name}` out of parts; write it out")

    def visit_Name(self, node: ast.Name) -> None:
        name = node.id
        if is_dunder(name):
            if name.strip("_") not in DUNDERS:
                self.note(node, f"uses {name}")
        elif isinstance(node.ctx, ast.Load) and not self._is_local(name) and name not in self._own:
            if name in NAMES:
                self.note(node, f"{NAMES[name]} ({name})")
            elif name in BY_TEXT:
                self.note(node, f"hands on {name}, which reaches anything by text")
            elif HISTORY.fullmatch(name):
                self.note(node, f"reads what was run before ({name})")
            elif name in MACHINERY and name not in self._origins:
                self.note(node, f"uses the module {name}, which it has not imported")
            elif self._is_module(node):
                self.note(node, f"hands on the module {name} as a value")
        shared = isinstance(node.ctx, ast.Load) and not self._is_local(name) and (self._local or name not in self._own)
        if shared and name in self.allowed.values:
            self.note(node, f"reads `{name}`, a variable of the check")
        if isinstance(node.ctx, ast.Del) and (name in self._given or name in self._origins):
            self.note(node, f"removes `{name}`")

    def _is_module(self, node: ast.expr) -> bool:
        origin = self._origin(node)
        return bool(origin) and _is_a_module(origin)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, [node.body])

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._defines(node, node.name)
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._function(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def _function(self, node: _Function, body: Sequence[ast.AST]) -> None:
        arguments = node.args
        for outside in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
            self.visit(outside)
        everyone = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        names = {one.arg for one in everyone if one is not None}
        for one in everyone:
            if one is not None and one.annotation is not None:
                self.visit(one.annotation)
        if not isinstance(node, ast.Lambda):
            if node.returns is not None:
                self.visit(node.returns)
            names |= bound(node.body) - declared(node.body)
        self._inside(names, body)

    def _inside(self, names: Iterable[str], body: Iterable[ast.AST]) -> None:
        self._local.append(frozenset(names))
        for inner in body:
            self.visit(inner)
        self._local.pop()

    def _comprehension(self, node: Comprehension) -> None:
        names = {name for one in node.generators for name in targets(one.target)}
        self.visit(node.generators[0].iter)
        self._local.append(frozenset(names))
        self.generic_visit(node)
        self._local.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for keyword in node.keywords:
            self.note(node, f"makes a class with {keyword.arg or '**'}, which changes how classes work")
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in VALUES and not self._is_local(base.id):
                self.note(node, f"makes a kind of {base.id} of its own, which can tell each caller something else")
        self.generic_visit(node)

    def _defines(self, node: ast.AST, name: str) -> None:
        if is_dunder(name) and name.strip("_") not in DUNDERS:
            self.note(node, f"defines {name}, which changes what its values say of themselves")

    # Attributes.

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attribute(node, node.value, node.attr)
        if not isinstance(node.ctx, ast.Load):
            self._sets(node, node.value, node.attr)
        origin = self._origin(node)
        if origin and isinstance(node.ctx, ast.Load):
            self._of_module(node, origin)
        if isinstance(node.value, ast.Name) and self._is_module(node.value):
            self._name_of_module(node.value)
        elif isinstance(node.value, ast.Attribute) and self._is_module(node.value):
            self.visit_Attribute(node.value)
        else:
            self.visit(node.value)

    def _name_of_module(self, node: ast.Name) -> None:
        if node.id in NAMES or is_dunder(node.id):
            self.note(node, f"uses {node.id}")

    def _attribute(self, node: ast.AST, value: ast.expr | None, name: str) -> None:
        bare = name.lstrip("_")
        others = value is None or self._is_others(value)
        if is_dunder(name):
            if name.strip("_") not in DUNDERS:
                self.note(node, f"reaches for {name}")
        elif name in FRAMES or name == "_getframe":
            self.note(node, f"reads frames or code ({name})")
        elif bare in MACHINERY and (others or (name.startswith("_") and not _is_self(value))):
            self.note(node, f"reaches for the module {bare}")
        elif name.startswith("_") and others:
            self.note(node, f"reaches for {name}, which is no part of what others offer")

    def _of_module(self, node: ast.AST, origin: str) -> None:
        """Look at the use of a name of a module."""
        module, _, name = origin.rpartition(".")
        if module in ONLY and name not in ONLY[module]:
            self.note(node, f"uses {origin}")
        top = module.partition(".")[0]
        if name in EXCEPT.get(module, ()) or name in EXCEPT.get(top, ()):
            self.note(node, f"uses {origin}")
        if top == "scalelab" and module not in ONLY and origin not in self.allowed.imports:
            self.note(node, f"uses {origin}, which the set does not give")

    def _sets(self, node: ast.AST, value: ast.expr, name: str) -> None:
        if is_dunder(name):
            return  # told already
        if self._is_others(value):
            self.note(node, f"changes {name} of something that is not its own")
        elif self._hands_on and not _is_self(value):
            self.note(self._hands_on[0], f"hands on a class, and line {getattr(node, 'lineno', 1)} sets {name}")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load) and self._is_others(node.value) and not self._is_collected(node.value):
            self.note(node, "changes what is in something that is not its own")
        self.generic_visit(node)

    def _is_collected(self, value: ast.expr) -> bool:
        """Whether a name is a collection of the answer's own, in which somebody else's things may stand."""
        return isinstance(value, ast.Name) and value.id in self._aliases and value.id not in self._given

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        origin = self._origin(node.func)
        if origin in {"operator.attrgetter", "operator.methodcaller"}:
            self._by_text(node, origin.removeprefix("operator."))
        elif name in BY_TEXT and isinstance(node.func, ast.Name):
            self._by_text(node, name)
        elif name == "type" and isinstance(node.func, ast.Name) and len(node.args) != 1:
            self.note(node, "makes a class by calling type")
        elif name in {"format", "format_map"} and isinstance(node.func, ast.Attribute):
            base = node.func.value
            if name == "format_map" or not isinstance(base, (ast.Constant, ast.JoinedStr, ast.Name)):
                self.note(node, f"fills in a text that is not written out ({name})")
        elif name == "wraps" and node.keywords:
            self.note(node, "chooses what functools.wraps copies")
        if isinstance(node.func, ast.Name) and name in BY_TEXT:
            for inner in (*node.args, *node.keywords):
                self.visit(inner)
        else:
            self.generic_visit(node)

    def _by_text(self, node: ast.Call, name: str) -> None:
        """Look at `getattr` and its like as at the attribute that they reach for."""
        owned = name in {"getattr", "hasattr", "setattr", "delattr"}
        texts = node.args[1:2] if owned else node.args if name == "attrgetter" else node.args[:1]
        if not texts or any(not (isinstance(text, ast.Constant) and isinstance(text.value, str)) for text in texts):
            self.note(node, f"reaches for what it has not written out ({name})")
            return
        owner = node.args[0] if owned else None
        for text in texts:
            assert isinstance(text, ast.Constant)
            for part in str(text.value).split("."):
                self._attribute(node, owner, part)
                if owner is not None:
                    origin = self._origin(owner)
                    if origin:
                        self._of_module(node, f"{origin}.{part}")
                    if name in {"setattr", "delattr"}:
                        self._sets(node, owner, part)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._attribute(node, None, name)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and id(node) not in self._docs:
            found = IN_TEXT.search(node.value)
            if found:
                self.note(node, f"names {found.group()} in a text")

    # Imports.

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imports(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            self.note(node, "imports from a package that it is not in")
            return
        if not self._imports(node, module, node.names):
            return
        if node.names[0].name == "*" and (module in ONLY or module in EXCEPT):
            self.note(node, f"imports everything that {module} has")
        for alias in node.names:
            self._attribute(node, None, alias.name)
            self._of_module(node, f"{module}.{alias.name}")

    def _imports(self, node: ast.AST, module: str, names: Sequence[ast.alias] = ()) -> bool:
        """Look at the import of a module; return whether it may be imported."""
        allowed = self.allowed.imports | HARMLESS_MODULES
        parts = module.split(".")
        within = [".".join(parts[: size + 1]) for size in range(len(parts))]
        if module in ONLY:
            return True
        known = module in allowed if parts[0] == "scalelab" else any(name in allowed for name in within)
        if not known and names and parts[0] in {"scalelab", "concurrent"}:
            known = all(f"{module}.{alias.name}" in allowed for alias in names)
        inner = parts[1:] if parts[0] not in MACHINERY else parts
        hidden = [part for part in inner if part.startswith("_") or part in MACHINERY]
        refused = [part for part in inner if part in EXCEPT.get(parts[0], ())]
        if not known or hidden or refused:
            self.note(node, f"imports {module}, which no answer of this set needs")
            return False
        return True


def _is_self(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Name) and value.id in {"self", "cls"}


def _documentation(nodes: Iterable[ast.AST]) -> Iterator[ast.Constant]:
    """Yield the texts that stand for themselves."""
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _cannot_be_called(node: ast.AST) -> bool:
    """Whether a binding is of a number, a text or a list: a check that uses the name fails, and cannot be fooled."""
    value = getattr(node, "value", None)
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(
        value, (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.BinOp)
    )


@functools.lru_cache(maxsize=4096)
def _is_a_module(origin: str) -> bool:
    """Whether a dotted name is a module's; found by its file, so that nothing is imported."""
    top, *parts = origin.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or not parts:
        return spec is not None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *parts)
        if place.is_dir() or place.with_name(f"{place.name}.py").is_file():
            return True
    return False
