"""service/… and config/reload: what this service is, how it is doing, and a new configuration."""

from __future__ import annotations

from mqttjobs.domain.model import Json
from mqttjobs.errors import ConfigError, InvalidRequest, Unavailable
from mqttjobs.service.api.request import NoParams, Reply, RequestContext, method


@method("service/info")
async def info(request: RequestContext, params: NoParams) -> Json:
    """Return what is on <base>/info, and the uptime in seconds."""
    del params
    return request.status.info() | {"uptime": round(request.status.uptime_s, 3)}


@method("service/health")
async def health(request: RequestContext, params: NoParams) -> Json:
    """Return whether all is well, why not, and the counters."""
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
