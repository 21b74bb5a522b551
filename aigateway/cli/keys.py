"""`aigateway keys …`: makes, lists and revokes API keys.

On a running server, over HTTP. Where no server answers, or the settings' own server asks for a key that the caller has not got,
straight in the database that the settings name: so is the first key made, by who may read the configuration anyway.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json
from aigateway.cli.tables import print_table

if TYPE_CHECKING:
    from aigateway.client import Client
    from engine.store.database import Tx

# Imports inside functions: the HTTP client, pydantic and the database cost more than a command's --help may take.
# ruff: noqa: PLC0415

group = typer.Typer(
    name="keys",
    help="API keys: make, list and revoke them, with limits and budgets.",
    no_args_is_help=True,
    epilog="Example: aigateway keys create laptop",
)
_NOT_LET_IN = ("invalid_api_key", "admin_key_required")
_MOST = 200


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Look after it")


@group.command(
    epilog="Example: aigateway keys create ci --budget-usd 5 --budget-period day --model fast --model 'ollama/*'"
)
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called in lists, spending and budgets.")],
    budget_usd: Annotated[
        str | None, typer.Option(metavar="USD", help="The most that it may spend in a period.")
    ] = None,
    budget_period: Annotated[
        str | None, typer.Option(metavar="PERIOD", help="day, month (unless told) or total, by the calendar in UTC.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model that it may use; * stands for any text. Left out: all. Repeatable."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, metavar="N", help="Requests a minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, metavar="N", help="Tokens a minute.")] = None,
    max_parallel: Annotated[int | None, typer.Option(min=1, metavar="N", help="Requests at once.")] = None,
    admin: Annotated[
        bool | None, typer.Option(help="May make and revoke keys and set budgets; left out: where nothing limits it.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Makes a key. Its secret is printed once and stored nowhere."""
    asked = {
        "name": name,
        "allowed_models": model or None,
        "budget_usd": budget_usd,
        "budget_period": budget_period,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "max_parallel": max_parallel,
        "admin": admin,
    }
    made = _do(config, lambda client: client.post("/v1/keys", asked), lambda tx: _created(tx, asked))
    if as_json:
        print_json(made)
    else:
        typer.echo(f"{made['name']} ({made['id']}); this is shown once:", err=True)
        typer.echo(made["key"])


@group.command("list", epilog="Example: aigateway keys list --json")
def list_keys(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lists keys, newest first, revoked ones too."""
    answer = _do(config, lambda client: client.get("/v1/keys", {"limit": _MOST}), _listed)
    if as_json:
        print_json(answer)
        return
    print_table(
        ("id", "name", "key", "admin", "models", "budget", "created", "revoked"),
        (
            (
                key["id"],
                key["name"],
                f"{key['prefix']}…",
                "yes" if key["admin"] else "",
                ", ".join(key["allowed_models"]) if key["allowed_models"] else "all",
                _budget(key["budget"]),
                key["created_at"],
                key["revoked_at"],
            )
            for key in answer["data"]
        ),
        shorten="models",
    )


@group.command(epilog="Example: aigateway keys revoke laptop")
def revoke(
    *,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id or name.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Revokes a key: within two seconds no server takes it. Runs that it submitted go on, under its limits."""
    from aigateway.client import path

    gone = _do(config, lambda client: client.delete(path("keys", key)), lambda tx: _revoked(tx, key))
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"{gone['name']} ({gone['id']}) is revoked")


def _budget(budget: dict[str, Any] | None) -> str:
    if budget is None:
        return ""
    period = "in total" if budget["period"] == "total" else f"a {budget['period']}"
    return f"{budget['spent_usd']:.4g} of {budget['limit_usd']:g} USD {period}"


def _do(config: str | None, ask: "Callable[[Client], Any]", work: "Callable[[Tx], Any]") -> Any:
    """Over HTTP, else in the database. Raises: what either raises."""
    from aigateway.settings import server_address
    from engine.errors import AIGatewayError

    given = server_address(config).given
    try:
        with connect(config) as client:
            return ask(client)
    except AIGatewayError as error:
        away = error.code == "server_unreachable"
        if given or not (away or error.code in _NOT_LET_IN):
            raise
        return _in_database(config, work, error, must_exist=not away)


def _in_database(config: str | None, work: "Callable[[Tx], Any]", error: Exception, *, must_exist: bool) -> Any:
    """Where a server answers, its database is there: another one is not the place for its keys."""
    from aigateway.backup import sqlite_file
    from aigateway.settings import process_settings
    from engine.store.database import Database
    from engine.store.revision import bring_up_to_date

    url = process_settings(config).database_url
    file = sqlite_file(url)
    if must_exist and file is not None and not file.exists():
        raise error
    bring_up_to_date(url)
    database = Database(url, readers=0)
    try:
        done = database.write_now(work)
    finally:
        database.close()
    print(f"done in the database itself ({file or 'PostgreSQL'})", file=sys.stderr)
    return done


def _created(tx: "Tx", asked: dict[str, Any]) -> dict[str, Any]:
    from pydantic import ValidationError

    from api.findings import words_of
    from api.keys import KeyRequest, created
    from engine.api_keys import new_secret
    from engine.errors import UserError

    try:
        request = KeyRequest.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError("invalid_request", f"{'.'.join(map(str, first['loc']))}: {words_of(first)}") from None
    return created(tx, request, new_secret())


def _listed(tx: "Tx") -> dict[str, Any]:
    from api.keys import listed

    return {"object": "list", "data": listed(tx, None, _MOST), "next_cursor": None}


def _revoked(tx: "Tx", key: str) -> dict[str, Any]:
    from api.keys import key_view
    from engine.api_keys import revoke
    from engine.clock import now_us

    return key_view(tx, revoke(tx, key, now_us()))
