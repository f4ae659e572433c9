"""`dpfc schema`: write down what is public about a table's columns, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc._support.words import counted, shown
from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.options import Force, Json

if TYPE_CHECKING:
    from dpfc.features import TableSchema
    from dpfc.features.importing.rows import Rows

__all__ = ["schema_app", "told_source"]

schema_app = typer.Typer(rich_markup_mode=None)


def _role(what: str) -> Any:
    return typer.Option(metavar="NAME", help=f"Column {what}.")


@schema_app.callback(invoke_without_command=True)
def _schema(
    context: typer.Context,
    from_public: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table that is PUBLIC, such as an open data set of the same form: bounds and "
            "values are read off its rows, and are published with the model. Never give it "
            "private rows.",
        ),
    ] = None,
    from_dictionary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A data dictionary: a table with a line a column and the columns name, type, "
            "min, max, values (a|b|c), missing, unit, role.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Schema to write, .yaml.")
    ] = None,
    label_column: Annotated[str | None, _role("with the classes")] = None,
    group_column: Annotated[
        str | None, _role("that says whose rows they are; a public sample may lack it")
    ] = None,
    id_column: Annotated[str | None, _role("with a name for each row")] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column to leave out; may be repeated."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a table's schema: what is public about its columns, from which features are made.

    Read it and correct it by hand. It says where it came from, and so does what is made with it.

    Examples: dpfc schema --from-dictionary dictionary.csv --label-column outcome --out schema.yaml

    dpfc schema --from-public open-data.csv --label-column outcome --out schema.yaml
    """
    if context.invoked_subcommand is not None:
        if from_public or from_dictionary or out:
            raise ValueError("options that write a schema do not go with a command behind them.")
        return
    if from_public is None and from_dictionary is None:
        print(context.get_help())
        return
    if from_public is not None and from_dictionary is not None:
        raise ValueError("name one of from_public and from_dictionary.")
    if out is None:
        raise ValueError("name the file to write with --out.")
    from dpfc.features.tables.dictionary import schema_from_dictionary
    from dpfc.features.tables.public_sample import schema_from_public_sample

    check_writable(
        out, reads=(from_public, from_dictionary), force=force, suffixes=(".yaml", ".yml")
    )
    roles: dict[str, Any] = {
        "label_column": label_column,
        "group_column": group_column,
        "id_column": id_column,
        "ignore": ignore or (),
    }
    if from_public is not None:
        schema = schema_from_public_sample(from_public, **roles)
    else:
        schema = schema_from_dictionary(str(from_dictionary), **roles)
    schema.save(out)
    _print(schema, "schema", out, json=json)
    if from_public is not None and not json:
        print(
            f"\nIt holds bounds and values of {from_public}, and goes into every model: that file "
            "must be public. Read it before you use it."
        )


@schema_app.command()
def check(
    schema: Annotated[Path, typer.Argument(metavar="FILE", help="Schema, .yaml.")],
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table whose every value is compared with it; the answer is for the data's "
            "owner.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Read a schema, and say what its columns become.

    With --table, the first value that does not fit is named by row and column, never quoted.

    Example: dpfc schema check schema.yaml --table patients.csv
    """
    from dpfc.features.importing.table import TableFile
    from dpfc.features.tables.schema import read_schema

    known = read_schema(schema)
    if table is not None:
        for rows in TableFile(table, known).rows():
            _check_roles(rows, known)
    _print(known, "schema check", schema, json=json)
    if table is not None and not json:
        print(f"\nEvery value of {table} fits.")


def _check_roles(rows: Rows, schema: TableSchema) -> None:
    """Refuse a row without its group or label, or of a class that is not listed."""
    for row, group in enumerate(rows.groups or ()):
        if group is None:
            raise ValueError(f"{rows.place(row)} has no group.")
    classes = schema.class_names
    for row, label in enumerate(rows.labels or ()):
        if label is None:
            raise ValueError(f"{rows.place(row)} has no label.")
        if classes is not None and label not in classes:
            raise ValueError(f"{rows.place(row)} has a label outside the schema's classes.")


def _print(schema: TableSchema, command: str, path: Path, *, json: bool) -> None:
    from dpfc.features.tables.blocks import blocks_of

    widths = {name: len(block.names) for name, block in blocks_of(schema).items()}
    if json:
        print_json(
            {
                "command": command,
                "path": str(path),
                "source": schema.source,
                "sha256": schema.sha256,
                "n_features": sum(widths.values()),
                "columns": {
                    name: {**column, "n_features": widths.get(name, 0)}
                    for name, column in schema.to_dict()["columns"].items()
                },
            }
        )
        return
    longest = max(len(shown(name)) for name in schema.columns)
    for name, column in schema.to_dict()["columns"].items():
        what = _role_of(column) or f"{column['type']}, {counted(widths[name], 'feature')}"
        print(f"{shown(name):<{longest}}  {what}{_bounds(column)}")
    print(
        f"\n{counted(sum(widths.values()), 'feature')} from {path} ({told_source(schema.source)})"
    )


def _role_of(column: dict[str, Any]) -> str | None:
    role: str | None = column.get("role")
    # Classes that are read from private labels are covered by no noise.
    if role == "label" and not column["values"]:
        return "label: list its public classes as values"
    return role


def _bounds(column: dict[str, Any]) -> str:
    """What people look at first."""
    said = ""
    if "min" in column:
        unit = f" {column['unit']}" if column["unit"] else ""
        low, high = (b if isinstance(b, str) else f"{b:g}" for b in (column["min"], column["max"]))
        said = f": {low} to {high}{unit}"
    if column.get("values"):
        values = column["values"]
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        said = f": {', '.join(map(shown, values[:5]))}{more}"
    missing = column.get("missing", "refuse")
    return said if missing == "refuse" else f"{said}; missing: {shown(str(missing))}"


def told_source(source: str) -> str:
    """Where a schema comes from, for a line of output; without the digest, which its file has."""
    return shown(source.partition(", SHA-256 ")[0])
