"""Which cells show something that a learner's own lines decide: their outputs are not kept in the learner's copy.

Read from the code alone, statement by statement. A name that a learner's line binds depends on it; a statement that
reads such a name does as well, and so does every name that it binds or puts something into. A method that changes its
object is taken for one only where its value is thrown away (`rows.append(x)`), and an imported module never changes.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Sequence

from notebooks.markers import marked_lines


def depending(sources: Sequence[str]) -> set[int]:
    """The places, from 0, of the cells whose output a learner's lines decide. `sources`: every code cell in order."""
    found: set[int] = set()
    names: set[str] = set()
    imported: set[str] = set()
    for place, source in enumerate(sources):
        marked = marked_lines(source)
        for statement in ast.parse(source).body:
            imported |= _imported(statement)
            own = set(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)) & marked
            if own or _read(statement) & names:
                found.add(place)
                names |= _bound(statement) | (_changed(statement) - imported)
            else:
                names -= _bound(statement)
    return found


def _imported(statement: ast.stmt) -> set[str]:
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}


def _read(statement: ast.stmt) -> set[str]:
    """Names of the notebook that a statement reads, also in its functions and comprehensions, whose own names are not
    among them; nor are those that it binds before it reads them."""
    first = [node.target for node in ast.walk(statement) if isinstance(node, ast.For)]
    own = {node.id for target in first for node in ast.walk(target) if isinstance(node, ast.Name)}
    found = {
        symbol.get_name()
        for place, table in enumerate(_tables(statement))
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (place == 0 or symbol.is_global())
    }
    return found - own


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a value in the notebook."""
    symbols = _tables(statement)[0].get_symbols()
    return {one.get_name() for one in symbols if one.is_assigned() or one.is_imported() or one.is_namespace()}


def _tables(statement: ast.stmt) -> list[symtable.SymbolTable]:
    """The names of the statement itself, then those of everything in it that has names of its own."""
    tables = [symtable.symtable(ast.unparse(statement), "cell", "exec")]
    for table in tables:
        tables += table.get_children()
    return tables


def _changed(statement: ast.stmt) -> set[str]:
    """Names whose objects a statement puts something into."""
    changed = {
        _root(node)
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    calls = [node.value for node in ast.walk(statement) if isinstance(node, ast.Expr)]
    changed |= {
        _root(call.func) for call in calls if isinstance(call, ast.Call) and not isinstance(call.func, ast.Name)
    }
    return {name for name in changed if name}


def _root(node: ast.expr) -> str | None:
    """The name that `a.b[c].d` begins with; None where it begins with a call."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
