# SPDX-License-Identifier: MIT OR Apache-2.0
"""One exception a status of llmar.h."""

from __future__ import annotations


class Error(Exception):
    """A call that failed. ``status`` is the LLMAR_ERROR_ constant of llmar.h, the text the library's."""

    #: Status that the class stands for; 0 for the base class, which stands for those that this package does not know.
    STATUS = 0

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status: int = self.STATUS if status is None else status


class NullPointerError(Error, ValueError):
    """Something is used that was closed."""

    STATUS = -1


class StructSizeError(Error):
    """The library is of another version than this package."""

    STATUS = -2


class InvalidUtf8Error(Error, ValueError):
    """A text is not UTF-8."""

    STATUS = -3


class InvalidEnumError(Error, ValueError):
    """A constant that the library does not know."""

    STATUS = -4


class InvalidArgumentError(Error, ValueError):
    """An argument is outside its documented range."""

    STATUS = -5


class BufferTooSmallError(Error):
    """A buffer cannot hold the result."""

    STATUS = -6


class InUseError(Error):
    """Another thread is using the object, or a log callback made a call that it must not make."""

    STATUS = -7


class PanicError(Error):
    """The library failed inside; close the object."""

    STATUS = -8


class PoisonedError(Error):
    """An earlier call on the object failed inside; close it."""

    STATUS = -9


class OutOfMemoryError(Error, MemoryError):
    """There is not enough memory."""

    STATUS = -10


class ReaderError(Error):
    """A reader of the caller's failed."""

    STATUS = -11


class IoError(Error):
    """A file could not be opened or read."""

    STATUS = -20


class FormatError(Error, ValueError):
    """Damaged, or something else than it should be."""

    STATUS = -21


class VersionError(Error):
    """A checkpoint of a format version that the library does not read."""

    STATUS = -22


class ChecksumError(Error):
    """A checkpoint's tensors do not match their SHA-256."""

    STATUS = -23


class LimitError(Error, ValueError):
    """A count or size is beyond what the library accepts."""

    STATUS = -24


class ShapeError(Error, ValueError):
    """Data has another shape than it must have."""

    STATUS = -25


class UnsupportedError(Error):
    """Sound, but the library does not do it."""

    STATUS = -26


class UnknownLayoutError(Error, ValueError):
    """A layout that is neither built in nor registered."""

    STATUS = -30


class EmptyClipError(Error, ValueError):
    """A clip in which nothing can be recognised."""

    STATUS = -31


class CancelledError(Error):
    """The cancel token was raised."""

    STATUS = -40


class DeadlineExceededError(Error):
    """The deadline passed before the result was there."""

    STATUS = -41


class DeviceError(Error):
    """The GPU cannot be used. Base of the classes that say why."""


class NoDriverError(DeviceError):
    """No NVIDIA driver is installed, or it does not start."""

    STATUS = -50


class OldDriverError(DeviceError):
    """The NVIDIA driver is older than the library needs."""

    STATUS = -51


class NoGpuError(DeviceError):
    """There is no GPU of that number."""

    STATUS = -52


class GpuArchitectureError(DeviceError):
    """The GPU's architecture is not supported."""

    STATUS = -53


class NoKernelsError(DeviceError):
    """The library has no kernels for the GPU, and the compiler that would make them is not installed."""

    STATUS = -54


class DeviceFaultError(DeviceError):
    """The GPU failed; this process can use nothing on it any more."""

    STATUS = -55


class MemoryBudgetError(Error, MemoryError):
    """The memory budget of the model has too little left."""

    STATUS = -56


class FrameError(Error):
    """A frame was refused. Base of the classes that say why."""


class BackwardTimeError(FrameError):
    """A frame that is older than the newest of its body."""

    STATUS = -60


class DuplicateTimeError(FrameError):
    """A second frame of one body with the same timestamp."""

    STATUS = -61


class FutureTimeError(FrameError):
    """A timestamp too far beyond the newest to be believed at once."""

    STATUS = -62


class BodyLimitError(FrameError):
    """A new body, for which the stream has no place left."""

    STATUS = -63


class UnknownBodyError(Error, KeyError):
    """A body that the stream does not know."""

    STATUS = -64

    def __str__(self) -> str:  # not KeyError's, which quotes it
        return str(self.args[0])


class QueueFullError(FrameError):
    """As many frames wait as may: poll, then push the frame again."""

    STATUS = -65


class ForeignStateError(Error, ValueError):
    """A saved state of another model or other settings."""

    STATUS = -66


def _all_below(base: type[Error]) -> list[type[Error]]:
    below = [cls for cls in base.__subclasses__()]
    return below + [cls for child in below for cls in _all_below(child)]


_BY_STATUS: dict[int, type[Error]] = {cls.STATUS: cls for cls in _all_below(Error) if cls.STATUS}


def of_status(status: int, detail: str) -> Error:
    """The exception of a status."""
    return _BY_STATUS.get(status, Error)(detail, status)
