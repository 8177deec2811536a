# SPDX-License-Identifier: MIT OR Apache-2.0
"""Names human actions in skeleton clips and live streams, on the device.

Units: metres (or the stream's ``metres_per_unit``), timestamps in nanoseconds from any zero, times of settings in seconds, probabilities 0 to 1.
A joint that was not seen is NaN.

Arrays: float32 joints (uint64 timestamps, bool or uint8 flags) in C order are read where they lie, and only during the call; anything else is copied.

Threads: the interpreter's lock is released during every call. A Model or CancelToken is for any number of threads at once; a Recognizer or Stream for
one at a time: another meanwhile gets InUseError. ``close`` waits for a call that runs.

Errors: Error, or one of its subclasses, with the library's words and ``status``.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _abi, _errors
from ._abi import check, lib
from ._errors import *  # noqa: F403  (every exception is public)
from ._errors import Error, InUseError, InvalidArgumentError, NullPointerError, ShapeError
from ._version import VERSION as __version__

if TYPE_CHECKING:
    from typing_extensions import Self

_ERRORS = [name for name, value in vars(_errors).items() if isinstance(value, type) and issubclass(value, Error)]
__all__ = [
    "Axis",
    "CancelToken",
    "Clip",
    "Event",
    "EventKind",
    "Handedness",
    "LabelState",
    "LogLevel",
    "Model",
    "ModelInfo",
    "Percentiles",
    "Pose",
    "Recognition",
    "Recognizer",
    "Score",
    "Stream",
    "StreamStats",
    "joint_names",
    "layouts",
    "library_version",
    "register_layout",
    "set_log",
    *_ERRORS,
]

_Path = Union[str, "os.PathLike[str]"]
_Floats = npt.NDArray[np.float32]


# --- constants --------------------------------------------------------------------------------------------------------


class EventKind(IntEnum):
    """What an event is about."""

    DECISION = 1
    BEGIN = 2
    END = 3
    FORGOTTEN = 4


_KINDS = frozenset(int(kind) for kind in EventKind)


class LabelState(IntEnum):
    """Whether a label may be named."""

    ALLOWED = 0
    DENIED = 1
    NOT_OBSERVABLE = 2


class Axis(IntEnum):
    """Axis of the frames that points up; DEFAULT is +y in 3D and -y in 2D."""

    DEFAULT = 0
    PLUS_X = 1
    MINUS_X = 2
    PLUS_Y = 3
    MINUS_Y = 4
    PLUS_Z = 5
    MINUS_Z = 6


class Handedness(IntEnum):
    """Handedness of the frames' axes."""

    RIGHT = 0
    LEFT = 1


class LogLevel(IntEnum):
    """How important a message is; lower is more important."""

    ERROR = 1
    WARN = 2
    INFO = 3
    DEBUG = 4


# --- results ----------------------------------------------------------------------------------------------------------


class ModelInfo(NamedTuple):
    """What a model is."""

    name: str
    producer: str
    layout: str
    device: str
    format_version: int
    file_bytes: int
    label_count: int
    token_count: int
    code_count: int
    frames: int
    persons: int
    joints: int
    coords: int
    causal: bool
    scheme: int
    hidden_size: int
    layers: int
    vocab_size: int
    temperature: float
    unknown_below: float


class Score(NamedTuple):
    """A label of an answer. ``log_prob`` is exact; ``probability`` calibrated, over all labels."""

    text: str
    label: int
    probability: float
    log_prob: float


class Recognition(NamedTuple):
    """An answer: the best labels, best first. Times are of the whole batch, in nanoseconds."""

    top: tuple[Score, ...]
    unknown: bool
    missing: float
    tokens: npt.NDArray[np.uint16]
    tokenize_ns: int
    prompt_ns: int
    label_ns: int


class Event(NamedTuple):
    """What a stream tells; the fields are those of llmar_event. ``text`` and ``label`` are None where no label is named."""

    kind: EventKind
    body: int
    time_ns: int
    start_ns: int
    end_ns: int
    text: Optional[str]
    label: Optional[int]
    probability: float
    unknown: bool
    idle: bool
    top: tuple[Score, ...]
    tokens: int
    missing: float
    #: Joints of the model that were not seen in the whole window.
    missing_joints: tuple[int, ...]
    latency_ns: int


