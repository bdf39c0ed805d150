"""Fixtures that more than one folder of tests uses."""

import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controller.study_view import Bounds, PointRole, PointState, PointView, StudyView, UnitView
from controller.tracking.outbox import OutboxItem

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmarks.postgresql import PostgresServer
    from search_spaces.space import SpaceConfig
    from workers.data import DataConfig
    from workers.model import ModelConfig
    from workers.protocol import WorkerSpec

TINY_ROWS = 200
TINY_WORDS = 120
TINY_TOKENS = 16
_TINY_SPEED: Mapping[str | None, float] = {"w8a8": 0.3, "w4": 0.6, "w4g128": 0.5}


@pytest.fixture(scope="session", autouse=True)
def own_datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the `datasets` library makes of test files out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        yield


class MemoryOutbox:
    """The outbox without a database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[OutboxItem] = []
        self._sent: set[int] = set()

    def put(self, kind: str, payload: Mapping[str, Any]) -> None:
        with self._lock:
            self._items.append(OutboxItem(id=len(self._items) + 1, kind=kind, payload=dict(payload)))

    def pending(self, limit: int) -> Sequence[OutboxItem]:
        with self._lock:
            return [item for item in self._items if item.id not in self._sent][:limit]

    def mark_sent(self, ids: Sequence[int]) -> None:
        with self._lock:
            self._sent.update(ids)

    def forget_what_was_sent(self) -> None:
        """As after a crash between sending and marking."""
        with self._lock:
            self._sent.clear()


@pytest.fixture
def outbox() -> MemoryOutbox:
    return MemoryOutbox()


def _point(trial: int | None, name: str, keep: int, number_format: str, **fields: Any) -> PointView:
    bits = {"fp32": 32, "w8a8": 8, "w4": 4}[number_format]
    units = {f"layer.{i}.{kind}": 12 for i in range(2) for kind in ("attention", "feed_forward")}
    policy = {
        unit: UnitView(keep=keep, groups=groups, format=number_format if keep else "fp32", weight_bits=bits)
        for unit, groups in units.items()
    }
    role = PointRole.BASELINE if trial is None else PointRole.TRIAL
    return PointView(trial=trial, name=name, role=role, policy=policy, **fields)


@pytest.fixture
def make_view() -> Callable[..., StudyView]:
    """Returns a maker of one small study; its argument is appended to every text that a user can choose."""

    def make(extra: str = "") -> StudyView:
        points = (
            _point(None, "dense", 12, "fp32", quality=0.92, latency_ms=20.0, size_bytes=90_000_000),
            _point(None, f"uniform w8a8{extra}", 12, "w8a8", quality=0.91, latency_ms=9.0, size_bytes=30_000_000),
            _point(0, f"trial 0{extra}", 8, "fp32", quality=0.88, latency_ms=15.0, size_bytes=70_000_000),
            _point(
                1,
                f"trial 1{extra}",
                9,
                "w8a8",
                quality=0.915,
                quality_low=0.90,
                quality_high=0.93,
                latency_ms=8.0,
                size_bytes=25_000_000,
                kl_to_dense=0.01,
                holdout_quality=0.913,
                on_front=True,
            ),
            _point(2, "trial 2", 3, "w4", quality=0.85, latency_ms=5.0, size_bytes=9_000_000, on_front=True),
            _point(3, "trial 3", 0, "fp32", quality=0.5, latency_ms=1.0, size_bytes=1_000_000, feasible=False),
            PointView(
                trial=4,
                name="trial 4",
                role=PointRole.TRIAL,
                state=PointState.FAILED,
                feasible=False,
                failure=f"out of memory{extra}",
            ),
        )
        return StudyView(
            study="digits-1",
            title=f"Digits{extra}",
            metric=f"accuracy{extra}",
            objectives=("quality", "latency_ms"),
            dense_quality=0.92,
            dense_latency_ms=20.0,
            dense_size_bytes=90_000_000,
            bounds=Bounds(min_quality=0.8),
            points=points,
            hypervolume_by_trial=(0.1, 0.4, 0.5, 0.5),
        )

    return make


@pytest.fixture(scope="session")
def stored_study(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a database with the study "simulated": scores by formula, a failed trial, policies out of bounds."""
    from controller.dispatch import search_inline
    from controller.job import Constraints, parse_job
    from controller.storage import Repository, open_database
    from controller.study import Study
    from controller.study_config import StudyConfig
    from workers.simulated import Fault, SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

    storage = f"sqlite:///{tmp_path_factory.mktemp('stored')}/paretrim.db"
    space = simulated_space(6)
    dense = SimulatedCosts(space)(space.dense_policy())
    constraints = Constraints(max_quality_drop=0.3, max_latency_ms=0.9 * dense.latency_ms)
    job = parse_job(
        {
            "name": "simulated",
            "model": {"id": "org/model"},
            "data": {"source": "org/data"},
            "constraints": constraints.model_dump(exclude_none=True),
            "storage": storage,
        }
    )
    config = StudyConfig(
        name=job.name,
        space=space,
        constraints=constraints,
        evaluation_digest="e",
        trials=40,
        sampler="frontier",
        job=job.public_dict(),
    )
    database = open_database(storage)
    study = Study.open(config, Repository(database), SimulatedCosts(space))
    search_inline(study, SimulatedWorker(SimulatedConfig(space=space, noise=0.02, faults={62: Fault.RAISE})))
    database.dispose()
    return storage


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mlflow_server(free_port: int, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Returns a starter of a real server on loopback, ended with the test; its arguments go to `mlflow server`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> str:
        folder = tmp_path / "server"
        folder.mkdir()
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(free_port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", str(folder / "artifacts"), *options]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (folder / "log").open("wb") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/health", timeout=2):
                    return f"http://127.0.0.1:{free_port}"
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"mlflow server did not start: {(folder / 'log').read_text()[-2000:]}")

    yield start
    for server in started:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


