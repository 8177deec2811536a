# SPDX-License-Identifier: MIT OR Apache-2.0
"""llmar.h for ctypes: structs, functions, and the library itself. Nothing here is public."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_float, c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from ._errors import UnsupportedError, of_status

MAJOR = 0
MINOR = 5
NAME_BYTES = 64
TOP = 5
NO_LABEL = 0xFFFFFFFF
OK = 0


class Struct(ctypes.Structure):
    """A struct that begins with struct_size, set when it is made; every other field is 0, its default."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **fields)


class ModelParams(Struct):
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("device", c_char_p), ("memory_budget", c_uint64)]


class ModelInfo(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("format_version", c_uint32),
        ("file_bytes", c_uint64),
        ("label_count", c_uint32),
        ("token_count", c_uint32),
        ("code_count", c_uint32),
        ("frames", c_uint32),
        ("persons", c_uint32),
        ("joints", c_uint32),
        ("coords", c_uint32),
        ("causal", c_uint32),
        ("scheme", c_uint32),
        ("hidden_size", c_uint32),
        ("layers", c_uint32),
        ("vocab_size", c_uint32),
        ("temperature", c_float),
        ("unknown_below", c_float),
        ("name", c_char * NAME_BYTES),
        ("producer", c_char * NAME_BYTES),
        ("layout", c_char * NAME_BYTES),
        ("device", c_char * NAME_BYTES),
    ]


class RecognizerParams(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("threads", c_uint32),
        ("top_k", c_uint32),
        ("unknown_below", c_float),
        ("decoding", c_uint32),
        ("scoring", c_uint32),
    ]


class Clip(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("coords", c_uint32),
        ("joints", c_void_p),
        ("frames", c_size_t),
        ("persons", c_size_t),
        ("joint_count", c_size_t),
        ("layout", c_char_p),
        ("timestamps_ns", c_void_p),
        ("valid", c_void_p),
        ("fps", c_float),
        ("reserved", c_uint32),
    ]


class CallParams(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("deadline_ns", c_uint64), ("cancel", c_void_p)]


class LabelScore(ctypes.Structure):
    _fields_ = [("label", c_uint32), ("log_prob", c_float), ("probability", c_float)]


class Recognition(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("unknown", c_uint32),
        ("top", POINTER(LabelScore)),
        ("top_capacity", c_size_t),
        ("top_count", c_size_t),
        ("tokens", c_void_p),
        ("token_capacity", c_size_t),
        ("token_count", c_size_t),
        ("tokenize_ns", c_uint64),
        ("prompt_ns", c_uint64),
        ("label_ns", c_uint64),
        ("prompt_rows", c_uint64),
        ("label_rows", c_uint64),
        ("missing", c_float),
        ("reserved", c_uint32),
    ]


class StreamParams(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("threads", c_uint32),
        ("layout", c_char_p),
        ("up", c_uint32),
        ("handedness", c_uint32),
        ("metres_per_unit", c_float),
        ("max_bodies", c_uint32),
        ("queued_frames", c_uint32),
        ("queued_events", c_uint32),
        ("tokens_per_decision", c_uint32),
        ("top_k", c_uint32),
        ("unknown_below", c_float),
        ("smoothing", c_float),
        ("begin_at", c_float),
        ("end_below", c_float),
        ("min_confidence", c_float),
        ("worker", c_uint32),
        ("flags", c_uint32),
        ("tolerance", c_float),
        ("deadline_ns", c_uint64),
        ("max_gap_ns", c_uint64),
        ("forget_after_ns", c_uint64),
        ("max_jump_ns", c_uint64),
        ("window_ns", c_uint64),
    ]


class Pose(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("joint_count", c_uint32),
        ("body", c_uint64),
        ("time_ns", c_uint64),
        ("joints", c_void_p),
        ("valid", c_void_p),
        ("confidence", c_void_p),
    ]


class Event(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("body", c_uint64),
        ("time_ns", c_uint64),
        ("start_ns", c_uint64),
        ("end_ns", c_uint64),
        ("label", c_uint32),
        ("probability", c_float),
        ("unknown", c_uint32),
        ("idle", c_uint32),
        ("top", LabelScore * TOP),
        ("top_count", c_uint32),
        ("tokens", c_uint32),
        ("missing", c_float),
        ("missing_joints", c_uint64 * 4),
        ("latency_ns", c_uint64),
    ]


class Percentiles(ctypes.Structure):
    _fields_ = [("p50_ns", c_uint64), ("p90_ns", c_uint64), ("p99_ns", c_uint64), ("p999_ns", c_uint64), ("max_ns", c_uint64)]


class StreamStats(Struct):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("frames", c_uint64),
        ("refused_frames", c_uint64),
        ("unseen_frames", c_uint64),
        ("tokens", c_uint64),
        ("decisions", c_uint64),
        ("skipped_decisions", c_uint64),
        ("dropped_events", c_uint64),
        ("reanchored", c_uint64),
        ("gaps", c_uint64),
        ("passes", c_uint64),
        ("rows", c_uint64),
        ("bodies", c_uint64),
        ("queued_frames", c_uint64),
        ("queued_events", c_uint64),
        ("latency", Percentiles),
        ("update", Percentiles),
    ]


LogFn = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_char_p)

#: A handle, and a place for one.
_H, _OUT = c_void_p, POINTER(c_void_p)
_SIZE, _TEXT, _TEXTS = POINTER(c_size_t), POINTER(c_char_p), POINTER(c_char_p)

