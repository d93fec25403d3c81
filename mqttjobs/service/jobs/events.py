"""Job events (event/job/…): each status is published once it is stored; an end also after a crash."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mqttjobs.domain.documents import event_document
from mqttjobs.domain.jobs import Job
from mqttjobs.domain.protocol import encode
from mqttjobs.domain.service_topics import job_event_topic
from mqttjobs.service.jobs.definitions import blank_description
from mqttjobs.store.base import Store
from mqttjobs.transport.base import Publication
from mqttjobs.transport.publisher import Publisher

PAGE = 200


class JobEventPublisher:
    """Publishes job events. An end that could not be sent stays in the store's outbox until the next connection.

    `published` are the uids whose end was sent and is not recorded as announced yet, oldest first. `behind` says that
    the outbox holds ends that were passed over.
    """

    def __init__(self, store: Store, publisher: Publisher, base_topic: str, qos: int) -> None:
        self._store = store
        self._publisher = publisher
        self._base_topic = base_topic
        self._qos = qos
        self.published: list[int] = []
        self.behind = True

    def publish(self, jobs: Iterable[Job]) -> None:
        """Tell the present status of jobs.

        While disconnected or far behind, an end waits in the outbox and any other status is left out.
        """
        for job in jobs:
            if self._publisher.connected and self._publisher.backlog < PAGE:
                self._publish(job)
            elif job.ended:
                self.behind = True

    def _publish(self, job: Job) -> None:
        owner_id = job.owner.id if job.owner else None
        document = event_document(job, blank_description(str(job.operation.get("type"))))
        publication = Publication(
            job_event_topic(self._base_topic, job.status.value, job.operation_id, owner_id),
            encode(document),
            qos=self._qos,
            content_type="application/json",
        )
        sent = self._publisher.publish(publication)
        if job.ended:
            uid = job.uid
            sent.add_done_callback(lambda done: None if done.cancelled() else self.published.append(uid))

    async def catch_up(self) -> None:
        """Tell a page of the ends that were passed over, here or in an earlier process; call it until not `behind`."""
        if not self.behind or not self._publisher.connected or self._publisher.backlog:
            return
        self.behind = False
        published = set(self.published)
        stored = await self._store.unannounced(PAGE + len(published))
        fresh = [job for job in stored if job.uid not in published]
        for job in fresh[:PAGE]:
            self._publish(job)
        self.behind = self.behind or len(fresh) >= PAGE

    def announced(self, uids: Collection[int]) -> None:
        """Forget uids whose end was sent: they are recorded as announced."""
        del self.published[: len(uids)]