@pytest.fixture(scope="session")
def postgresql() -> Iterator["PostgresServer"]:
    """A real PostgreSQL on loopback. Without its programs tests skip, unless PARETRIM_TEST_POSTGRESQL wants them."""
    from benchmarks.postgresql import PostgresServer, find_binaries

    if find_binaries() is None and not os.environ.get("PARETRIM_TEST_POSTGRESQL"):
        pytest.skip("PostgreSQL is not installed (package postgresql)")
    # Not pytest's folder: only the user who runs the tests may look into that.
    folder = Path(tempfile.mkdtemp(prefix="paretrim-postgresql-"))
    server = PostgresServer(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/paretrim.db"
    server: PostgresServer = request.getfixturevalue("postgresql")
    return server.create_database(f"test_{uuid.uuid4().hex[:12]}")


@dataclass(frozen=True)
class TinyJob:
    """A random model of a few kilobytes, data labelled by the model itself, and a table of invented times."""

    model: "ModelConfig"
    data: "DataConfig"
    space: "SpaceConfig"
    table: Path
    sequence_length: int | None

    def spec(self, cache_dir: Path, **changes: Any) -> "WorkerSpec":
        from workers.protocol import WorkerSpec
        from workers.targets import TargetConfig

        target = TargetConfig(table=self.table, sequence_length=self.sequence_length, batch=changes.pop("batch", 1))
        fields: dict[str, Any] = {"model": self.model, "data": self.data, "space": self.space, **changes}
        return WorkerSpec(target=target, cache_dir=cache_dir, **fields)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> TinyJob:
    """BERT with 2 layers of 4 heads and 64 channels, 2 classes, a vocabulary of words."""
    import torch
    import transformers

    from workers.data import Columns, DataConfig
    from workers.model import ModelConfig

    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = _word_tokenizer()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.15,
        num_labels=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    generator = random.Random(0)
    words = [[f"w{generator.randrange(TINY_WORDS)}" for _ in range(generator.randint(3, 12))] for _ in range(TINY_ROWS)]
    texts = [" ".join(row) for row in words]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    labels = _balanced_labels(model, lambda: model(**inputs).logits)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    source = folder / "data.tsv"
    rows = [f"{text}\t{label}" for text, label in zip(texts, labels, strict=True)]
    source.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    data = DataConfig(
        source=str(source), columns=Columns(input="sentence"), calibration=48, search=64, holdout=64, max_length=32
    )
    return _tiny_job(folder, ModelConfig(id=str(folder / "model")), data, TINY_TOKENS)


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> TinyJob:
    """ViT with 2 layers of 4 heads and 64 channels on 16 patches, 10 classes."""
    import torch
    import transformers

    from workers.data import Columns, DataConfig
    from workers.model import ModelConfig

    folder = tmp_path_factory.mktemp("tiny-vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=8,
        patch_size=2,
        num_channels=1,
        initializer_range=0.15,
        num_labels=10,
    )
    model = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    pixels = torch.randint(256, (TINY_ROWS, 8, 8), generator=torch.Generator().manual_seed(0))
    normalised = (pixels[:, None].float() / 255 - 0.5) / 0.5
    labels = _balanced_labels(model, lambda: model(pixel_values=normalised).logits)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    source = folder / "data.jsonl"
    rows = [json.dumps({"image": image.tolist(), "label": n}) for image, n in zip(pixels, labels, strict=True)]
    source.write_text("\n".join(rows) + "\n")
    data = DataConfig(source=str(source), columns=Columns(input="image"), calibration=48, search=64, holdout=64)
    return _tiny_job(folder, ModelConfig(id=str(folder / "model"), task="image-classification"), data, None)


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory: pytest.TempPathFactory, tiny_text: TinyJob) -> TinyJob:
    """BERT without a head, of the size of `tiny_text`'s, with mean pooling and normalisation; pairs of sentences."""
    from tiny_sentences import write_encoder, write_pairs

    from workers.data import Columns, DataConfig
    from workers.model import ModelConfig

    folder = tmp_path_factory.mktemp("tiny-encoder")
    write_encoder(folder / "model", Path(tiny_text.model.id))
    source = folder / "pairs.tsv"
    write_pairs(source, folder / "model", count=TINY_ROWS)
    columns = Columns(input="first", pair="second", label="score")
    data = DataConfig(source=str(source), columns=columns, calibration=48, search=64, holdout=64, max_length=32)
    model = ModelConfig(id=str(folder / "model"), task="sentence-similarity")
    return _tiny_job(folder, model, data, TINY_TOKENS)


