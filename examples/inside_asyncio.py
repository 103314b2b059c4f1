"""Models in an asyncio program, without a server: two of them on the same lanes.

python examples/inside_asyncio.py BUNDLE [BUNDLE]
"""

from __future__ import annotations

import asyncio
import sys

import bertd_server
from bertd_server.inside import Overloaded, RequestError


async def main(folders: list[str]) -> None:
    """Load bundles for feature-extraction, and ask them."""
    async with bertd_server.open_models(lanes=2, max_queue_seconds=5.0) as models:
        for number, folder in enumerate(folders):
            model = await models.load(folder, name=f"model-{number}")
            print(f"{model.name}: {model.manifest.task}, {model.manifest.dimensions} dimensions")

        # Calls that are made at once go into the same batches.
        texts = ["a fine film", "the cat sat on the mat"]
        opened = [models.find(f"model-{number}") for number in range(len(folders))]
        answers = await asyncio.gather(*(model.embed(texts, timeout=30) for model in opened))
        for model, vectors in zip(opened, answers, strict=True):
            print(f"{model.name}: {vectors.shape} {vectors.dtype}")

        # Each input has an outcome of its own.
        for reply in await opened[0].embed_each(["a text", " "], priority="bulk"):
            if isinstance(reply.outcome, RequestError):
                print(f"refused: {reply.outcome}")
            else:
                print(f"answered: {reply.tokens} tokens")

        # What is too much is refused before it waits, and said when to come back.
        try:
            await opened[0].embed(texts)
        except Overloaded as error:
            await asyncio.sleep(error.retry_after_seconds)
            await opened[0].embed(texts)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
