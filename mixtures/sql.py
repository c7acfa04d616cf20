"""SQL in recipes and policies: an expression over named columns, never a program.

DuckDB's own parser reads the text; the tree that it gives may hold only the node kinds, functions and types listed
here, and what runs is printed anew from that tree, with every name bound to a column of the one table there is. So a
subquery, a table function, a second statement or a function that grows memory never reaches the engine (`repeat('x',
1e9)` took 1 GB past a memory limit of 200 MB). The connection is closed to files and network all the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from mixtures.names import Names
from mixtures.wording import shorten
from storage.errors import ResourceError, SqlError

MAX_CHARACTERS = 4000

FUNCTIONS = frozenset(
    "+ - * / // % ** ^ || ~~ !~~ ~~* !~~* ~~~ @ "
    "abs ceil ceiling floor round trunc sqrt exp ln log log2 log10 pow power sign mod least greatest isnan isinf "
    "isfinite if ifnull nullif length strlen lower upper trim ltrim rtrim contains starts_with ends_with prefix suffix "
    "substring substr left right split_part position instr strpos concat like_escape not_like_escape ilike_escape "
    "not_ilike_escape regexp_matches regexp_full_match regexp_extract list_value list_contains date_part date_trunc "
    "year month day hour to_days to_months to_years".split()
)
"""Deterministic, without side effect, and with results no longer than their arguments."""

OPERATORS = frozenset(
    "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE COMPARE_IN COMPARE_NOT_IN".split()
)
TYPES = frozenset(
    "BOOLEAN BOOL TINYINT SMALLINT INTEGER INT BIGINT HUGEINT FLOAT REAL DOUBLE DECIMAL NUMERIC VARCHAR TEXT STRING "
    "DATE TIMESTAMP".split()
)
_PLAIN = frozenset("CONSTANT CONJUNCTION COMPARISON BETWEEN CASE".split())
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "LAMBDA": "a lambda",
    "PARAMETER": "a parameter",
    "DEFAULT": "`default`",
    "COLLATE": "a collation",
}
_STATEMENT_KEYS = {"type", "cte_map", "select_list", "from_table", "aggregate_handling"}
_FUNCTION_KEYS = {
    "class", "type", "query_location", "query_location_length", "function_name", "order_bys", "distinct", "is_operator",
    "export_state", "arguments", "qualified_name",
}  # fmt: skip

CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "memory_limit": "2GB",
    "enable_external_access": False,
    "temp_directory": "",
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "lock_configuration": True,
}
"""Without files, network, extensions, spilling and Python's variables; `SET` is locked."""

Tree = Any
"""DuckDB's JSON form of a parsed expression."""


@dataclass(frozen=True)
class Expression:
    """A checked expression: `names` are the columns it reads, in order of first mention; `at` is its file and line."""

    text: str
    at: str | None
    names: tuple[str, ...]
    tree: Tree = field(repr=False, compare=False)

    def bind(self, names: Names) -> str:
        """The SQL to run, with each name bound to its column. Raises SqlError when a name does not exist."""
        return f"({_print(self._bound(names))})"

    def columns(self, names: Names) -> dict[str, str]:
        """The measured names that it reads, those behind a defined name too, and the column of each."""
        found: dict[str, str] = {}
        for name in self.names:
            inner = names.defined.get(name)
            read = parse_expression(inner.text).columns(names) if inner else {name: ".".join(names.columns[name])}
            found |= read
        return found

    def _bound(self, names: Names) -> Tree:
        for name in self.names:
            names.require(name, text=self.text, at=self.at)
        tree = copy.deepcopy(self.tree)
        for node in list(_nodes(tree)):
            if node.get("class") == "COLUMN_REF":
                _bind_name(node, names)
        return tree


def _bind_name(node: dict[str, Any], names: Names) -> None:
    """Point a name at its column, or put in its place the expression that it stands for, over measured names."""
    name = ".".join(node["column_names"])
    if name in names.columns:
        node["column_names"] = list(names.columns[name])
        return
    definition = names.defined[name]
    expression = parse_expression(definition.text, at=definition.at)
    meant = expression._bound(Names(names.columns))
    node.clear()
    node.update(meant)


def parse_expression(text: str, *, at: str | None = None) -> Expression:
    """Check that `text` is one SQL expression of what is allowed here. Raises SqlError that says what is not."""
    if not text.strip():
        raise SqlError("the SQL expression is empty", at=at, hint="leave the key out, or write a condition")
    if len(text) > MAX_CHARACTERS:
        raise SqlError(f"the SQL expression has {len(text):,} characters; {MAX_CHARACTERS:,} are allowed", at=at)
    statement = _parse(text, at)
    if set(statement) - _STATEMENT_KEYS or statement["cte_map"] or statement["from_table"]["type"] != "EMPTY":
        raise _refuse(text, "a whole query", at)
    if len(statement["select_list"]) != 1:
        raise _refuse(text, f"{len(statement['select_list'])} expressions", at)
    tree = statement["select_list"][0]
    names: dict[str, None] = {}
    for node in _nodes(tree):
        if fault := _fault(node):
            raise _refuse(text, fault, at)
        if node.get("class") == "COLUMN_REF":
            names[".".join(node["column_names"])] = None
    return Expression(text, at, tuple(names), tree)


