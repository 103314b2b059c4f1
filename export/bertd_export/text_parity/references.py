"""What the reference library answers to raw texts, read from the same folder by itself.

::

    sentence-transformers folder ──> SentenceTransformer.encode, SparseEncoder.encode
    text-ranking, cross-encoders ──> CrossEncoder.predict
    classification, tags, masks ───> transformers' pipelines
    else ──────────────────────────> AutoTokenizer and the model

It gets one text at a time, so that padding and its rounding play no part.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bertd.bundle.arrays import Float32Array

from bertd_export.checkpoint.loading import Checkpoint
from bertd_export.errors import ExportError
from bertd_export.graph.trace import quiet
from bertd_export.text_parity import cases
from bertd_export.text_parity.cases import RawText

Answer = Mapping[str, Float32Array]
"""Values by what they belong to: an embedding, the scores of labels, the score of each span."""

HYPOTHESES = ("travel", "animals", "money")
_TEMPLATE = "This example is {}."


@dataclass(frozen=True)
class Reference:
    """Answers of the reference library.

    Attributes:
        called: what was called, such as `CrossEncoder.predict`.
        packages: whose versions matter.
        texts: what was asked, in order.
        answers: one for each.
    """

    called: str
    packages: tuple[str, ...]
    texts: list[RawText]
    answers: list[Answer]


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def ask(checkpoint: Checkpoint) -> Reference:
    """Have the library that a user would compare with answer.

    Args:
        checkpoint: its folder is what sentence-transformers opens; pipelines get its stock model
            and the tokenizer as transformers loads it.

    Raises:
        ExportError: the library cannot open the folder, or cannot answer.
    """
    asked = _REFERENCES[checkpoint.task]
    with quiet(), torch.inference_mode():
        checkpoint.model.set_attn_implementation("eager")
        try:
            return asked(checkpoint)
        except ExportError:
            raise
        except Exception as error:  # a library's own, of any type
            if isinstance(error, KeyError) and error.args[0] in _INPUTS:
                raise ExportError(
                    f"{checkpoint.folder} cannot be compared with its reference library, which "
                    f"takes {error} from the tokenizer: name it in model_input_names of "
                    f"tokenizer_config.json, or leave the key out"
                ) from error
            raise ExportError(
                f"{checkpoint.folder} cannot be compared with its reference library, which fails: "
                f"{type(error).__name__}: {error}. Texts had up to {checkpoint.max_tokens} tokens, "
                f"the least of max_seq_length, model_max_length and max_position_embeddings: see "
                f"whether these are as the model was trained"
            ) from error


@contextmanager
def _opened(kind: str, checkpoint: Checkpoint) -> Iterator[Any]:
    """An object of sentence-transformers, opened from the folder as a user would."""
    import sentence_transformers  # noqa: PLC0415 - takes a second, and half of the exports need none

    options: dict[str, Any] = {"dtype": torch.float32}
    if not checkpoint.allow_pickle:
        options["use_safetensors"] = True
    with _merged(checkpoint) as folder:
        yield getattr(sentence_transformers, kind)(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs=options,
            config_kwargs={"return_dict": True},  # CrossEncoder fails on a folder that says false
        )


@contextmanager
def _merged(checkpoint: Checkpoint) -> Iterator[Path]:
    """The folder; of one with an adapter a copy with the merged weights.

    transformers would look for the adapter's base by its name, and passes over DoRA's magnitudes.
    """
    found = next(checkpoint.folder.rglob("adapter_config.json"), None)
    if found is None:
        yield checkpoint.folder
        return
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "merged"
        shutil.copytree(checkpoint.folder, copy, ignore=shutil.ignore_patterns("adapter_*"))
        checkpoint.model.save_pretrained(copy / found.parent.relative_to(checkpoint.folder))
        yield copy


def _sentence_transformers(called: str, texts: list[RawText], answers: list[Answer]) -> Reference:
    packages = ("sentence-transformers", "transformers", "tokenizers", "torch")
    return Reference(called, packages, texts, answers)


def _transformers(
    called: str, texts: Iterable[RawText], answer: Callable[[RawText], Answer]
) -> Reference:
    texts = list(texts)
    packages = ("transformers", "tokenizers", "torch")
    return Reference(called, packages, texts, [answer(text) for text in texts])


def _embeddings(checkpoint: Checkpoint) -> Reference:
    texts = cases.single(checkpoint)
    if not checkpoint.sentence_folder:
        return _transformers(
            "AutoTokenizer, the model and the mean of its rows",
            texts,
            lambda one: {"embedding": _outputs(checkpoint, one).last_hidden_state[0].mean(0)},
        )
    with _opened("SentenceTransformer", checkpoint) as model:
        answers: list[Answer] = [
            {"embedding": model.encode(one.text, **_prompt(one))} for one in texts
        ]
    return _sentence_transformers("SentenceTransformer.encode", texts, answers)


def _prompt(one: RawText) -> dict[str, str]:
    """The prompt as sentence-transformers is asked for it."""
    if one.prompt_name is None:
        return {}
    return {"prompt_name": one.prompt_name} if one.prompt_name else {"prompt": ""}


def _scores(checkpoint: Checkpoint) -> Reference:
    texts = cases.pairs(checkpoint)
    with _opened("CrossEncoder", checkpoint) as model:
        answers: list[Answer] = [
            {"score": np.atleast_1d(model.predict((one.text, one.pair), **_prompt(one)))}
            for one in texts
        ]
    return _sentence_transformers("CrossEncoder.predict", texts, answers)


def _inputs(checkpoint: Checkpoint, one: RawText) -> Any:
    """What transformers' tokenizer gives of a text or pair; of a question the context is cut."""
    cut = "only_second" if checkpoint.task == "question-answering" else "longest_first"
    return checkpoint.stock_tokenizer(
        one.text, one.pair, truncation=cut, max_length=checkpoint.max_tokens, return_tensors="pt"
    )


