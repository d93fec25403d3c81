"""agents/…: list agents, read one, and let it take jobs or not."""

from __future__ import annotations

from dataclasses import replace

from mqttjobs.domain.agents import Agent, agent_document
from mqttjobs.domain.model import Json
from mqttjobs.errors import NotFound
from mqttjobs.service.draft import Draft
from mqttjobs.service.methods.jobs import Paging
from mqttjobs.service.requests.asking import Asking, Params, Reply, method

READ = "agent:read"
WRITE = "agent:write"


class OneAgent(Params):
    """An agent's hostname."""

    hostname: str


def _find(asking: Asking, hostname: str) -> Agent:
    agent = asking.workshop.roster.agents.get(hostname)
    if agent is None:
        raise NotFound("Agent", "no agent of this name was ever heard of")
    return agent


def _document(asking: Asking, agent: Agent) -> dict[str, Json]:
    workshop = asking.workshop
    return agent_document(agent, workshop.clock.now(), workshop.roster.timing.lease)


@method("agents/list", READ, params=Paging)
async def list_agents(asking: Asking, params: Paging) -> Json:
    """Return every agent that was ever heard of, by hostname."""
    agents = asking.workshop.roster.agents
    page = sorted(agents)[params.offset : params.offset + params.limit]
    return {"total_items": len(agents), "items": [_document(asking, agents[hostname]) for hostname in page]}


@method("agents/get", READ, params=OneAgent)
async def get_agent(asking: Asking, params: OneAgent) -> Json:
    """Return one agent."""
    return _document(asking, _find(asking, params.hostname))


@method("agents/drain", WRITE, params=OneAgent, changes=True)
async def drain_agent(asking: Asking, params: OneAgent) -> Reply:
    """Let an agent finish what it runs and take nothing new; survives restarts of both."""
    return await _order(asking, params.hostname, drained=True)


@method("agents/undrain", WRITE, params=OneAgent, changes=True)
async def undrain_agent(asking: Asking, params: OneAgent) -> Reply:
    """Let an agent take jobs again."""
    return await _order(asking, params.hostname, drained=False)


async def _order(asking: Asking, hostname: str, *, drained: bool) -> Reply:
    workshop = asking.workshop
    async with workshop.turn:
        await workshop.refresh()
        agent = replace(_find(asking, hostname), drained=drained)
        workshop.roster.agents[hostname] = agent
        reply = await asking.commit(Draft(agents={hostname: agent}), Reply(_document(asking, agent)))
    workshop.agents.order(hostname, "drain" if drained else "undrain")
    return reply
