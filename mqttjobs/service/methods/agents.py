"""agents/…: list and read agents, drain and undrain them."""

from __future__ import annotations

from dataclasses import replace

from mqttjobs.domain.agents import Agent, agent_document
from mqttjobs.domain.model import Json
from mqttjobs.errors import NotFound
from mqttjobs.service.api.request import Params, Reply, RequestContext, method
from mqttjobs.service.methods.jobs import Paging

READ = "agent:read"
WRITE = "agent:write"


class OneAgent(Params):
    """An agent's hostname."""

    hostname: str


def _find(request: RequestContext, hostname: str) -> Agent:
    agent = request.agent_registry.agents.get(hostname)
    if agent is None:
        raise NotFound("Agent", "no agent of this name was ever heard of")
    return agent


def _document(request: RequestContext, agent: Agent) -> dict[str, Json]:
    return agent_document(agent, request.clock.now(), request.agent_registry.timing.lease)


@method("agents/list", READ, params=Paging)
async def list_agents(request: RequestContext, params: Paging) -> Json:
    """Return every known agent, by hostname."""
    agents = request.agent_registry.agents
    page = sorted(agents)[params.offset : params.offset + params.limit]
    return {"total_items": len(agents), "items": [_document(request, agents[hostname]) for hostname in page]}


@method("agents/get", READ, params=OneAgent)
async def get_agent(request: RequestContext, params: OneAgent) -> Json:
    """Return one agent."""
    return _document(request, _find(request, params.hostname))


@method("agents/drain", WRITE, params=OneAgent, changes=True)
async def drain_agent(request: RequestContext, params: OneAgent) -> Reply:
    """Let an agent finish what it runs and take nothing new; survives restarts of both."""
    return await _order(request, params.hostname, drained=True)


@method("agents/undrain", WRITE, params=OneAgent, changes=True)
async def undrain_agent(request: RequestContext, params: OneAgent) -> Reply:
    """Let an agent take jobs again."""
    return await _order(request, params.hostname, drained=False)


async def _order(request: RequestContext, hostname: str, *, drained: bool) -> Reply:
    async with request.engine.transaction() as tx:
        agent = replace(_find(request, hostname), drained=drained)
        request.agent_registry.agents[hostname] = tx.agents[hostname] = agent
        reply = request.keep_answer(tx, Reply(_document(request, agent)))
    request.agent_scheduler.order(hostname, "drain" if drained else "undrain")
    return reply