def _word_tokenizer() -> Any:
    import tokenizers
    import transformers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: n for n, word in enumerate([*special, *(f"w{n}" for n in range(TINY_WORDS))])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _balanced_labels(model: "nn.Module", logits: "Callable[[], Tensor]") -> list[int]:
    """Centre the classifier, as a random one gives all examples to one class, and return what it then says."""
    import torch

    with torch.inference_mode():
        centre = logits().mean(0)
    with torch.no_grad():
        model.classifier.bias.copy_(-centre.clone())
        model.classifier.weight.mul_(4)
        model.classifier.bias.mul_(4)
        return [int(n) for n in logits().argmax(-1)]


def _tiny_job(folder: Path, model: "ModelConfig", data: "DataConfig", sequence_length: int | None) -> TinyJob:
    from evaluators.latency.table import Entry, LatencyTable, Provenance
    from search_spaces.space import SpaceConfig
    from workers.model import load_structure
    from workers.profile import required_operators
    from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu
    from workers.trial import space_of, workload_of

    job = TinyJob(model, data, SpaceConfig(), folder / "table.json", sequence_length)
    spec, structure = job.spec(folder), load_structure(model)
    entries = [
        Entry.of(
            operator,
            (1e-3 + 1e-7 * math.prod(dict(operator.axes).values())) * _TINY_SPEED.get(operator.format, 1),
            spread_ms=1e-4,
            repeats=10,
            working_set_bytes=0,
        )
        for operator in required_operators(space_of(spec, structure), workload_of(spec.target, structure))
    ]
    provenance = Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1)
    LatencyTable(
        target=spec.target.name,
        fingerprint=OnnxRuntimeCpu(1).fingerprint(),
        provenance=provenance,
        entries=tuple(entries),
    ).save(job.table)
    return job
