"""service/… and config/reload: info, health, and a new configuration."""

from __future__ import annotations

from mqttjobs.domain.model import Json
from mqttjobs.errors import ConfigError, InvalidRequest, Unavailable
from mqttjobs.service.api.request import NoParams, Reply, RequestContext, method


@method("service/info")
async def info(request: RequestContext, params: NoParams) -> Json:
    """Return the document of <base>/info, and the uptime in seconds."""
    del params
    return request.status.info() | {"uptime": round(request.status.uptime_s, 3)}


@method("service/health")
async def health(request: RequestContext, params: NoParams) -> Json:
    """Return the status, the reasons why it is degraded, and the counters."""
    del params
    return await request.status.health()


@method("config/reload", "config:write", changes=True)
async def reload(request: RequestContext, params: NoParams) -> Reply:
    """Read the configuration anew; a bad file changes nothing."""
    del params
    if request.reload is None:
        raise Unavailable("this service was started without a configuration file")
    try:
        changed = await request.reload(request.caller.user.id)
    except ConfigError as error:
        raise InvalidRequest(
            "\n".join(map(str, error.problems)), {"config": [str(each) for each in error.problems[:5]]}
        ) from None
    return await request.replace_answer(Reply(changed))
