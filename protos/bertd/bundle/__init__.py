"""What export and server both know of a bundle: its manifest, and what its graph takes and gives.

The manifest's names are these; how batches are arranged, positions are numbered and logits become
answers is in the modules beside it.
"""

from bertd.bundle.manifest import (
    CU_SEQLENS as CU_SEQLENS,
)
from bertd.bundle.manifest import (
    END_LOGITS as END_LOGITS,
)
from bertd.bundle.manifest import (
    FORMAT_VERSION as FORMAT_VERSION,
)
from bertd.bundle.manifest import (
    GRAPH_NAME as GRAPH_NAME,
)
from bertd.bundle.manifest import (
    INPUT_IDS as INPUT_IDS,
)
from bertd.bundle.manifest import (
    LOGITS as LOGITS,
)
from bertd.bundle.manifest import (
    LONG_RUNS as LONG_RUNS,
)
from bertd.bundle.manifest import (
    MANIFEST_NAME as MANIFEST_NAME,
)
from bertd.bundle.manifest import (
    MASK_POSITIONS as MASK_POSITIONS,
)
from bertd.bundle.manifest import (
    MAX_MANIFEST_BYTES as MAX_MANIFEST_BYTES,
)
from bertd.bundle.manifest import (
    POOLER_OUTPUT as POOLER_OUTPUT,
)
from bertd.bundle.manifest import (
    POSITION_IDS as POSITION_IDS,
)
from bertd.bundle.manifest import (
    SENTENCE_EMBEDDING as SENTENCE_EMBEDDING,
)
from bertd.bundle.manifest import (
    SHORT_RUNS as SHORT_RUNS,
)
from bertd.bundle.manifest import (
    SPARSE_EMBEDDING as SPARSE_EMBEDDING,
)
from bertd.bundle.manifest import (
    START_LOGITS as START_LOGITS,
)
from bertd.bundle.manifest import (
    TOKEN_EMBEDDINGS as TOKEN_EMBEDDINGS,
)
from bertd.bundle.manifest import (
    TOKEN_TYPE_IDS as TOKEN_TYPE_IDS,
)
from bertd.bundle.manifest import (
    TOKENIZER_NAME as TOKENIZER_NAME,
)
from bertd.bundle.manifest import (
    WEIGHTS_NAME as WEIGHTS_NAME,
)
from bertd.bundle.manifest import (
    BundleError as BundleError,
)
from bertd.bundle.manifest import (
    Evaluation as Evaluation,
)
from bertd.bundle.manifest import (
    FileRecord as FileRecord,
)
from bertd.bundle.manifest import (
    FirstAxis as FirstAxis,
)
from bertd.bundle.manifest import (
    HalfPrecision as HalfPrecision,
)
from bertd.bundle.manifest import (
    Manifest as Manifest,
)
from bertd.bundle.manifest import (
    Parity as Parity,
)
from bertd.bundle.manifest import (
    Pooling as Pooling,
)
from bertd.bundle.manifest import (
    Precision as Precision,
)
from bertd.bundle.manifest import (
    ProblemType as ProblemType,
)
from bertd.bundle.manifest import (
    Quantization as Quantization,
)
from bertd.bundle.manifest import (
    RankingActivation as RankingActivation,
)
from bertd.bundle.manifest import (
    Source as Source,
)
from bertd.bundle.manifest import (
    Task as Task,
)
from bertd.bundle.manifest import (
    file_problem as file_problem,
)
from bertd.bundle.manifest import (
    file_record as file_record,
)
from bertd.bundle.manifest import (
    manifest_bytes as manifest_bytes,
)
from bertd.bundle.manifest import (
    read_manifest as read_manifest,
)
from bertd.bundle.manifest import (
    verify_files as verify_files,
)
from bertd.bundle.manifest import (
    write_manifest as write_manifest,
)
