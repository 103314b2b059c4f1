"""The comparison: every contestant on every case, after proof that all compute the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from bertd import bundle
from bertd_server import cpu
from tokenizers import Tokenizer

from bertd_bench import coldstart, contestants, report, texts
from bertd_bench.harness import machine, timing


def compare(
    model: str | None, threads: int | None, rounds: int, progress: Callable[[str], None]
) -> report.Report:
    """Compare PyTorch eager, the in-process engine and the server over gRPC.

    Raises:
        contestants.BenchError: the comparison cannot be made, or the vectors differ.
    """
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)  # before our own load shows in it
    schedule = timing.Schedule(rounds)
    rng = random.Random(0)  # noqa: S311 - the order of turns is no secret
    cases = []
    with contestants.open_subject(model) as subject:
        tokenizer = Tokenizer.from_file(str(subject.bundle / bundle.TOKENIZER_NAME))
        padded = contestants.eager(subject.checkpoint, threads)
        engine = contestants.in_process(subject.bundle, threads)
        with contestants.over_grpc(subject.bundle, threads) as over_grpc:
            for case in texts.build_cases(tokenizer):
                progress(case.name)
                field = {contestants.EAGER: padded}
                if len(case.texts) > 1:
                    field[contestants.EAGER_ONE_BY_ONE] = contestants.one_by_one(padded)
                field |= {contestants.ENGINE: engine, contestants.GRPC: over_grpc}
                differences = contestants.check_agreement(field, case.texts)
                calls = {name: partial(embed, case.texts) for name, embed in field.items()}
                samples = timing.measure(calls, schedule, rng)
                cases.append(
                    report.case_result(
                        case.name,
                        case.tokens,
                        samples,
                        baseline=contestants.EAGER,
                        differences=differences,
                    )
                )
        name = bundle.read_manifest(subject.bundle).name
    return report.Report(
        benchmark="compare",
        model=name if model is None else model,
        threads=threads,
        baseline=contestants.EAGER,
        machine=here,
        cases=cases,
    )


def cold_start(model: str | None, threads: int | None, runs: int) -> report.Report:
    """Compare the time from exec to the first right answer.

    Raises:
        contestants.BenchError: a start failed, or its answer is wrong.
    """
    usable = cpu.usable_threads()
    threads = threads or usable
    here = machine.describe(usable)
    with contestants.open_subject(model) as subject:
        tokenizer = Tokenizer.from_file(str(subject.bundle / bundle.TOKENIZER_NAME))
        samples = coldstart.measure_starts(subject, threads, runs)
        name = bundle.read_manifest(subject.bundle).name
    return report.Report(
        benchmark="cold-start",
        model=name if model is None else model,
        threads=threads,
        baseline=coldstart.SCRIPT,
        machine=here,
        cases=[
            report.case_result(
                "exec to first answer",
                len(tokenizer.encode(coldstart.TEXT)),
                samples,
                baseline=coldstart.SCRIPT,
            )
        ],
    )
