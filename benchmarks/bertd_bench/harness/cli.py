"""`bertd bench selftest`."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option("--seconds", type=click.FloatRange(min=2), default=10, show_default=True)
def selftest(seconds: float) -> None:
    """Measure systems of known delay in real time; fails if a number is wrong by over 2 %.

    SECONDS are of each of four loads.
    """
    from bertd_bench.harness import selftest as test

    findings = test.interleaved() + asyncio.run(test.open_loop(seconds))
    width = max(len(f"{each.system}, {each.what}") for each in findings)
    for each in findings:
        click.echo(
            f"{f'{each.system}, {each.what}':{width}}  truth {each.truth:9.4f}  "
            f"measured {each.measured:9.4f}  {each.error:6.2%}  {'' if each.right else 'WRONG'}"
        )
    wrong = sum(not each.right for each in findings)
    if wrong:
        raise click.ClickException(
            f"{wrong} of {len(findings)} numbers are wrong by more than {test.TOLERANCE:.0%}: "
            "is the machine busy? Sleeps that end late are the usual reason"
        )
    click.echo(f"all {len(findings)} numbers are right within {test.TOLERANCE:.0%}")


COMMANDS = (selftest,)