#: Arguments of every function that returns a status.
_FUNCTIONS: dict[str, list[Any]] = {
    "llmar_set_log": [LogFn, c_void_p, c_uint32],
    "llmar_model_open_path": [c_char_p, POINTER(ModelParams), _OUT],
    "llmar_model_open_memory": [c_void_p, c_size_t, POINTER(ModelParams), _OUT],
    "llmar_model_verify_path": [c_char_p, POINTER(ModelParams)],
    "llmar_model_get_info": [_H, POINTER(ModelInfo)],
    "llmar_model_label_count": [_H, _SIZE],
    "llmar_model_label": [_H, c_size_t, _TEXT],
    "llmar_model_retain": [_H],
    "llmar_recognizer_create": [_H, POINTER(RecognizerParams), _OUT],
    "llmar_recognizer_set_labels": [_H, _TEXTS, c_size_t],
    "llmar_recognizer_balance": [_H, POINTER(Clip), c_size_t, POINTER(CallParams)],
    "llmar_recognize_clip": [_H, POINTER(Clip), POINTER(CallParams), POINTER(Recognition)],
    "llmar_recognize_batch": [_H, POINTER(Clip), c_size_t, POINTER(CallParams), POINTER(Recognition)],
    "llmar_tokenize_clip": [_H, POINTER(Clip), POINTER(CallParams), c_void_p, c_size_t, POINTER(c_float), _SIZE],
    "llmar_stream_create": [_H, POINTER(StreamParams), _OUT],
    "llmar_stream_push": [_H, POINTER(Pose), c_size_t, POINTER(c_int32)],
    "llmar_stream_advance": [_H, c_uint64],
    "llmar_stream_poll": [_H, POINTER(CallParams), POINTER(Event), c_size_t, _SIZE],
    "llmar_stream_flush": [_H],
    "llmar_stream_wait": [_H, POINTER(CallParams)],
    "llmar_stream_reset": [_H],
    "llmar_stream_remove_body": [_H, c_uint64],
    "llmar_stream_get_stats": [_H, POINTER(StreamStats)],
    "llmar_stream_reset_stats": [_H],
    "llmar_stream_save": [_H, c_void_p, c_size_t, _SIZE],
    "llmar_stream_load": [_H, c_void_p, c_size_t],
    "llmar_stream_set_labels": [_H, _TEXTS, c_size_t],
    "llmar_stream_filter_labels": [_H, c_void_p, c_size_t],
    "llmar_stream_label_state": [_H, c_uint32, POINTER(c_uint32)],
    "llmar_cancel_create": [_OUT],
    "llmar_cancel_request": [_H],
    "llmar_cancel_clear": [_H],
    "llmar_layout_count": [_SIZE],
    "llmar_layout_name": [c_size_t, _TEXT],
    "llmar_layout_joint_count": [c_char_p, _SIZE],
    "llmar_layout_joint_name": [c_char_p, c_size_t, _TEXT],
    "llmar_layout_register": [c_char_p, _TEXTS, c_size_t],
}


def _load() -> ctypes.CDLL:
    # The library of the wheel; LLMAR_LIBRARY names another one. CDLL releases the interpreter's lock during every call.
    path = os.environ.get("LLMAR_LIBRARY") or str(Path(__file__).with_name("libllmar.so"))
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"libllmar cannot be loaded ({error}); LLMAR_LIBRARY can name it") from error
    loaded.llmar_abi_version.argtypes, loaded.llmar_abi_version.restype = [], c_uint32
    loaded.llmar_version_string.argtypes, loaded.llmar_version_string.restype = [], c_char_p
    loaded.llmar_status_string.argtypes, loaded.llmar_status_string.restype = [c_int32], c_char_p
    loaded.llmar_last_error.argtypes, loaded.llmar_last_error.restype = [c_char_p, c_size_t], c_size_t
    abi = loaded.llmar_abi_version()
    if abi >> 16 != MAJOR or abi & 0xFFFF < MINOR:
        text = loaded.llmar_version_string().decode()
        raise UnsupportedError(f"{path}: made for ABI {MAJOR}.{MINOR}, libllmar {text} has {abi >> 16}.{abi & 0xFFFF}")
    for name, arguments in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, c_int32
    for name in ("llmar_model_free", "llmar_recognizer_free", "llmar_stream_free", "llmar_cancel_free"):
        function = getattr(loaded, name)
        function.argtypes, function.restype = [_H], None
    return loaded


lib = _load()


def check(status: int) -> None:
    """Raises the exception of a status that is not OK."""
    if status != OK:
        needed = lib.llmar_last_error(None, 0)
        text = ctypes.create_string_buffer(max(needed, 1))
        lib.llmar_last_error(text, needed)
        detail = text.value.decode("utf-8", "replace") or lib.llmar_status_string(status).decode()
        raise of_status(status, detail)


def texts(of: "list[str]") -> "ctypes.Array[c_char_p]":
    """An array of texts, never empty, so that it is never NULL."""
    return (c_char_p * max(len(of), 1))(*[text_bytes(text) for text in of])


def text_bytes(text: str) -> bytes:
    """A text for the library."""
    if "\0" in text:
        from ._errors import InvalidArgumentError

        raise InvalidArgumentError(f"a text must not contain NUL: {text!r}")
    return text.encode("utf-8", "surrogateescape")


__all__ = ["lib", "check", "texts", "c_uint8", "c_uint16"]
