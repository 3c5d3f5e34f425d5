"""`leyden keys`: options only."""

from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from leyden.cli.formatting import print_columns
from leyden.cli.shell import STACK_DIR, GatewayUrl, StackDir, clear_errors, console, examples, say
from leyden.stack.program import as_typed

keys_app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys of the gateway.")
AdminKey = Annotated[
    str | None,
    typer.Option("--api-key", help="Key with scope admin. Default: LEYDEN_API_KEY, else the local stack's."),
]


class Scope(StrEnum):
    """What a key may do."""

    AGENT = "agent"
    RUNNER = "runner"
    ADMIN = "admin"


@keys_app.command()
@examples(
    "leyden keys create --name my-agent",
    "leyden keys create --name runners --scope runner --project math --requests-per-minute 600 --expires 30d",
)
def create(
    name: Annotated[str, typer.Option(help="Name shown in the list; need not be unique.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="What the key may do; repeatable. runner includes agent, admin includes both. Default: agent."
        ),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Project recorded on the key's calls and spans.")] = None,
    models: Annotated[
        list[str] | None, typer.Option(help="Allowed model, as a pattern such as 'policy*'; repeatable. Default: all.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Limit of model calls, over all gateway replicas.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Limit of prompt and completion tokens, over all replicas.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Limit of model calls at a time, per replica.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Lifetime such as 30d, 12h or 4w, or a date. Default: never.")
    ] = None,
    gateway: GatewayUrl = None,
    api_key: AdminKey = None,
    data_dir: StackDir = STACK_DIR,
) -> None:
    """Create a key and print it. It is printed only once: the gateway stores just its digest."""
    from leyden.cli.gateway_requests import gateway_of
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
def list_keys(gateway: GatewayUrl = None, api_key: AdminKey = None, data_dir: StackDir = STACK_DIR) -> None:
    """List all keys with their ids, states and limits, not their secrets."""
    from leyden.cli.gateway_requests import gateway_of
    from leyden.cli.keys import KeyAdmin, row

    with clear_errors():
        with closing(gateway_of(gateway, api_key, data_dir)) as found:
            keys = KeyAdmin(found).list()
        if keys:
            heads = ("id", "name", "state", "scopes", "project", "models", "limits")
            print_columns(heads, [row(key, datetime.now(UTC)) for key in keys], console)
        else:
            console.print(f"no keys yet; create one with `{as_typed()} keys create --name NAME`")


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id from `leyden keys list`.")],
    gateway: GatewayUrl = None,
    api_key: AdminKey = None,
    data_dir: StackDir = STACK_DIR,
) -> None:
    """Revoke a key for good, together with all rollout keys issued through it."""
    from leyden.cli.gateway_requests import gateway_of
    from leyden.cli.keys import KeyAdmin

    with clear_errors():
        with closing(gateway_of(gateway, api_key, data_dir)) as found:
            gone = KeyAdmin(found).revoke(key_id)
        say(f"revoked {gone['key_id']} ({gone['name']})")