class Percentiles(NamedTuple):
    """A distribution of times in nanoseconds."""

    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int


class StreamStats(NamedTuple):
    """What a stream has done since it was made or its statistics were reset."""

    frames: int
    refused_frames: int
    unseen_frames: int
    tokens: int
    decisions: int
    skipped_decisions: int
    dropped_events: int
    reanchored: int
    gaps: int
    passes: int
    rows: int
    bodies: int
    queued_frames: int
    queued_events: int
    latency: Percentiles
    update: Percentiles


# --- arguments --------------------------------------------------------------------------------------------------------


class Clip(NamedTuple):
    """A clip of a batch; the arguments of Recognizer.recognize."""

    joints: npt.ArrayLike
    layout: Optional[str] = None
    fps: Optional[float] = None
    timestamps: Optional[npt.ArrayLike] = None
    valid: Optional[npt.ArrayLike] = None


class Pose(NamedTuple):
    """One frame of one body; the arguments of Stream.push."""

    body: int
    time_ns: int
    joints: npt.ArrayLike
    valid: Optional[npt.ArrayLike] = None
    confidence: Optional[npt.ArrayLike] = None


def _floats(values: npt.ArrayLike) -> _Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def _flags(values: npt.ArrayLike, shape: tuple[int, ...], what: str) -> npt.NDArray[Any]:
    flags = np.ascontiguousarray(values)
    flags = flags if flags.dtype in (np.bool_, np.uint8) else (flags != 0)
    if flags.shape != shape:
        raise ShapeError(f"{what}: expected the shape {shape}, got {flags.shape}")
    return flags


def _u64(value: int, what: str) -> int:
    value = int(value)
    if not 0 <= value < 1 << 64:
        raise InvalidArgumentError(f"{what}: expected 0 to 2^64 - 1, got {value}")
    return value


def _u32(value: int, what: str) -> int:
    value = int(value)
    if not 0 <= value < 1 << 32:
        raise InvalidArgumentError(f"{what}: expected 0 to 2^32 - 1, got {value}")
    return value


def _ns(seconds: Optional[float], what: str) -> int:
    if seconds is None:
        return 0
    # 0 is the library's default, which is None here.
    if not 0 < seconds < 1e9:
        raise InvalidArgumentError(f"{what}: expected seconds above 0, got {seconds}")
    return max(1, round(seconds * 1e9))


def _setting(value: Optional[float], what: str) -> float:
    """A number whose 0 is the library's default, and whose negative values say none: here those are None and 0."""
    if value is None:
        return 0.0
    if not value >= 0:
        raise InvalidArgumentError(f"{what}: expected 0 to 1, got {value}")
    return -1.0 if value == 0 else value


class _Handle:
    """A handle of the library and the lock that says who uses it."""

    def __init__(self, raw: Optional[int], free: Callable[[ctypes.c_void_p], None]) -> None:
        self._raw = raw
        self._free = free
        self._lock = threading.Lock()

    @contextmanager
    def enter(self, wait: bool) -> Iterator[ctypes.c_void_p]:
        if not self._lock.acquire(blocking=wait):
            raise InUseError("another call is using it")
        try:
            if self._raw is None:
                raise NullPointerError("it is closed")
            yield ctypes.c_void_p(self._raw)
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            raw, self._raw = self._raw, None
            if raw is not None:
                self._free(ctypes.c_void_p(raw))

    def __del__(self) -> None:
        # Nobody else knows it any more.
        if getattr(self, "_raw", None) is not None:
            self._free(ctypes.c_void_p(self._raw))
            self._raw = None


class _Closeable:
    _handle: _Handle

    def close(self) -> None:
        """Frees it, after a call that runs; a second time does nothing."""
        self._handle.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()


