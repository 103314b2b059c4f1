"""`bertd bench docs`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a document is stale.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Folder of the project. Default: the working directory.",
)
def docs(check: bool, root: Path) -> None:
    """Write every measured part of README.md and docs/ from benchmarks/results.

    A part stands between `<!-- measured: NAME -->` and `<!-- /measured -->`.
    """
    from bertd_bench.docs import RESULTS, writing

    try:
        found = writing.rewritten(root, root / RESULTS, writing.sections())
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{error.filename} is not there: run this at the root of a checkout, or give --root"
        ) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    stale = [path.relative_to(root) for path, (before, after) in found.items() if before != after]
    if check:
        if stale:
            raise click.ClickException(
                f"stale: {', '.join(map(str, stale))}; `bertd bench docs` writes them"
            )
        return
    for path, (_, after) in found.items():
        path.write_text(after, encoding="utf-8")
        name = path.relative_to(root)
        click.echo(f"{name} is {'rewritten' if name in stale else 'unchanged'}")