def _outputs(checkpoint: Checkpoint, one: RawText) -> Any:
    """What the stock model makes of what its own tokenizer gives."""
    return checkpoint.model(**_inputs(checkpoint, one))


def token_ids(checkpoint: Checkpoint, one: RawText) -> list[int]:
    """The ids that transformers' tokenizer gives of a text or pair, cut as the model reads it."""
    ids: list[int] = _inputs(checkpoint, one)["input_ids"][0].tolist()
    return ids


def _whole(
    checkpoint: Checkpoint, texts: Iterable[RawText], pair: str | None = None
) -> list[RawText]:
    """The texts that a model reads whole, beside the second text of a pair: pipelines cut none."""
    return [
        one
        for one in texts
        if len(checkpoint.stock_tokenizer(one.text, pair).input_ids) <= checkpoint.max_tokens
    ]


def _pipeline(task: str, checkpoint: Checkpoint) -> Any:
    from transformers import pipeline  # noqa: PLC0415 - an embedding needs none

    made: Any = pipeline
    return made(task, model=checkpoint.model, tokenizer=checkpoint.stock_tokenizer, device="cpu")


def _by_label(found: list[dict[str, Any]]) -> Answer:
    return {one["label"]: np.array([one["score"]], np.float32) for one in found}


def _cross_encoder_classes(checkpoint: Checkpoint) -> Reference:
    texts = [one for one in cases.pairs(checkpoint) if one.prompt_name is None]
    labels = checkpoint.head.labels
    answers: list[Answer] = []
    with _opened("CrossEncoder", checkpoint) as model:
        for one in texts:
            scores = np.reshape(model.predict((one.text, one.pair)), (-1, 1))
            answers.append(dict(zip(labels, scores, strict=True)))
    return _sentence_transformers("CrossEncoder.predict", texts, answers)


def _classes(checkpoint: Checkpoint) -> Reference:
    if checkpoint.head.activation is not None:  # a cross-encoder, whose scores are CrossEncoder's
        return _cross_encoder_classes(checkpoint)
    pipe = _pipeline("text-classification", checkpoint)

    def answer(one: RawText) -> Answer:
        texts = {"text": one.text, **({} if one.pair is None else {"text_pair": one.pair})}
        found = pipe(texts, top_k=None, truncation=True, max_length=checkpoint.max_tokens)
        return _by_label(found[0] if isinstance(found[0], list) else found)

    texts = [*cases.single(checkpoint), *cases.pairs(checkpoint)]
    return _transformers('pipeline("text-classification")', texts, answer)


def compares_alone(entailment: int | None, contradiction: int | None, labels: int) -> bool:
    """Whether transformers' pipeline weighs entailment against the label that contradicts.

    Where `multi_label` is asked for, it takes the first label, or the last where entailment is the
    first, whatever their names say; a bundle goes by the names.
    """
    return contradiction == (labels - 1 if entailment == 0 else 0)