class CancelToken:
    """Stops calls that were given it, from any thread."""

    def __init__(self) -> None:
        out = ctypes.c_void_p()
        check(lib.llmar_cancel_create(ctypes.byref(out)))
        # Freed with the last reference, so never during a call.
        self._handle = _Handle(out.value, lib.llmar_cancel_free)

    @property
    def _raw(self) -> Optional[int]:
        return self._handle._raw

    def request(self) -> None:
        """Raises it: calls that hold it, and later ones until clear(), end with CancelledError."""
        check(lib.llmar_cancel_request(self._raw))

    def clear(self) -> None:
        """Lowers it."""
        check(lib.llmar_cancel_clear(self._raw))


def _call(deadline: Optional[float], cancel: Optional[CancelToken]) -> Optional[_abi.CallParams]:
    if deadline is None and cancel is None:
        return None
    return _abi.CallParams(deadline_ns=_ns(deadline, "deadline"), cancel=None if cancel is None else cancel._raw)


# --- models -----------------------------------------------------------------------------------------------------------


class Model(_Closeable):
    """An opened checkpoint. Recognizers and streams keep it alive, also when it is closed."""

    def __init__(self, path: _Path, *, device: str = "cpu", memory_budget: int = 0, verify: bool = False) -> None:
        """Maps a .llmar file. device: "cpu", "cuda:N" or "auto"; memory_budget: bytes, 0 for no limit; verify: recompute the checksum."""
        self._open(lib.llmar_model_open_path, (_abi.text_bytes(os.fspath(path)),), device, memory_budget, verify)

    @classmethod
    def from_bytes(
        cls, data: "bytes | bytearray | memoryview", *, device: str = "cpu", memory_budget: int = 0, verify: bool = False
    ) -> "Self":
        """Opens a checkpoint in memory, which is copied."""
        view = np.frombuffer(data, dtype=np.uint8)
        self = cls.__new__(cls)
        self._open(lib.llmar_model_open_memory, (view.ctypes.data, view.size), device, memory_budget, verify)
        return self

    def _open(self, function: Any, source: tuple[Any, ...], device: str, memory_budget: int, verify: bool) -> None:
        params = _abi.ModelParams(
            flags=1 if verify else 0, device=_abi.text_bytes(device), memory_budget=_u64(memory_budget, "memory_budget")
        )
        out = ctypes.c_void_p()
        check(function(*source, ctypes.byref(params), ctypes.byref(out)))
        self._handle = _Handle(out.value, lib.llmar_model_free)
        info = _abi.ModelInfo()
        check(lib.llmar_model_get_info(out, ctypes.byref(info)))
        values = {name: getattr(info, name) for name in ModelInfo._fields}
        values = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
        values["causal"] = bool(values["causal"])
        self._info = ModelInfo(**values)
        text = ctypes.c_char_p()
        labels = []
        for index in range(self._info.label_count):
            check(lib.llmar_model_label(out, index, ctypes.byref(text)))
            labels.append((text.value or b"").decode())
        self._labels = tuple(labels)

    @property
    def info(self) -> ModelInfo:
        """What it is."""
        return self._info

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that it was trained for."""
        return self._labels

    @staticmethod
    def verify(path: _Path) -> None:
        """Checks a file completely, its checksum included."""
        check(lib.llmar_model_verify_path(_abi.text_bytes(os.fspath(path)), None))

    @contextmanager
    def _use(self) -> Iterator[ctypes.c_void_p]:
        """The handle with a reference of its own: others may use or close the model meanwhile."""
        with self._handle.enter(wait=True) as raw:
            check(lib.llmar_model_retain(raw))
        try:
            yield raw
        finally:
            lib.llmar_model_free(raw)


class Recognizer(_Closeable):
    """Names the action of clips. One thread at a time."""

    def __init__(
        self,
        model: Model,
        *,
        threads: int = 1,
        top_k: int = 5,
        unknown_below: Optional[float] = None,
        greedy: bool = False,
        labels: Optional[Sequence[str]] = None,
        by_words: bool = False,
    ) -> None:
        """threads: 1 to 256; top_k: labels of an answer; unknown_below: None for the model's threshold, 0 for never; labels: instead of the model's;
        by_words: labels are told by the words of their texts, without the language model (LLMAR_SCORING_WORDS)."""
        params = _abi.RecognizerParams(
            threads=_u32(threads, "threads"),
            top_k=_u32(top_k, "top_k"),
            unknown_below=_setting(unknown_below, "unknown_below"),
            decoding=1 if greedy else 0,
            scoring=1 if by_words else 0,
        )
        out = ctypes.c_void_p()
        with model._use() as raw:
            check(lib.llmar_recognizer_create(raw, ctypes.byref(params), ctypes.byref(out)))
        self._handle = _Handle(out.value, lib.llmar_recognizer_free)
        self._model = model
        self._labels = model.labels
        self._top_k = params.top_k
        if labels is not None:
            self.set_labels(labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that it chooses from."""
        return self._labels

    def set_labels(self, labels: Optional[Sequence[str]]) -> None:
        """Replaces the labels to choose from; None: the model's own."""
        with self._handle.enter(wait=False) as raw:
            self._labels = _set_labels(lib.llmar_recognizer_set_labels, raw, labels, self._model)

    def balance(self, others: Optional[Iterable[Clip]], *, deadline: Optional[float] = None, cancel: Optional[CancelToken] = None) -> None:
        """Takes out of later answers what each label gets whatever is shown, measured on some dozens of clips of other actions; None: no longer.
        Lasts until the labels are replaced. When it fails, what was before stays."""
        prepared = [self._clip(clip) for clip in others or ()]
        if others is not None and not prepared:
            raise InvalidArgumentError("others: expected some clips, or None")
        structs = (_abi.Clip * len(prepared))(*(clip for clip, _ in prepared))
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_recognizer_balance(raw, structs if prepared else None, len(prepared), _call(deadline, cancel)))

    def recognize(
        self,
        joints: npt.ArrayLike,
        *,
        layout: Optional[str] = None,
        fps: Optional[float] = None,
        timestamps: Optional[npt.ArrayLike] = None,
        valid: Optional[npt.ArrayLike] = None,
        deadline: Optional[float] = None,
        cancel: Optional[CancelToken] = None,
    ) -> Recognition:
        """Recognizes one clip.

        joints: [frames, persons, joints, coords] or, of one person, [frames, joints, coords]; layout: None for the model's; fps: frames a second, or
        timestamps: [frames] nanoseconds, strictly increasing; valid: 0 or False for a joint that is not to be believed; deadline: seconds.
        """
        return self.recognize_batch([Clip(joints, layout, fps, timestamps, valid)], deadline=deadline, cancel=cancel)[0]

    def recognize_batch(
        self, clips: Iterable[Clip], *, deadline: Optional[float] = None, cancel: Optional[CancelToken] = None
    ) -> list[Recognition]:
        """Recognizes clips together; the answers are those of recognize. One bad clip fails the call."""
        prepared = [self._clip(clip) for clip in clips]
        count = len(prepared)
        if count == 0:
            return []
        with self._handle.enter(wait=False) as raw:
            top_k = min(self._top_k or 5, len(self._labels))
            tops = (_abi.LabelScore * (count * top_k))()
            tokens = np.zeros((count, self._model.info.token_count), dtype=np.uint16)
            rooms = (_abi.Recognition * count)()
            structs = (_abi.Clip * count)()
            for i, (clip, _) in enumerate(prepared):
                structs[i] = clip
                room = rooms[i]
                room.struct_size = ctypes.sizeof(_abi.Recognition)
                room.top = ctypes.cast(ctypes.byref(tops, i * top_k * ctypes.sizeof(_abi.LabelScore)), ctypes.POINTER(_abi.LabelScore))
                room.top_capacity = top_k
                room.tokens = tokens[i].ctypes.data
                room.token_capacity = tokens.shape[1]
            call = _call(deadline, cancel)
            check(lib.llmar_recognize_batch(raw, structs, count, call, rooms))
            labels = self._labels
        return [
            Recognition(
                tuple(_score(room.top[j], labels) for j in range(room.top_count)),
                bool(room.unknown),
                room.missing,
                tokens[i, : room.token_count],
                room.tokenize_ns,
                room.prompt_ns,
                room.label_ns,
            )
            for i, room in enumerate(rooms)
        ]

    def tokenize(
        self,
        joints: npt.ArrayLike,
        *,
        layout: Optional[str] = None,
        fps: Optional[float] = None,
        timestamps: Optional[npt.ArrayLike] = None,
        valid: Optional[npt.ArrayLike] = None,
    ) -> npt.NDArray[np.uint16]:
        """The action tokens of a clip, without the language model. Arguments as of recognize."""
        clip, _keep = self._clip(Clip(joints, layout, fps, timestamps, valid))
        tokens = np.zeros(self._model.info.token_count, dtype=np.uint16)
        got = ctypes.c_size_t()
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_tokenize_clip(raw, ctypes.byref(clip), None, tokens.ctypes.data, tokens.size, None, ctypes.byref(got)))
        return tokens[: got.value]

    def _clip(self, clip: Clip) -> tuple[_abi.Clip, tuple[Any, ...]]:
        """The struct, and what it points at."""
        joints = _floats(clip.joints)
        if joints.ndim == 3:
            joints = joints[:, np.newaxis]
        if joints.ndim != 4:
            raise ShapeError(f"joints: expected [frames, persons, joints, coords] or [frames, joints, coords], got {joints.shape}")
        frames, persons, count, coords = joints.shape
        if clip.fps is not None and clip.timestamps is not None:
            raise InvalidArgumentError("fps and timestamps: expected one of them")
        layout = _abi.text_bytes(self._model.info.layout if clip.layout is None else clip.layout)
        struct = _abi.Clip(
            coords=coords, joints=joints.ctypes.data, frames=frames, persons=persons, joint_count=count, layout=layout, fps=clip.fps or 0.0
        )
        times = valid = None
        if clip.timestamps is not None:
            times = np.ascontiguousarray(clip.timestamps)
            if times.dtype.kind not in "iu" or times.size and times.min() < 0:
                raise InvalidArgumentError("timestamps: expected nanoseconds, whole numbers of at least 0")
            times = np.ascontiguousarray(times, dtype=np.uint64)
            if times.shape != (frames,):
                raise ShapeError(f"timestamps: expected the shape {(frames,)}, got {times.shape}")
            struct.timestamps_ns = times.ctypes.data
        if clip.valid is not None:
            flags = np.asarray(clip.valid)
            flags = flags[:, np.newaxis] if flags.ndim == 2 else flags
            valid = _flags(flags, (frames, persons, count), "valid")
            struct.valid = valid.ctypes.data
        return struct, (joints, layout, times, valid)


