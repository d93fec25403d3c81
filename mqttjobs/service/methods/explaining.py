"""operations/explain and operations/simulate: why an operation ran or did not, and what would run."""

from __future__ import annotations

from pydantic import JsonValue

from mqttjobs.domain.model import Json
from mqttjobs.errors import InvalidRequest
from mqttjobs.service.api.manual_runs import choose_owner
from mqttjobs.service.api.request import Params, RequestContext, method
from mqttjobs.service.methods.operations import find_operation
from mqttjobs.service.simulation.documents import play, read_steps
from mqttjobs.service.simulation.simulation import TooManyRuns

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
async def explain(request: RequestContext, params: Explain) -> Json:
    """Return what each trigger watches and waits for, and the skipped matches with their reasons."""
    operation = find_operation(request, params.id)
    owner = choose_owner(request, operation, params.object, params.link)
    return await request.explainer.explain(operation, owner)


@method("operations/simulate", READ, params=Simulate)
async def simulate(request: RequestContext, params: Simulate) -> Json:
    """Return what would run, when and how, from the stored values on; nothing is changed."""
    sees = request.caller.sees
    steps = read_steps(request.installation, params.reports, sees)
    async with request.engine.transaction():
        simulation = request.explainer.simulation()
    try:
        played = await play(simulation, steps, sees)
    except TooManyRuns as error:
        raise InvalidRequest(str(error), {"reports": [str(error)]}) from None
    seen = [each for step in played for each in step["seen"]]
    return {
        "steps": played,
        "runs": [run for each in seen for run in each["runs"]],
        "not_run": [skipped_match for each in seen for skipped_match in each["not_run"]],
    }
