"""Open the best artifact of a model that runs here, and say why the better ones are not it."""

import dataclasses
import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import (
    SELFTEST_AGREEMENT,
    SELFTEST_AGREEMENTS,
    Artifact,
    Manifest,
)
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.bundle.usage import describe_usage
from fastseg_runtime.engines.backend import (
    Backend,
    BuildRefusedError,
    BuiltBackend,
    ModelSource,
    load_backend,
)
from fastseg_runtime.engines.engine import find_engine
from fastseg_runtime.engines.frame_runner import FrameRunner
from fastseg_runtime.engines.model_file import ModelFile, open_model
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, OwnFile
from fastseg_runtime.engines.selection import (
    Availability,
    Candidate,
    Rejection,
    cpu_count,
    is_at_least,
    minimum_version,
    probe,
    processor_facts,
    rank,
    this_processor,
)
from fastseg_runtime.engines.selftest import REVISION, PassedTests, SelfTest, run_selftest

log = logging.getLogger("fastseg_runtime")


class NoBackendError(RuntimeError):
    """Nothing in the model runs on this device.

    Attributes:
        rejected: everything that was considered, and why it was not used.
    """

    def __init__(self, message: str, rejected: Sequence[Rejection]) -> None:
        super().__init__(message)
        self.rejected = tuple(rejected)


class SelfTestError(RuntimeError):
    """An engine gives other class maps than PyTorch did where the model was exported."""


@dataclass(frozen=True)
class Wish:
    """What the caller asks for; RealtimeSegmentation describes each."""

    backend: str = "auto"
    device: str = "auto"
    threads: Optional[int] = None
    build: str = "auto"
    target: Optional[str] = None
    selftest: bool = True
    engines: int = 1
    own_file: OwnFile = NOTHING_SAID
    trust: bool = True  # in an engine built here that passed before, perhaps of another bundle


@dataclass(frozen=True)
class SessionInfo:
    """What runs, and what was rejected before it."""

    backend: str
    version: str  # of the engine's library
    target: str
    precision: str
    device: str
    selftest_agreement: Optional[float]  # in the scene nearest to its limit; None: none was tried
    rejected: Tuple[Rejection, ...]


@dataclass(frozen=True)
class Opened:
    """A model ready to run."""

    manifest: Manifest
    info: SessionInfo
    runners: Tuple[FrameRunner, ...]  # one an engine
    close: Callable[[], None]