def _score(score: _abi.LabelScore, labels: tuple[str, ...]) -> Score:
    return Score(labels[score.label], score.label, score.probability, score.log_prob)


def _set_labels(function: Any, raw: ctypes.c_void_p, labels: Optional[Sequence[str]], model: Model) -> tuple[str, ...]:
    if labels is None:
        check(function(raw, None, 0))
        return model.labels
    if isinstance(labels, str):
        raise InvalidArgumentError("labels: expected a list of texts, got one text")
    labels = tuple(labels)
    check(function(raw, _abi.texts(list(labels)), len(labels)))
    return labels


# --- streams ----------------------------------------------------------------------------------------------------------


class Stream(_Closeable):
    """Follows bodies frame by frame. One thread at a time."""

    def __init__(
        self,
        model: Model,
        *,
        layout: Optional[str] = None,
        threads: int = 1,
        up: Axis = Axis.DEFAULT,
        handedness: Handedness = Handedness.RIGHT,
        metres_per_unit: float = 1.0,
        max_bodies: int = 8,
        queued_frames: int = 512,
        queued_events: int = 256,
        tokens_per_decision: int = 1,
        top_k: int = 3,
        unknown_below: Optional[float] = None,
        tolerance: Optional[float] = None,
        smoothing: Optional[float] = None,
        begin_at: Optional[float] = None,
        end_below: Optional[float] = None,
        min_confidence: float = 0.0,
        worker: bool = False,
        actions_only: bool = False,
        deadline: Optional[float] = None,
        max_gap: Optional[float] = None,
        forget_after: Optional[float] = None,
        max_jump: Optional[float] = None,
        window: Optional[float] = None,
    ) -> None:
        """The fields of llmar_stream_params. Times in seconds; None: the library's default; unknown_below, tolerance and smoothing 0: never,
        exact probabilities and none."""
        name = model.info.layout if layout is None else layout
        params = _abi.StreamParams(
            threads=_u32(threads, "threads"),
            layout=None if layout is None else _abi.text_bytes(layout),
            up=_u32(up, "up"),
            handedness=_u32(handedness, "handedness"),
            metres_per_unit=metres_per_unit,
            max_bodies=_u32(max_bodies, "max_bodies"),
            queued_frames=_u32(queued_frames, "queued_frames"),
            queued_events=_u32(queued_events, "queued_events"),
            tokens_per_decision=_u32(tokens_per_decision, "tokens_per_decision"),
            top_k=_u32(top_k, "top_k"),
            unknown_below=_setting(unknown_below, "unknown_below"),
            tolerance=_setting(tolerance, "tolerance"),
            smoothing=_setting(smoothing, "smoothing"),
            begin_at=begin_at or 0.0,
            end_below=end_below or 0.0,
            min_confidence=min_confidence,
            worker=1 if worker else 0,
            flags=1 if actions_only else 0,
            deadline_ns=_ns(deadline, "deadline"),
            max_gap_ns=_ns(max_gap, "max_gap"),
            forget_after_ns=_ns(forget_after, "forget_after"),
            max_jump_ns=_ns(max_jump, "max_jump"),
            window_ns=_ns(window, "window"),
        )
        out = ctypes.c_void_p()
        with model._use() as raw:
            check(lib.llmar_stream_create(raw, ctypes.byref(params), ctypes.byref(out)))
        self._handle = _Handle(out.value, lib.llmar_stream_free)
        self._model = model
        self._labels = model.labels
        self._coords = model.info.coords
        self._joints = model.info.joints if layout is None else len(joint_names(name))
        self._events = (_abi.Event * 16)()
        # What went wrong after a poll had events to give: the next one tells.
        self._failure: Optional[Error] = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that events may name."""
        return self._labels

    def push(
        self,
        body: int,
        time_ns: int,
        joints: npt.ArrayLike,
        *,
        valid: Optional[npt.ArrayLike] = None,
        confidence: Optional[npt.ArrayLike] = None,
    ) -> None:
        """Takes a frame of a body; never waits for a decision.

        body: any number that stays the same for it; time_ns: later than its frame before; joints: [joints, coords] of the stream's layout; valid, confidence:
        [joints]. Errors: ShapeError and the subclasses of FrameError; the stream is then as before.
        """
        pose, _keep = self._pose(Pose(body, time_ns, joints, valid, confidence))
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_push(raw, ctypes.byref(pose), 1, None))

    def push_all(self, poses: Iterable[Pose]) -> list[int]:
        """Takes frames in their order; returns a status for each: 0, or that of the exception which push would have raised."""
        prepared = [self._pose(pose) for pose in poses]
        count = len(prepared)
        structs = (_abi.Pose * count)(*[pose for pose, _ in prepared])
        # Where the call itself is refused, no status is written.
        statuses = (ctypes.c_int32 * count)(*[1] * count)
        with self._handle.enter(wait=False) as raw:
            status = lib.llmar_stream_push(raw, structs, count, statuses)
            if count > 0 and statuses[0] == 1:
                check(status)
        return list(statuses)

    def poll(self, limit: Optional[int] = None, *, deadline: Optional[float] = None, cancel: Optional[CancelToken] = None) -> list[Event]:
        """Takes events, oldest first, at most ``limit``. Without a worker this makes the decisions that are due. Errors lose no event."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        events: list[Event] = []
        while limit is None or len(events) < limit:
            room = self._events
            wanted = len(room) if limit is None else min(len(room), limit - len(events))
            got = ctypes.c_size_t()
            with self._handle.enter(wait=False) as raw:
                room[0].struct_size = ctypes.sizeof(_abi.Event)
                status = lib.llmar_stream_poll(raw, _call(deadline, cancel), room, wanted, ctypes.byref(got))
                try:
                    check(status)
                except Error as error:
                    if not events:
                        raise
                    self._failure = error
                    return events
                # A later library may tell of more kinds than this package knows.
                events += [self._event(room[i]) for i in range(got.value) if room[i].kind in _KINDS]
            if got.value < wanted:
                break
        return events

    def follow(self, poses: Iterable[Pose]) -> Iterator[Event]:
        """Pushes poses and yields events as they come, then flushes. A frame that is refused raises its FrameError."""
        for pose in poses:
            self.push(pose.body, pose.time_ns, pose.joints, valid=pose.valid, confidence=pose.confidence)
            yield from self.poll()
        self.flush()
        self.wait()
        yield from self.poll()

    def advance(self, time_ns: int) -> None:
        """Says what time it is when nobody is seen: bodies not seen for ``forget_after`` are forgotten."""
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_advance(raw, _u64(time_ns, "time_ns")))

    def flush(self) -> None:
        """The end of the input: the decisions that are not due yet are made, and actions end, with the next polls."""
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_flush(raw))

    def wait(self, *, deadline: Optional[float] = None, cancel: Optional[CancelToken] = None) -> None:
        """With a worker: waits until all that was pushed has been worked on."""
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_wait(raw, _call(deadline, cancel)))

    def reset(self) -> None:
        """Forgets all bodies, frames and events."""
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_reset(raw))

    def remove_body(self, body: int) -> None:
        """Forgets a body: its action ends, and its place is free."""
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_remove_body(raw, _u64(body, "body")))

    def stats(self) -> StreamStats:
        """Counters and latencies."""
        stats = _abi.StreamStats()
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_get_stats(raw, ctypes.byref(stats)))
        counters = {name: getattr(stats, name) for name in StreamStats._fields[:-2]}
        return StreamStats(**counters, latency=_percentiles(stats.latency), update=_percentiles(stats.update))

    def reset_stats(self) -> None:
        """Begins counters and latencies anew."""
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_reset_stats(raw))

    def save(self) -> bytes:
        """Everything known of all bodies. Errors: QueueFullError while frames wait that nobody has polled for."""
        size = ctypes.c_size_t()
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_save(raw, None, 0, ctypes.byref(size)))
            state = ctypes.create_string_buffer(max(size.value, 1))
            check(lib.llmar_stream_save(raw, state, size.value, ctypes.byref(size)))
        return state.raw[: size.value]

    def load(self, state: "bytes | bytearray | memoryview") -> None:
        """Goes on from a state of save(). Errors: ForeignStateError, FormatError."""
        view = np.frombuffer(state, dtype=np.uint8) if len(state) else np.zeros(0, np.uint8)
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_load(raw, view.ctypes.data, view.size))

    def set_labels(self, labels: Optional[Sequence[str]]) -> None:
        """Replaces the labels to choose from, None: the model's own. A filter is lifted, and actions that go on are dropped without an event."""
        with self._handle.enter(wait=False) as raw:
            self._labels = _set_labels(lib.llmar_stream_set_labels, raw, labels, self._model)

    def filter_labels(self, allowed: Optional[npt.ArrayLike]) -> None:
        """Names only some labels: one flag a label; None: all."""
        with self._handle.enter(wait=False) as raw:
            if allowed is None:
                return check(lib.llmar_stream_filter_labels(raw, None, 0))
            flags = _flags(allowed, (len(self._labels),), "allowed")
            check(lib.llmar_stream_filter_labels(raw, flags.ctypes.data, flags.size))

    def label_state(self, label: int) -> LabelState:
        """Whether a label may be named."""
        state = ctypes.c_uint32()
        with self._handle.enter(wait=False) as raw:
            check(lib.llmar_stream_label_state(raw, _u32(label, "label"), ctypes.byref(state)))
        return LabelState(state.value)

    def _pose(self, pose: Pose) -> tuple[_abi.Pose, tuple[Any, ...]]:
        """The struct, and what it points at."""
        joints = _floats(pose.joints)
        if joints.shape != (self._joints, self._coords):
            raise ShapeError(f"joints: expected the shape {(self._joints, self._coords)}, got {joints.shape}")
        struct = _abi.Pose(
            joint_count=self._joints, body=_u64(pose.body, "body"), time_ns=_u64(pose.time_ns, "time_ns"), joints=joints.ctypes.data
        )
        valid = confidence = None
        if pose.valid is not None:
            valid = _flags(pose.valid, (self._joints,), "valid")
            struct.valid = valid.ctypes.data
        if pose.confidence is not None:
            confidence = _floats(pose.confidence)
            if confidence.shape != (self._joints,):
                raise ShapeError(f"confidence: expected the shape {(self._joints,)}, got {confidence.shape}")
            struct.confidence = confidence.ctypes.data
        return struct, (joints, valid, confidence)

    def _event(self, event: _abi.Event) -> Event:
        label = None if event.label == _abi.NO_LABEL else event.label
        # Events that were made before set_labels may name a label that is gone.
        labels = self._labels
        known = max((score.label for score in event.top[: event.top_count]), default=0) < len(labels)
        return Event(
            EventKind(event.kind),
            event.body,
            event.time_ns,
            event.start_ns,
            event.end_ns,
            labels[label] if label is not None and label < len(labels) else None,
            label,
            event.probability,
            bool(event.unknown),
            bool(event.idle),
            tuple(_score(event.top[i], labels) for i in range(event.top_count)) if known else (),
            event.tokens,
            event.missing,
            tuple(j for j in range(256) if event.missing_joints[j // 64] >> (j % 64) & 1),
            event.latency_ns,
        )


def _percentiles(of: _abi.Percentiles) -> Percentiles:
    return Percentiles(of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.max_ns)


# --- layouts and messages ---------------------------------------------------------------------------------------------


def library_version() -> str:
    """Version of the loaded library."""
    version: bytes = lib.llmar_version_string()
    return version.decode()


def layouts() -> tuple[str, ...]:
    """Names of the known layouts."""
    count, text = ctypes.c_size_t(), ctypes.c_char_p()
    check(lib.llmar_layout_count(ctypes.byref(count)))
    names = []
    for index in range(count.value):
        check(lib.llmar_layout_name(index, ctypes.byref(text)))
        names.append((text.value or b"").decode())
    return tuple(names)


def joint_names(layout: str) -> tuple[str, ...]:
    """Joints of a layout, in the order in which arrays hold them."""
    count, text, name = ctypes.c_size_t(), ctypes.c_char_p(), _abi.text_bytes(layout)
    check(lib.llmar_layout_joint_count(name, ctypes.byref(count)))
    names = []
    for joint in range(count.value):
        check(lib.llmar_layout_joint_name(name, joint, ctypes.byref(text)))
        names.append((text.value or b"").decode())
    return tuple(names)


def register_layout(name: str, joints: Sequence[str]) -> None:
    """Makes a layout known to the whole process."""
    check(lib.llmar_layout_register(_abi.text_bytes(name), _abi.texts(list(joints)), len(joints)))


_log_lock = threading.Lock()
#: The library's view of the receiver: it must live as long as it is set.
_log_function: Any = _abi.LogFn()


def set_log(receive: Optional[Callable[[LogLevel, str], object]], level: LogLevel = LogLevel.INFO) -> None:
    """Sends the library's messages to ``receive``, on the thread that has something to say; None: to nobody. What it raises is dropped.

    Errors: InUseError from inside ``receive``.
    """
    global _log_function
    if receive is None:
        function = _abi.LogFn()
    else:
        receiver = receive

        def forward(_user: Optional[int], got: int, message: bytes) -> None:
            try:
                receiver(LogLevel(got), message.decode("utf-8", "replace"))
            except Exception:
                pass

        function = _abi.LogFn(forward)
    if not _log_lock.acquire(blocking=False):
        raise InUseError("set_log: another call is setting it")
    try:
        check(lib.llmar_set_log(function, None, int(level) if receive is not None else 0))
        _log_function = function
    finally:
        _log_lock.release()
