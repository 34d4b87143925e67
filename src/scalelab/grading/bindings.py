"""What a piece of Python binds, uses and imports, read from its syntax tree."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Iterator, Mapping

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def is_dunder(name: str) -> bool:
    """Whether a name has two underscores on both sides."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def within(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes that run in the same scope: what is inside functions, classes and comprehensions is left out."""
    rest = list(nodes)
    while rest:
        node = rest.pop()
        yield node
        if isinstance(node, ast.Lambda):
            rest += node.args.defaults
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            rest += [*node.decorator_list, *node.args.defaults]
        elif isinstance(node, ast.ClassDef):
            rest += [*node.decorator_list, *node.bases]
        elif isinstance(node, Comprehension):
            rest += [inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        else:
            rest += ast.iter_child_nodes(node)


def statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes in this scope that bind names, each by itself."""
    return (node for node in within(body) if bound([node], deep=False))


def bound(nodes: Iterable[ast.AST], *, deep: bool = True) -> set[str]:
    """Return the names that nodes bind in their scope: they and what is in them, or, not `deep`, they alone."""
    found: set[str] = set()
    for node in within(nodes) if deep else nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if deep:
                found.add(name)
            case ast.Assign(targets=several) if not deep:
                found |= {name for target in several for name in targets(target)}
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target) | ast.NamedExpr(target=target):
                found |= set(targets(target))
            case ast.For(target=target) | ast.AsyncFor(target=target):
                found |= set(targets(target))
            case ast.withitem(optional_vars=ast.expr() as target):
                found |= set(targets(target))
            case ast.Delete(targets=several):
                found |= {name for target in several for name in targets(target)}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name.partition(".")[0] for alias in names if alias.name != "*"}
            case ast.ExceptHandler(name=str() as name):
                found.add(name)
            case ast.MatchAs(name=str() as name) | ast.MatchStar(name=str() as name):
                found.add(name)
            case ast.MatchMapping(rest=str() as name):
                found.add(name)
    return found


def declared(body: Iterable[ast.AST]) -> set[str]:
    """Return the names that a function's body declares global."""
    return {name for node in within(body) if isinstance(node, ast.Global) for name in node.names}


def targets(target: ast.AST) -> Iterator[str]:
    """Yield the names that an assignment's target binds."""
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for inner in target.elts:
            yield from targets(inner)
    elif isinstance(target, ast.Starred):
        yield from targets(target.value)


def flows(nodes: Iterable[ast.AST]) -> Iterator[tuple[list[str], ast.expr]]:
    """Yield names and the value, or the values' collection, that they are bound to."""
    for node in nodes:
        match node:
            case ast.Assign(targets=several, value=value):
                yield [name for target in several for name in targets(target)], value
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield list(targets(target)), value
            case ast.NamedExpr(target=target, value=value):
                yield list(targets(target)), value
            case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
                yield list(targets(target)), value
            case ast.comprehension(target=target, iter=value):
                yield list(targets(target)), value
            case ast.Match(subject=value, cases=cases):
                names = [
                    inner.name
                    for case in cases
                    for inner in ast.walk(case.pattern)
                    if isinstance(inner, (ast.MatchAs, ast.MatchStar)) and inner.name
                ]
                yield names, value
            case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments) | ast.Lambda(args=arguments):
                positional = [*arguments.posonlyargs, *arguments.args]
                pairs = [
                    *zip(reversed(positional), reversed(arguments.defaults), strict=False),
                    *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
                ]
                yield from (([argument.arg], value) for argument, value in pairs if value is not None)


def rebound(tree: ast.Module, nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that the answer itself gives a meaning before it uses them, whatever they meant before."""
    last: dict[str, int] = {}  # the line up to which a name may still mean what it meant before
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            last.setdefault(statement.name, max(statement.lineno, statement.body[0].lineno - 1))
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for name in bound([statement], deep=False):
                last.setdefault(name, statement.end_lineno or statement.lineno)
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.lineno <= last.get(node.id, 0):
            del last[node.id]
    return set(last)


def origins(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield each name that imports bind, and what it stands for."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, whole
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the modules that are imported, and the dotted names of what is taken from them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] != "scalelab":
                yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that are read."""
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def values(tree: ast.Module) -> set[str]:
    """Return the names that a check gives to values: its imports, functions and classes are left out."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    others = {name for node in within(tree.body) if isinstance(node, defined) for name in bound([node], deep=False)}
    return bound(tree.body) - others


def assembled(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the variables whose text a check runs, with `checks.assemble`."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="assemble"), args=[ast.Name(id=name), *_]):
                yield name


def independent(sources: Mapping[str, str]) -> set[str]:
    """Return the programs (sources by name, in the order in which they run) that use no name which one before binds.

    What is no Python by itself depends on everything.
    """
    free: set[str] = set()
    before: set[str] = set()
    for name, source in sources.items():
        try:
            tree = ast.parse(source)
            table = symtable.symtable(source, name, "exec")
        except (SyntaxError, ValueError, RecursionError):
            if not before:
                free.add(name)
            return free
        own = bound(tree.body)
        used = {symbol for scope in _scopes(table) for symbol in _global(scope)}
        if not used & (before - own):
            free.add(name)
        before |= own | {one for node in ast.walk(tree) if isinstance(node, ast.Global) for one in node.names}
    return free


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for inner in table.get_children():
        yield from _scopes(inner)


def _global(scope: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that a scope reads from the module's."""
    for symbol in scope.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or scope.get_type() == "module"):
            yield symbol.get_name()
