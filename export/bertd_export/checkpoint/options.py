"""Options of the commands that read a checkpoint."""

import click

allow_pickle = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pytorch_model.bin where there are no safetensors. It is unpickled by a loader that "
    "makes tensors only and runs no code.",
)
