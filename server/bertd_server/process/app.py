"""`bertd serve` as a process: what it says, which signals it takes, how it ends.

serve = listen -> load -> wait for a signal -> NOT_SERVING -> finish in-flight calls -> stop
        a second signal ends the process at once
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bertd.bundle import Task

from bertd_server.config.settings import Settings
from bertd_server.models.exporting import Export
from bertd_server.models.model import Model
from bertd_server.process.lifecycle import Lifecycle
from bertd_server.process.trimming import Trimmer
from bertd_server.process.watchdog import Watchdog
from bertd_server.serving.server import Server, listening
from bertd_server.system import cache_folder, cpu, logs
from bertd_server.system.exits import Exit
from bertd_server.system.logs import get_logger

log = get_logger("bertd")

REQUESTS: dict[Task, str] = {
    "feature-extraction": "embed '안녕하세요' 'hello world'",
    "text-classification": "classify 'a fine film'",
    "zero-shot-classification": "zero-shot 'a fine film' --label cinema --label sport",
    "text-ranking": "rerank 'who wrote it' 'Ada Lovelace wrote it' 'it rains'",
    "token-classification": "tag 'Ada Lovelace lived in London'",
    "question-answering": "answer 'who wrote it' --context 'Ada Lovelace wrote it in 1843'",
    "fill-mask": "fill 'Paris is the capital of [MASK].'",
}


async def serve(
    folder: Path | None,
    settings: Settings,
    reread: Callable[[], Settings],
    begin: Callable[[], Export | None] = lambda: None,
) -> Exit:
    """Serve a bundle until SIGINT or SIGTERM, then drain. A second one ends the process.

    Args:
        folder: the bundle; None for the repository of the settings.
        settings: of the server.
        reread: gives them anew, with SIGHUP.
        begin: what makes the bundle, if it is not there; called once the addresses are taken.

    Returns:
        how it ended.
    """
    lifecycle = Lifecycle()
    try:
        return await _serve(lifecycle, folder, settings, reread, begin)
    finally:
        lifecycle.over()


async def _serve(
    lifecycle: Lifecycle,
    folder: Path | None,
    settings: Settings,
    reread: Callable[[], Settings],
    begin: Callable[[], Export | None],
) -> Exit:
    warn_beyond(cpu.usable_threads(), settings)
    warn_unkept(settings.cache_folder)
    server = Server(folder, settings)
    server.reloading.reread = reread
    server.reloading.on_settings(lambda new: logs.configure(new.log_format, new.log_level))
    port = await server.listen()
    lifecycle.if_ended_early(server.leave_sockets)
    try:
        export = begin()
        if export is not None:
            lifecycle.if_ended_early(export.end)
            await asyncio.to_thread(export.finish)
        await server.load()
    except BaseException:
        await server.abandon()
        raise
    lifecycle.takes_calls()
    settle()
    models = server.catalogue.newest()
    names = [model.name for model in models]
    log.info(
        "serving",
        models=names,
        address=listening(settings.address, port),
        http=server.observability.http_address or None,
        lanes=settings.lanes,
        threads=settings.threads,
        request=_request(models[0], settings, port, named=len(models) > 1) if models else None,
    )
    lifecycle.ready(f"serving {', '.join(names)}", lambda: server.serving, server.reloading.reload)
    trimmer = Trimmer()
    server.memory.when_freed(trimmer.soon)
    watchdog = Watchdog(
        server.models,
        seconds=settings.watchdog_seconds,
        memory_limit=settings.memory_limit,
        requests=server.memory,
    )
    watchdog.start(lifecycle.trouble, lifecycle.hung)
    await lifecycle.ending.wait()
    lifecycle.drains(lambda number: _end(number, server.models()))
    log.info("draining", limit_seconds=server.reloading.settings.drain_seconds)
    drained = await server.drain()
    watchdog.stop()
    trimmer.close()
    for model in server.catalogue.models():
        log.info("stopped", model=model.name, **model.statistics.counts())
    code = lifecycle.exit(drained)
    if server.loading:  # an orderly exit would wait for a model that nobody will ask
        log.info("ended while a model was loaded")
        os._exit(code)
    return code


def warn_beyond(usable: int, settings: Settings) -> None:
    """Warn of more threads than cores: they take turns, and each batch takes longer."""
    for name in ("lanes", "threads"):
        given = getattr(settings, name)
        if settings.provider == "cpu" and given > usable:
            log.warning(
                "more threads than usable cores",
                setting=name,
                given=given,
                usable=usable,
                remedy=f"--{name} {usable}, which is the default here, or a larger CPU quota",
            )


def warn_unkept(folder: Path) -> None:
    """Warn of a cache folder in which nothing can be kept, and say what is lost."""
    if reason := cache_folder.obstacle(folder):
        log.warning(
            "nothing is kept for the next start",
            cache_folder=str(folder),
            reason=reason,
            lost="prepacked weights and measurements, which each start makes anew",
            remedy="name a folder that the server may write to with --cache-folder",
        )


def settle() -> None:
    """Take all objects of this process for permanent: collections look through new ones alone."""
    gc.collect()
    gc.freeze()


def _end(number: int, models: Iterable[Model]) -> None:
    """End the process at once: somebody has asked twice."""
    gauges = [model.gauges() for model in models]
    log.error(
        "ended by a second signal",
        texts_waiting=sum(one.waiting for one in gauges),
        batches_running=sum(one.batches_running for one in gauges),
    )
    os._exit(128 + number)  # as a shell reports a process that a signal has ended


def _request(model: Model, settings: Settings, port: int, *, named: bool) -> str:
    """A command to paste into another terminal."""
    command = sys.argv[0] if Path(sys.argv[0]).name == "bertd" else "bertd"
    server = listening(settings.address, port)
    there = "" if server == Settings.model_fields["address"].default else f" --address {server}"
    there += f" --model {model.name}" if named else ""
    there += " --tls" if settings.tls_certificate else ""
    return f"{command} {REQUESTS[model.manifest.task]}{there}"
