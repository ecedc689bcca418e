"""Turns running out of memory into one line that says what was large, and which options help."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def memory_errors() -> tuple[type[BaseException], ...]:
    """Returns what Python, and TensorFlow or PyTorch where they are in use, raise on CPUs and GPUs when memory is used up."""
    errors: list[type[BaseException]] = [MemoryError]
    if (tensorflow := sys.modules.get("tensorflow")) is not None:
        errors.append(tensorflow.errors.ResourceExhaustedError)
    if (torch := sys.modules.get("torch")) is not None:
        errors.append(torch.OutOfMemoryError)
    return tuple(errors)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that memory is used up; JAX has one type of error for all that a device reports.

    Args:
        error: any.
    """
    jax = sys.modules.get("jax")
    of_jax = jax is not None and isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return of_jax or isinstance(error, memory_errors())


class OutOfMemoryError(MemoryError, ValueError):
    """Says in one line what did not fit into memory, and what helps."""


@contextmanager
def explained_memory(describe: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """Raises an error of one line when memory is used up in a `with` block.

    Args:
        describe: () -> what was large, and which options help; called after the error.

    Raises:
        OutOfMemoryError: naming both. One that an inner block raised passes unchanged, because it knows more.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        large, remedy = describe()
        raise OutOfMemoryError(f"memory must be enough for {large}, got no more of it: {remedy}") from error


def images_in_words(shape: tuple[int, ...]) -> str:
    """Returns `2 images of 800 x 1088 pixels` for a batch of that shape (B, H, W, 3)."""
    count, height, width = shape[:3]
    return f"{count} image{'s' if count > 1 else ''} of {height} x {width} pixels"


def large_images(shape: tuple[int, ...]) -> tuple[str, str]:
    """Returns what was large in a detection, and which options help, for `explained_memory`.

    Args:
        shape: (B, H, W, 3), of the images that a detector looked at.
    """
    batch = "a smaller --batch-size, or " if shape[0] > 1 else ""
    return (
        f"{images_in_words(shape)} at once",
        f"use {batch}smaller images (--scales 480; in training --input.short-side)",
    )
