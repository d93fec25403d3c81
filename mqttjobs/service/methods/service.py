"""service/… and config/reload: what this service is, how it is doing, and a new configuration."""

from __future__ import annotations

from mqttjobs.domain.model import Json
from mqttjobs.errors import ConfigError, InvalidRequest, Unavailable
from mqttjobs.service.requests.asking import Asking, NoParams, Reply, method
from mqttjobs.service.requests.reports import health_document, info_document


@method("service/info")
async def info(asking: Asking, params: NoParams) -> Json:
    """Return what is on <base>/info, and the uptime in seconds."""
    del params
    workshop = asking.workshop
    uptime = (workshop.clock.now() - workshop.started_at).total_seconds()
    return info_document(workshop) | {"uptime": round(uptime, 3)}


@method("service/health")
async def health(asking: Asking, params: NoParams) -> Json:
    """Return whether all is well, why not, and the counters."""
    del params
    return await health_document(asking.workshop)


@method("config/reload", "config:write", changes=True)
async def reload(asking: Asking, params: NoParams) -> Reply:
    """Read the configuration anew; a bad file changes nothing."""
    del params
    reloading = asking.workshop.reloading
    if reloading is None:
        raise Unavailable("this service was started without a configuration file")
    try:
        changed = await reloading(asking.caller.user.id)
    except ConfigError as error:
        raise InvalidRequest(
            "\n".join(map(str, error.problems)), {"config": [str(each) for each in error.problems[:5]]}
        ) from None
    return await asking.replace_answer(Reply(changed))
