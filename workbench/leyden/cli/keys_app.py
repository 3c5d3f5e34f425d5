"""The commands of `leyden keys` and their options."""

from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from leyden.cli.shell import STACK_DIR, DataDir, clear_errors, console, say
from leyden.stack.program import as_typed

keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the gateway's API keys.")
GatewayUrl = Annotated[str | None, typer.Option("--gateway", help="Its address; default: LEYDEN_GATEWAY_URL.")]
ApiKey = Annotated[str | None, typer.Option(help="A key of scope admin; default: LEYDEN_API_KEY, or the stack's own.")]


class Scope(StrEnum):
    """What a key is for, as the option takes it."""

    AGENT = "agent"
    RUNNER = "runner"
    ADMIN = "admin"


@keys_app.command()
def create(
    name: Annotated[str, typer.Option(help="What the list shows; need not be unique.")],
    scope: Annotated[list[Scope] | None, typer.Option(help="Repeatable; a scope includes the lesser ones.")] = None,
    project: Annotated[str | None, typer.Option(help="Recorded on the calls and spans of the key.")] = None,
    models: Annotated[list[str] | None, typer.Option(help="Allowed models, such as 'policy*'; repeatable.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Model calls, over all replicas.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Prompt and completion, all replicas.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Model calls at a time in one replica.")] = None,
    expires: Annotated[str | None, typer.Option(help="30d, 12h, 4w, or a date; default: never.")] = None,
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept."""
    from leyden.cli.feedback import gateway_of
    from leyden.cli.keys import KeyAdmin, Wanted, expiry

    with clear_errors():
        wanted = Wanted(
            name,
            scope or [Scope.AGENT],
            project,
            models or [],
            requests_per_minute,
            tokens_per_minute,
            concurrency,
            expiry(expires, datetime.now(UTC)),
        )
        with closing(gateway_of(gateway, api_key, data_dir)) as found:
            say(KeyAdmin(found).create(wanted)["key"])


@keys_app.command("list")
def list_keys(gateway: GatewayUrl = None, api_key: ApiKey = None, data_dir: DataDir = STACK_DIR) -> None:
    """Show every key by id; never a key itself."""
    from leyden.cli.feedback import gateway_of
    from leyden.cli.keys import KeyAdmin, row

    with clear_errors():
        with closing(gateway_of(gateway, api_key, data_dir)) as found:
            keys = KeyAdmin(found).list()
        table = Table("id", "name", "state", "scopes", "project", "models", "limits")
        for key in keys:
            table.add_row(*row(key, datetime.now(UTC)))
        console.print(table if keys else f"no keys yet: {as_typed()} keys create --name …")


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `leyden keys list` shows it.")],
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """End a key, and every per-rollout key that it claimed, in every replica of the gateway, for ever."""
    from leyden.cli.feedback import gateway_of
    from leyden.cli.keys import KeyAdmin

    with clear_errors():
        with closing(gateway_of(gateway, api_key, data_dir)) as found:
            gone = KeyAdmin(found).revoke(key_id)
        say(f"revoked {gone['key_id']} ({gone['name']})")
