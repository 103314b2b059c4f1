"""Every setting of `bertd serve`, with its default, unit and help in one place.

::

    Settings ──flags.py──────────> --flags and their help
        │ ────configuration.py───> flags > BERTD_… > file > defaults; --print-config
        └─────settings_table.py──> the table of docs/configuration.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from bertd.bundle.kernels import KernelChoice
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bertd_server.system import cgroups, cpu
from bertd_server.system.cache_folder import user_cache_folder
from bertd_server.system.setting_types import (
    LogFormat,
    LogLevel,
    ModelControl,
    Profile,
    Provider,
    Switch,
    parse_bytes,
)

UNIX = "unix:"
ON: Switch = "on"
OFF: Switch = "off"
AUTO = "auto"
MAX_PORT = 65_535
MOST_NAME_CHARACTERS = 128
LEAST_MEMORY = 64 * 2**20  # bytes; a server without a model takes more
MOST_THREADS = 1_024  # of lanes, and of a run: beyond all machines, and below what a system gives

GROUPS = {
    "address": "Listening",
    "name": "Models",
    "lanes": "Computing",
    "cache_folder": "Starting",
    "max_batch_tokens": "Batches and queue",
    "max_text_characters": "Calls",
    "drain_seconds": "Life cycle",
    "http_address": "Observability",
    "insecure": "Security and connections",
}
"""Headings of the documentation, by the first setting below each."""

RELOADABLE = frozenset(
    {
        "max_queue_tokens",
        "max_queue_seconds",
        "max_queue_characters",
        "drain_seconds",
        "drain_delay_seconds",
        "log_level",
    }
)
"""Settings that take effect with SIGHUP; :mod:`bertd_server.config.reloading` applies them."""

Bytes = Annotated[int, BeforeValidator(parse_bytes)]
"""An amount of memory, as :func:`parse_bytes` reads it."""


class Settings(BaseSettings):
    """Settings of the server."""

    model_config = SettingsConfigDict(
        env_prefix="BERTD_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,  # 0 means "no limit" where there may be none
    )

    address: str = Field("127.0.0.1:8001", description="host:port to listen on")
    http_api: str = Field(
        "off",
        description="host:port of the same calls over HTTP: OpenAI, TEI, Cohere, Open Inference "
        "Protocol and others; off for none",
    )
    console: Switch = Field(
        "on", description="a page for people at / of --http-api: models, a try, what runs"
    )
    name: str = Field(
        "", description="what the bundle is called, in the place of the name that it brings"
    )
    repository: Path | None = Field(
        None, description="folder of models, as ROOT/MODEL/VERSION, in the place of one bundle"
    )
    model_control: ModelControl = Field(
        "none",
        description="what changes the models of a repository: nothing, calls that load and unload "
        "them (explicit), or changes of the folder (poll)",
    )
    load_models: str = Field(
        "", description="models to load at the start with explicit, comma between them; * for all"
    )
    default_model: str = Field(
        "", description="model of a call that names none; without it, the only model"
    )
    poll_seconds: float = Field(15.0, gt=0, description="seconds between two looks at the folder")
    lanes: int = Field(
        default_factory=cpu.usable_threads,
        ge=1,
        le=MOST_THREADS,
        description="batches that run at once, on one thread each",
    )
    lane_niceness: int = Field(
        10,
        ge=0,
        le=19,
        description="how far lanes step back behind the event loop (Linux nice); 0 for not at all",
    )
    threads: int = Field(
        default_factory=cpu.usable_threads,
        ge=1,
        le=MOST_THREADS,
        description="threads of a batch that runs alone; with 1 all run on lanes",
    )
    loop_run_seconds: float = Field(
        0.003,
        ge=0,
        le=0.1,
        description="predicted seconds up to which a lone text, while nothing else is to do, is "
        "computed on the event loop's own thread, which spares two changes of thread; 0 never",
    )
    provider: Provider = Field("cpu", description="what computes")
    profile: Profile = Field(
        "latency",
        description="latency: threads spin within a run on several of them; efficient: they sleep",
    )
    kernels: KernelChoice = Field(
        "auto",
        description="what computes on a CPU: native, kernels of the package bertd-native; stock, "
        "ONNX Runtime's own operators; auto: native where they are installed and run",
    )
    memory_limit: Bytes = Field(
        default_factory=cgroups.memory_limit,
        ge=0,
        description="bytes of the process, such as 2GiB; 0 for no limit",
    )
    cache_folder: Path = Field(
        default_factory=user_cache_folder,
        description="what a start leaves for the next one: exported models, prepacked "
        "weights, measurements",
    )
    warmup_seconds: float = Field(0.5, ge=0, description="seconds of warm-up before it answers")
    calibration_seconds: float = Field(
        5.0,
        ge=0,
        description="seconds to time batches on a machine that is new to the server; most of it, "
        "and up to four times as long, goes on while nothing else runs",
    )
    first_calibration_seconds: float = Field(
        0.4, ge=0, description="of these, seconds before it answers"
    )
    max_batch_tokens: int = Field(2_048, ge=1, description="tokens in one batch")
    max_batch_sequences: int = Field(256, ge=1, description="texts in one batch")
    max_queue_tokens: int = Field(
        1_048_576, ge=1, description="tokens that may wait before a call is refused"
    )
    max_queue_seconds: float = Field(
        10.0, ge=0, description="predicted seconds of waiting beyond which a call is refused"
    )
    max_queue_delay: float = Field(
        0.0, ge=0, description="seconds that a free lane waits for a batch to fill"
    )
    max_passed_over: int = Field(
        16, ge=0, description="batches that may pass over the text that has waited longest"
    )
    cache_bytes: Bytes = Field(
        0,
        ge=0,
        description="bytes of results that are kept for equal texts, such as 64MiB; 0 keeps none",
    )
    # Twelve characters for each token of a model that reads 8,192. English has four to five a
    # token, Korean one or two: whatever a model can read of a text lies well within.
    max_text_characters: int = Field(
        100_000, ge=1, description="characters in one text; a longer one is not tokenised"
    )
    max_queue_characters: int = Field(
        4_000_000,
        ge=1,
        description="characters that may wait for the tokeniser before a call is refused",
    )
    # 32 texts of 8,192 tokens, 512 of 512: some seconds of work for a small model on two cores.
    max_request_tokens: int = Field(
        262_144,
        ge=0,
        description="tokens that one request may have the model read, those of each window "
        "counted; 0 for no limit",
    )
    max_texts_per_call: int = Field(256, ge=1, description="texts in one call")
    # gRPC's own default, which stock clients have for answers. Eight messages of 16 MiB at once
    # made a neighbour wait fifteen times as long, of 4 MiB five to ten times.
    max_message_bytes: Bytes = Field(
        4 * 1024 * 1024, ge=1024, le=2**31 - 1, description="bytes in one message, such as 16MiB"
    )
    drain_seconds: float = Field(
        30.0,
        ge=0,
        description="seconds for in-flight calls to finish; a batch that then runs has one more",
    )
    drain_delay_seconds: float = Field(
        0.0,
        ge=0,
        description="seconds between NOT_SERVING and the drain, for balancers to look away; "
        "meanwhile calls are answered",
    )
    watchdog_seconds: float = Field(
        60.0,
        ge=0,
        description="seconds after which a batch is stuck, ten times its prediction if that is "
        "more, or the event loop; the server then ends to be restarted; 0 never",
    )
    supervise: bool = Field(
        default=False, description="restart the server from a small process of our own if it fails"
    )
    supervise_failures: int = Field(
        5, ge=1, description="failures within the window with which a supervisor gives up"
    )
    supervise_window_seconds: float = Field(
        300.0, ge=0, description="seconds for which a supervisor remembers a failure"
    )
    http_address: str = Field(
        "127.0.0.1:8002",
        description="host:port of metrics, /healthz and /readyz over HTTP; off for none",
    )
    log_format: LogFormat = Field(
        "auto", description="of the log; auto: for a reader on a terminal, JSON otherwise"
    )
    log_level: LogLevel = Field("info", description="the least that is logged")
    access_log: Switch = Field("off", description="a line in the log for each RPC")
    access_log_sample: float = Field(
        1.0, ge=0, le=1, description="share of answered RPCs that have a line; errors always have"
    )
    log_texts: Switch = Field("off", description="texts of requests in the access log")
    tracing_endpoint: str = Field(
        "auto",
        description="where OpenTelemetry spans go by OTLP over gRPC, such as "
        "http://localhost:4317; auto: where OTEL_EXPORTER_OTLP_ENDPOINT says, if it does; or off",
    )
    channelz: Switch = Field("off", description="gRPC's channelz: connections, for grpcdebug")
    load_reports: Switch = Field(
        "off", description="ORCA load reports for balancers: with each call, and as a stream"
    )
    # docs/security.md explains what follows.
    insecure: bool = Field(
        False, description="listen beyond loopback without TLS; for a trusted network alone"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM of the server's certificate, then intermediates; asks for TLS"
    )
    tls_key: Path | None = Field(None, description="PEM of its private key, not encrypted")
    tls_client_ca: Path | None = Field(
        None, description="PEM of CAs; only clients with a certificate of theirs may connect"
    )
    api_keys: Path | None = Field(
        None, description="TOML or JSON file of API keys, which calls then need"
    )
    management_address: str = Field(
        "", description="host:port for calls that change the server; the main address refuses them"
    )
    max_request_seconds: float = Field(
        300.0,
        ge=0,
        description="seconds for a request whose deadline is later or that has none; 0 for no "
        "limit",
    )
    max_concurrent_streams: int = Field(
        4_096, ge=0, description="calls at once on one connection; 0 for no limit"
    )
    max_connections: int = Field(
        1_000, ge=0, description="connections to one address; 0 for no limit"
    )
    max_connections_per_peer: int = Field(
        500,
        ge=0,
        description="connections to one address of one client, of IPv6 one network (/64); 0 for no "
        "limit",
    )
    handshake_seconds: float = Field(
        5.0,
        gt=0,
        description="seconds for a new connection to say what it is; then it is closed",
    )
    max_connection_idle_seconds: float = Field(
        900.0,
        ge=0,
        description="seconds without a call after which a connection is closed; its client opens "
        "another with its next call; 0 for never",
    )
    max_health_watches: int = Field(
        4_096, ge=0, description="calls of Health.Watch at once, of all clients; 0 for no limit"
    )
    max_connection_age_seconds: float = Field(
        0.0, ge=0, description="seconds after which a connection is renewed; 0 for never"
    )
    max_connection_grace_seconds: float = Field(
        30.0,
        ge=0,
        description="seconds for calls on a connection that is renewed; 0 for no limit",
    )
    keepalive_seconds: float = Field(
        60.0, ge=0, description="seconds of silence until a client is pinged; 0 for never"
    )
    keepalive_timeout_seconds: float = Field(
        20.0, gt=0, description="seconds for its answer before the connection ends"
    )
    min_client_ping_seconds: float = Field(
        0.5,  # balancers ping each second, to find a server that hangs
        ge=0,
        description="seconds between a client's pings; one that often sends more is disconnected",
    )

    @field_validator("address", "management_address")
    @classmethod
    def _host_and_port(cls, address: str, info: ValidationInfo) -> str:
        if address.startswith(UNIX) or (not address and info.field_name != "address"):
            return address
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(
                f"{address!r} is no address: give host:port, with a port of 0 to {MAX_PORT} "
                f"(0 takes a free one), or {UNIX}PATH"
            )
        return address

    @field_validator("http_address", "http_api")
    @classmethod
    def _host_and_port_or_off(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if address != OFF and not (host and port.isdecimal() and int(port) <= MAX_PORT):
            raise ValueError(
                f"{address!r} is no address: give host:port, with a port of 0 to {MAX_PORT} "
                f"(0 takes a free one), or {OFF}"
            )
        return address

    @field_validator(
        *("repository", "cache_folder", "api_keys", "tls_certificate", "tls_key", "tls_client_ca"),
        mode="before",
    )
    @classmethod
    def _named(cls, path: object) -> object:
        if isinstance(path, str) and not path.strip():
            raise ValueError(f"{path!r} names nothing: give a path, or leave it out")
        return path

    @field_validator("memory_limit")
    @classmethod
    def _enough(cls, limit: int) -> int:
        if 0 < limit < LEAST_MEMORY:
            raise ValueError(
                f"{limit} bytes are less than the process takes without a model: give at least "
                f"{LEAST_MEMORY >> 20}MiB, or 0 for no limit"
            )
        return limit

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if len(name) > MOST_NAME_CHARACTERS or not name.isprintable():
            raise ValueError(
                f"it cannot be shown or is too long: give at most {MOST_NAME_CHARACTERS} printable "
                "characters"
            )
        return name

    @field_validator("tracing_endpoint")
    @classmethod
    def _url(cls, endpoint: str) -> str:
        if endpoint not in {OFF, AUTO} and not endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"{endpoint!r} is no endpoint: give http://host:port, or https://host:port, "
                f"{AUTO} or {OFF}"
            )
        return endpoint