def _zero_shot(checkpoint: Checkpoint) -> Reference:
    head = checkpoint.head
    # The pipeline looks for entailment there, and fails where config.json names labels alone.
    checkpoint.model.config.label2id = {
        "entailment" if number == head.entailment_label else f"other {number}": number
        for number in range(len(head.labels))
    }
    pipe = _pipeline("zero-shot-classification", checkpoint)
    alone = compares_alone(head.entailment_label, head.contradiction_label, len(head.labels))

    def answer(one: RawText) -> Answer:
        scores = {}
        for multi in (False, True) if alone else (False,):
            found = pipe(
                one.text,
                list(HYPOTHESES),
                multi_label=multi,
                hypothesis_template=_TEMPLATE,
            )
            for label, score in zip(found["labels"], found["scores"], strict=True):
                scores[f"{label}{' alone' * multi}"] = np.array([score], np.float32)
        return scores

    longest = _TEMPLATE.format(max(HYPOTHESES, key=len))
    texts = _whole(checkpoint, cases.single(checkpoint), longest)[:4]  # each is read six times
    return _transformers('pipeline("zero-shot-classification")', texts, answer)


def _tags(checkpoint: Checkpoint) -> Reference:
    pipe = _pipeline("token-classification", checkpoint)

    def answer(one: RawText) -> Answer:
        return {
            f"{found['entity']} {found['start']}-{found['end']}": np.array(
                [found["score"]], np.float32
            )
            for found in pipe(one.text, aggregation_strategy="none")
        }

    texts = _whole(checkpoint, cases.single(checkpoint))
    return _transformers('pipeline("token-classification")', texts, answer)


def _sparse(checkpoint: Checkpoint) -> Reference:
    texts = cases.single(checkpoint)
    with _opened("SparseEncoder", checkpoint) as model:
        answers: list[Answer] = [
            {"weights": model.encode(one.text, **_prompt(one)).to_dense().numpy()} for one in texts
        ]
    return _sentence_transformers("SparseEncoder.encode", texts, answers)


def _masks(checkpoint: Checkpoint) -> Reference:
    if checkpoint.sparse is not None:
        return _sparse(checkpoint)
    pipe = _pipeline("fill-mask", checkpoint)
    mask = checkpoint.stock_tokenizer.mask_token

    def answer(one: RawText) -> Answer:
        found = pipe(one.text, top_k=CANDIDATES)
        return {str(each["token"]): np.array([each["score"]], np.float32) for each in found}

    given = [one.text for one in cases.single(checkpoint)]
    halves = [(text[: len(text) // 2].rstrip(), text[len(text) // 2 :]) for text in given]
    texts = _whole(checkpoint, [RawText(f"{before} {mask} {after}") for before, after in halves])
    return _transformers('pipeline("fill-mask")', texts, answer)


def _spans(checkpoint: Checkpoint) -> Reference:
    def answer(one: RawText) -> Answer:
        encoded = _inputs(checkpoint, one)
        outputs = checkpoint.model(**encoded)
        return _best_span(encoded, outputs.start_logits[0], outputs.end_logits[0])

    return _transformers("AutoTokenizer and the model", cases.pairs(checkpoint), answer)


def _best_span(encoded: Any, start: torch.Tensor, end: torch.Tensor) -> Answer:
    """The best stretch of the second text, and its share of all of up to 30 tokens.

    Several tokens may stand for one character: of equal stretches the best counts.
    """
    own = [place for place, part in enumerate(encoded.sequence_ids(0)) if part == 1]
    stretches = {place: encoded.token_to_chars(0, place) for place in own}
    scores: dict[tuple[int, int], float] = {}
    for a in own:
        for b in own:
            if a <= b < a + LONGEST_ANSWER:
                stretch = stretches[a].start, stretches[b].end
                scores[stretch] = max(scores.get(stretch, -np.inf), float(start[a] + end[b]))
    first, last = max(scores, key=scores.__getitem__)
    share = torch.softmax(torch.tensor(list(scores.values())), 0).max()
    return {f"{first}-{last}": np.array([float(share)], np.float32)}


CANDIDATES = 5
LONGEST_ANSWER = 30

_REFERENCES: dict[str, Callable[[Checkpoint], Reference]] = {
    "feature-extraction": _embeddings,
    "text-ranking": _scores,
    "text-classification": _classes,
    "zero-shot-classification": _zero_shot,
    "token-classification": _tags,
    "fill-mask": _masks,
    "question-answering": _spans,
}