def _parse(text: str, at: str | None) -> Any:
    try:
        answer = json.loads(
            _call("json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true)", f"SELECT ({text}\n)")
        )
    except (duckdb.Error, RecursionError) as error:
        raise _refuse(text, "what DuckDB cannot parse (nested too deeply?)", at) from error
    if answer["error"]:
        raise SqlError(f"not an SQL expression: {answer['error_message']}", at=at, hint=f"it reads: {shorten(text)}")
    if len(answer["statements"]) != 1 or answer["statements"][0]["node"]["type"] != "SELECT_NODE":
        raise _refuse(text, "more than one statement", at)
    return answer["statements"][0]["node"]


def _print(tree: Tree) -> str:
    statement = {
        "type": "SELECT_NODE",
        "cte_map": {},
        "select_list": [tree],
        "from_table": {"type": "EMPTY"},
        "aggregate_handling": "STANDARD_HANDLING",
    }
    printed = _call("json_deserialize_sql(?::JSON)", json.dumps({"error": False, "statements": [{"node": statement}]}))
    return printed.removeprefix("SELECT ")


def _call(function: str, argument: str) -> str:
    return str(database().cursor().execute(f"SELECT {function}", [argument]).fetchall()[0][0])


@cache
def database() -> duckdb.DuckDBPyConnection:
    """This process's one database: empty, closed, and shared because opening one takes 30 ms and a cursor 0.1."""
    return duckdb.connect(config=CLOSED)


def _nodes(tree: Tree) -> Iterator[dict[str, Any]]:
    """Every expression and type of a tree, parents first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "class" in node:
                yield node
            waiting.extend(reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend(reversed(node))


def _fault(node: Mapping[str, Any]) -> str | None:
    """What is not allowed about a node of the tree, or None."""
    kind = node["class"]
    if kind in _PLAIN or kind == "COLUMN_REF" or kind == "CAST":
        return "`try_cast`" if node.get("try_cast") else None
    if kind == "OPERATOR":
        return None if node["type"] in OPERATORS else f"the operator {node['type'].removeprefix('OPERATOR_').lower()}"
    if kind == "TYPE":
        path = node["qualified_name"]["path"]
        return None if len(path) == 1 and path[0].upper() in TYPES else f"the type {'.'.join(path)}"
    if kind == "FUNCTION":
        path = node["qualified_name"]["path"]
        plain = len(path) == 1 and path[0].lower() in FUNCTIONS
        usual = set(node) <= _FUNCTION_KEYS and not node["distinct"] and set(node["order_bys"]) == {"type"}
        return None if plain and usual else f"the function `{'.'.join(path)}`"
    return _REFUSED.get(kind, f"{kind.lower()}")


def _refuse(text: str, fault: str, at: str | None) -> SqlError:
    allowed = ", ".join(sorted(name for name in FUNCTIONS if name.isidentifier()))
    if fault.startswith("the function"):
        hint = f"functions here: {allowed}"
    else:
        hint = "write one condition, such as: language.label = 'en' AND rules.num_words >= 100"
    return SqlError(
        f"{fault} is not allowed in `{shorten(text)}`: it must be one expression over columns", at=at, hint=hint
    )


class Engine:
    """A DuckDB connection that sees the given Arrow tables and nothing else; one thread, so that results repeat."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def query(self, sql: str) -> pa.Table:
        """Run our own SQL around bound expressions. Raises duckdb.Error."""
        return self._connection.sql(sql).to_arrow_table()

    def type_of(self, sql: str, table: str) -> str:
        """DuckDB's name for the type of a bound expression. Raises duckdb.Error when it does not fit the columns."""
        return str(self._connection.execute(f"DESCRIBE SELECT {sql} AS value FROM {table}").fetchall()[0][1])


@contextmanager
def open_engine(**tables: pa.Table) -> Iterator[Engine]:
    """An Engine over `tables`, by name. Raises ResourceError when a query needs more memory than it may have."""
    connection = database().cursor()
    try:
        for name, table in tables.items():
            connection.register(name, table)
        yield Engine(connection)
    except duckdb.OutOfMemoryException as error:
        raise ResourceError(
            f"a query needs more than the {CLOSED['memory_limit']} of memory that it may have: {reason(error)}",
            hint="make the documents' parts smaller",
        ) from error
    finally:
        connection.close()


def reason(error: duckdb.Error) -> str:
    """DuckDB's message in one line, without its picture of the query."""
    return shorten(str(error).partition("\n\n")[0], 300)
