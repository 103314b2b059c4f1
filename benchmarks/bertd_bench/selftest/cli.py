"""`bertd bench selftest`."""

from __future__ import annotations

import asyncio

import click

from bertd_bench import options


@click.command()
@options.seconds(10, 2, "Of each of four loads.")
def selftest(seconds: float) -> None:
    """Measure systems of known delay in real time; fails if a number is wrong by over 2 %."""
    from bertd_bench.selftest import known

    findings = known.interleaved() + asyncio.run(known.open_loop(seconds))
    width = max(len(f"{each.system}, {each.what}") for each in findings)
    for each in findings:
        click.echo(
            f"{f'{each.system}, {each.what}':{width}}  truth {each.truth:9.4f}  "
            f"measured {each.measured:9.4f}  {each.error:6.2%}  {'' if each.right else 'WRONG'}"
        )
    wrong = sum(not each.right for each in findings)
    if wrong:
        raise click.ClickException(
            f"{wrong} of {len(findings)} numbers are wrong by more than {known.TOLERANCE:.0%}: "
            "is the machine busy? Sleeps that end late are the usual reason"
        )
    click.echo(f"all {len(findings)} numbers are right within {known.TOLERANCE:.0%}")
