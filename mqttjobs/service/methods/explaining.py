"""operations/explain and operations/simulate: why something ran or did not, and what would run."""

from __future__ import annotations

from pydantic import JsonValue

from mqttjobs.domain.model import Json
from mqttjobs.errors import InvalidRequest
from mqttjobs.service.explaining import explanation
from mqttjobs.service.methods.operations import find_operation
from mqttjobs.service.rehearsal import Rehearsal, TooMuch
from mqttjobs.service.requests.asking import Asking, Params, method
from mqttjobs.service.requests.by_hand import choose_owner
from mqttjobs.service.trying_out import play, read_steps

READ = "operation:read"


class Explain(Params):
    """An operation, and whom it is explained for where it is attached to several."""

    id: str
    object: str | None = None
    link: str | None = None


class Simulate(Params):
    """What is reported and how much time passes, in order; see StepModel."""

    reports: list[JsonValue]


@method("operations/explain", READ, params=Explain)
async def explain(asking: Asking, params: Explain) -> Json:
    """Return what each trigger watches and waits for, and which matches did not run, and why."""
    operation = find_operation(asking, params.id)
    owner = choose_owner(asking, operation, params.object, params.link)
    return await explanation(asking.workshop, operation, owner)


@method("operations/simulate", READ, params=Simulate)
async def simulate(asking: Asking, params: Simulate) -> Json:
    """Return what would run, when and how, beginning with the values that are stored; nothing is changed."""
    workshop = asking.workshop
    sees = asking.caller.sees
    steps = read_steps(workshop.settings.installation, params.reports, sees)
    async with workshop.turn:
        await workshop.refresh()
        rehearsal = Rehearsal(
            workshop.settings,
            workshop.clock.now(),
            workshop.new_id,
            mirror=workshop.mirror,
            roster=workshop.roster,
            connected_at=workshop.agenda.connected_at,
        )
    try:
        told = await play(rehearsal, steps, sees)
    except TooMuch as error:
        raise InvalidRequest(str(error), {"reports": [str(error)]}) from None
    seen = [each for step in told for each in step["seen"]]
    return {
        "steps": told,
        "runs": [run for each in seen for run in each["runs"]],
        "not_run": [miss for each in seen for miss in each["not_run"]],
    }
