"""service/… and config/reload: what this service is, how it is doing, and a new configuration."""

from __future__ import annotations

from mqttjobs.domain.model import Json
from mqttjobs.errors import ConfigError, InvalidRequest, Unavailable
from mqttjobs.service.api.request import NoParams, Reply, RequestContext, method
from mqttjobs.service.api.status import health_document, info_document


@method("service/info")
async def info(request: RequestContext, params: NoParams) -> Json:
    """Return what is on <base>/info, and the uptime in seconds."""
    del params
    engine = request.engine
    uptime = (engine.clock.now() - engine.started_at).total_seconds()
    return info_document(engine) | {"uptime": round(uptime, 3)}


@method("service/health")
async def health(request: RequestContext, params: NoParams) -> Json:
    """Return whether all is well, why not, and the counters."""
    del params
    return await health_document(request.engine)


@method("config/reload", "config:write", changes=True)
async def reload(request: RequestContext, params: NoParams) -> Reply:
    """Read the configuration anew; a bad file changes nothing."""
    del params
    reloading = request.engine.reloading
    if reloading is None:
        raise Unavailable("this service was started without a configuration file")
    try:
        changed = await reloading(request.caller.user.id)
    except ConfigError as error:
        raise InvalidRequest(
            "\n".join(map(str, error.problems)), {"config": [str(each) for each in error.problems[:5]]}
        ) from None
    return await request.replace_answer(Reply(changed))
