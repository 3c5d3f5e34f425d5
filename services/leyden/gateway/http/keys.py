"""`/leyden/v1/keys`: create, list and revoke API keys. The secret is only in the reply to the creation."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints
from starlette.responses import Response

from leyden.events import KeyLimits
from leyden.events.keys import ScopeName
from leyden.gateway.core.keys import Caller, KeyRing, KeyState, Scope
from leyden.gateway.handlers.keys import KeyRequest, KeysHandler
from leyden.gateway.http.bodies import Body, Name, NoBody
from leyden.gateway.http.operations import Asked, LeydenRoutes, Operation
from leyden.gateway.http.requests import json_answer

PATH = "/leyden/v1/keys"
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Project = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class KeyBody(Body):
    """`POST /leyden/v1/keys`."""

    name: str = Name
    scopes: list[ScopeName] = Field(default=["agent"], min_length=1, max_length=3)
    project: Project | None = None
    models: list[Pattern] = Field(default_factory=list, max_length=100)
    requests_per_minute: int | None = Field(default=None, ge=1, le=10_000_000)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000_000)
    concurrency: int | None = Field(default=None, ge=1, le=100_000)
    expires_at: AwareDatetime | None = None

    def request(self, caller: Caller) -> KeyRequest:
        """The handler's form. A key of a project makes keys of that project only; raises a 403 for another one."""
        project = self.project or caller.project
        caller.must_share(project)
        limits = KeyLimits.model_validate(self.model_dump(include=set(KeyLimits.model_fields)))
        return KeyRequest(
            name=self.name,
            scopes=self.scopes,
            project=project,
            models=self.models,
            limits=limits,
            expires_at=self.expires_at,
        )


@dataclass(frozen=True)
class KeysApi:
    """The dependencies of the keys API."""

    leyden: LeydenRoutes
    ring: KeyRing
    handler: KeysHandler

    def operations(self) -> list[Operation]:
        """All operations on keys; they need a key with scope admin."""
        operation, admin = self.leyden.operation, Scope.ADMIN
        return [
            operation("POST", PATH, self._create, KeyBody, scope=admin, tag="keys", status=201, reply="NewKey",
                      summary="Make a key; its text is in this answer only."),
            operation("GET", PATH, self._list, NoBody, scope=admin, tag="keys", reply="Keys",
                      summary="All keys, without their texts."),
            operation("DELETE", f"{PATH}/{{key_id}}", self._revoke, NoBody, scope=admin, tag="keys", more=(404,),
                      reply="Key", summary="Revoke a key."),
        ]  # fmt: skip

    async def _create(self, asked: Asked[KeyBody]) -> Response:
        body = asked.body()
        key, created = await self.handler.create(body.request(asked.caller))
        return _json({"key": key.text} | _shown(KeyState(key.key_id, created.name, created)), 201)

    async def _list(self, asked: Asked[NoBody]) -> Response:
        return _json({"keys": [_shown(state) for state in self.ring.states() if state.is_of(asked.caller.project)]})

    async def _revoke(self, asked: Asked[NoBody]) -> Response:
        return _json(_shown(await self.handler.revoke(asked.parameter("key_id"), asked.caller.project)))


def _shown(state: KeyState) -> dict[str, Any]:
    answer: dict[str, Any] = {"key_id": state.key_id, "name": state.name, "revoked_at": state.revoked_at}
    if created := state.created:
        answer |= {"created_at": created.event_time, "expires_at": created.expires_at, "scopes": created.scopes}
        answer |= {"project": created.project, "models": created.models} | created.limits.model_dump()
    return answer


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    # No cache may store a key.
    return json_answer(answer, status, {"cache-control": "no-store"})