def open_best(path: Union[str, Path], wish: Wish) -> Opened:
    """Try the candidates of a model, best first, and return the first that works.

    Raises:
        FileNotFoundError, ValueError: the file or the wish makes no sense.
        BundleError: an artifact is damaged, or names files outside of itself; no other is tried.
        MemoryError: this machine has not enough memory.
        BuildRefusedError: the best needs its engine built first, and wish.build is "never".
        NoBackendError: nothing in it runs here; the message says why, and what would help.
    """
    threads, cpus = wish.threads, cpu_count()
    if threads is None and wish.engines > 1:
        threads = max(1, cpus // wish.engines)  # each gets its share of the CPUs
    if threads is not None and threads > cpus:
        # Engines make each of them at once, and never come to the end of 100000.
        log.warning("threads is %d; taking %d, one for each CPU here", threads, cpus)
        threads = cpus
    wish = dataclasses.replace(wish, threads=threads)
    model = open_model(path, wish.own_file)
    try:
        return _first_that_works(model, wish)
    except BaseException:
        model.close()
        raise


def candidates(model: ModelFile, wish: Wish) -> List[Candidate]:
    """Return what would be tried, best first.

    Raises:
        ValueError: no such backend or target.
    """
    if wish.backend != "auto":
        find_engine(wish.backend)
    targets = [artifact.target for artifact in model.manifest.artifacts]
    if wish.target not in (None, *targets):
        raise ValueError(f"no target {wish.target!r} in {model.path}; it has {', '.join(targets)}")
    return rank(model.manifest, this_processor(), wish.backend, wish.target, wish.device)


def reject_unavailable(candidate: Candidate, library: Availability) -> Optional[Rejection]:
    """Return why a candidate cannot be opened with the libraries here; None if it can."""
    target, backend = candidate.artifact.target, candidate.backend
    if not library.usable:
        return Rejection(target, backend, library.reason, library.fix, library.broken)
    minimum = minimum_version(candidate.artifact, backend, library.module)
    if not library.version or is_at_least(library.version, minimum):
        return None
    name = library.module or backend
    reason = f"needs {name} {minimum} or newer, here is {library.version}"
    return Rejection(target, backend, reason, library.fix)


def explain(model: ModelFile, rejected: Sequence[Rejection]) -> str:
    """Return why nothing in a model runs, what it has, and what would help."""
    lines = [f"nothing in {model.path} runs on this device:"]
    targets: Dict[str, List[str]] = {}
    for item in rejected:
        targets.setdefault(f"with {item.backend}: {item.reason}", []).append(item.target)
    lines += [f"  {', '.join(names)} {reason}" for reason, names in targets.items()]
    if not rejected:
        held = ", ".join(f"{a.target} ({a.format})" for a in model.manifest.artifacts)
        lines.append(
            f"  it holds {held or 'no artifact'}, and no backend that was asked for opens it"
        )
    fixes = dict.fromkeys(item.fix for item in rejected if item.fix)
    lines += [f"to change that: {fix}" for fix in fixes]
    lines.append("or export another target: fastseg-export --list-targets")
    return "\n".join(lines)


def _first_that_works(model: ModelFile, wish: Wish) -> Opened:
    rejected: List[Rejection] = []
    for candidate in candidates(model, wish):
        library = probe(candidate.backend)
        rejection = reject_unavailable(candidate, library)
        if rejection is None:
            try:
                return _open(model, candidate, library, wish, rejected)
            except (BuildRefusedError, BundleError, MemoryError):
                raise  # nothing that another artifact could make good
            except Exception as error:  # engines raise classes of their own
                reason = printable(" ".join(str(error).split())) or type(error).__name__
                target, backend = candidate.artifact.target, candidate.backend
                rejection = Rejection(target, backend, reason, failed=True)
        if rejection.failed:
            log.warning("%s failed: %s", rejection.pair, rejection.reason)
        rejected.append(rejection)
    raise NoBackendError(explain(model, rejected), rejected)


def _open(
    model: ModelFile,
    candidate: Candidate,
    library: Availability,
    wish: Wish,
    rejected: Sequence[Rejection],
) -> Opened:
    manifest, artifact = model.manifest, candidate.artifact
    source = ModelSource(
        artifact=artifact,
        input=manifest.input,
        output=manifest.output,
        read=model.read,
        locate=lambda: model.locate(artifact),
        device=wish.device,
        threads=wish.threads,
        build=wish.build,
    )
    backends: List[Backend] = []
    with ExitStack() as stack:  # each is closed, whatever another raises
        for _ in range(wish.engines):
            backends.append(stack.enter_context(closing(load_backend(candidate.backend)())))
            backends[-1].open(source)
        runners = tuple(
            FrameRunner(backend, artifact, manifest.input, manifest.output, len(manifest.classes))
            for backend in backends
        )
        tested = None
        trusted = wish.trust and isinstance(backends[0], BuiltBackend) and backends[0].trusted
        if wish.selftest and not trusted:
            passed = PassedTests(_facts(model, candidate, library, wish))
            tested = _selftest(model, backends[0], runners[0], artifact, passed)
        stack.enter_context(closing(model))
        close = stack.pop_all().close
    info = SessionInfo(
        backend=candidate.backend,
        version=library.version,
        target=artifact.target,
        precision=artifact.precision,
        device=wish.device,
        selftest_agreement=tested.agreement if tested else None,
        rejected=tuple(rejected),
    )
    _log_provenance(manifest, info)
    return Opened(manifest, info, runners, close)


def _selftest(
    model: ModelFile,
    backend: Backend,
    runner: FrameRunner,
    artifact: Artifact,
    passed: PassedTests,
) -> Optional[SelfTest]:
    """Try all scenes; one, if all passed in an earlier session."""
    known = passed.has_passed()
    scenes = model.selftests(1 if known else None)
    if not scenes:
        if model.bundle is not None:
            log.warning(
                "%s has no self-test: nothing tells whether %s computes the right classes here",
                model.path,
                artifact.target,
            )
        return None
    outcome = run_selftest(runner.infer_new, scenes, artifact, len(model.manifest.classes))
    if isinstance(backend, BuiltBackend):
        backend.note_selftest(outcome.passed)
    if outcome.wrong_id is not None:
        raise SelfTestError(
            f"its class map of the self-test holds class id {outcome.wrong_id}, the manifest names "
            f"{len(model.manifest.classes)} classes: the engine computes something else"
        )
    if not outcome.passed:
        raise SelfTestError(
            f"its class map of the self-test agrees in {outcome.agreement:.1%} of the pixels, "
            f"{outcome.required:.1%} are needed (scene {outcome.scene}): the engine computes "
            "something else"
        )
    if not known:
        passed.note()
    return outcome


def _facts(model: ModelFile, candidate: Candidate, library: Availability, wish: Wish) -> List[Any]:
    """Return what decides whether the self-test has to be run again."""
    artifact, manifest = candidate.artifact, model.manifest
    return [
        REVISION,
        [candidate.backend, library.version, wish.device, wish.threads],
        processor_facts(),
        [[file.path, file.sha256] for file in (*artifact.files, *manifest.selftest)],
        [artifact.entry, artifact.precision, artifact.io, len(manifest.classes)],
        dataclasses.asdict(manifest.input),
        dataclasses.asdict(manifest.output),
        [artifact.extra.get(key) for key in (SELFTEST_AGREEMENT, SELFTEST_AGREEMENTS)],
    ]


def _log_provenance(manifest: Manifest, info: SessionInfo) -> None:
    for item in info.rejected:
        if not item.failed:  # that was said when it happened
            log.info("not used: %s: %s", item.pair, item.reason)
    fell_back = any(item.failed for item in info.rejected)
    log.log(
        logging.WARNING if fell_back else logging.INFO,
        "running %s (%s) with %s %s",
        info.target,
        info.precision,
        info.backend,
        info.version,
    )
    model = manifest.model
    if model.trained_on or model.data_licence or model.usage:
        log.info(
            "weights trained on %s; licence of the data: %s; %s",
            model.trained_on or "unknown data",
            model.data_licence or "not stated",
            describe_usage(model.usage),
        )
