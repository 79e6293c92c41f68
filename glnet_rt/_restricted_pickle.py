"""Read SMPL's `.pkl` files without chumpy, without scipy, and without running what they name.

A pickle may call anything it can import. Here it can reach plain containers, NumPy arrays, and two
inert holders that stand in for chumpy's and scipy's classes; any other name is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError

_COMPRESSED = ("csc_matrix", "csr_matrix", "csc_array", "csr_array")


class _Holder:
    """Takes the place of a foreign class: keeps its state, does nothing."""

    kind = ""

    def __init__(self, *args: object) -> None:
        self.args = args

    def __setstate__(self, state: object) -> None:
        # Slots-style states come as (dict, dict).
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update(part)

    def need(self, name: str) -> Any:
        if name not in self.__dict__:
            raise ArtifactError(
                f"a {self.kind} in the pickle has no {name!r}", got=sorted(self.__dict__)
            )
        return self.__dict__[name]


def load(data: bytes, name: str) -> dict[str, Any]:
    """Decode a pickled dict of arrays; chumpy and sparse values come back dense.

    Args:
        data: the file's bytes; Python 2 pickles are read as latin-1.
        name: of the file, for the messages.
    Raises:
        ArtifactError: damaged, no dict, or naming a class outside the list above.
    """
    try:
        value = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        if isinstance(value, dict):
            return {str(key): _dense(item) for key, item in value.items()}
    except ArtifactError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise ArtifactError(
            f"{name} is no readable pickle",
            got=f"{type(error).__name__}: {error}",
            expected="an SMPL .pkl file",
            fix="fetch the file again; it may be cut short",
        ) from error
    raise ArtifactError(
        f"{name} holds no model", got=type(value).__name__, expected="a dict of arrays"
    )


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _COMPRESSED and module.split(".")[:2] == ["scipy", "sparse"]:
            return type("Compressed", (_Holder,), {"kind": name})
        if module.split(".")[0] == "chumpy":
            return type("Chumpy", (_Holder,), {"kind": name})
        # NumPy moved its internals between major versions; the pickles kept the old names.
        plain = _PLAIN.get((module.replace("numpy._core", "numpy.core"), name))
        if plain is None:
            raise ArtifactError(
                f"the pickle names {module}.{name}, which a body file has no use for",
                got=f"{module}.{name}",
                expected="plain containers, NumPy arrays, chumpy and scipy.sparse values",
                fix="do not trust this file; fetch the model from its publisher again",
            )
        return plain


def _reconstruct_object(cls: type, base: type, state: object) -> object:
    """`copyreg._reconstructor` for holders alone."""
    if not issubclass(cls, _Holder) or base is not object:
        raise ArtifactError("the pickle rebuilds an object of a class it may not", got=cls)
    return cls.__new__(cls)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`, by which Python 3 writes bytes into old pickles."""
    return text.encode(encoding)


def _numpy_function(value: Any, protocol: int = 2) -> Callable[..., Any]:
    """The function NumPy's own pickles call to rebuild such a value, in this version of NumPy."""
    function: Callable[..., Any] = value.__reduce_ex__(protocol)[0]
    return function


_PLAIN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _numpy_function(np.zeros(1)),
    ("numpy.core.multiarray", "scalar"): _numpy_function(np.float64(0)),
    ("numpy.core.numeric", "_frombuffer"): _numpy_function(np.zeros(1), protocol=5),
    ("copy_reg", "_reconstructor"): _reconstruct_object,
    ("copyreg", "_reconstructor"): _reconstruct_object,
    ("_codecs", "encode"): _encode,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (object, dict, list, set, frozenset, tuple, bytes, bytearray, complex)
    },
}


def _dense(value: Any) -> Any:
    """A holder's array, or the value itself."""
    if not isinstance(value, _Holder):
        return value
    if value.kind in _COMPRESSED:
        return _dense_matrix(value)
    return _chumpy_array(value)


def _dense_matrix(matrix: _Holder) -> Array:
    """Compressed sparse columns (csc) or rows (csr), written out."""
    state = matrix.__dict__
    rows, columns = state.get("_shape") or state.get("shape") or matrix.need("_shape")
    data, minor, pointers = (np.asarray(matrix.need(k)) for k in ("data", "indices", "indptr"))
    by_column = matrix.kind.startswith("csc")
    dense = np.zeros((rows, columns), np.float64)
    major = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
    np.add.at(dense, (minor, major) if by_column else (major, minor), data)
    return dense


def _chumpy_array(value: _Holder) -> Array:
    """Value of a chumpy array, or of a view that picks and reshapes one."""
    state = value.__dict__
    if "x" in state:
        return np.asarray(_dense(state["x"]))
    array = np.asarray(_dense(value.need("a")))
    if "idxs" in state:
        array = array.ravel()[np.asarray(_dense(state["idxs"]))]
    elif value.kind == "Transpose":
        return array.transpose(state.get("axes"))
    shape = state.get("preferred_shape", state.get("newshape"))
    return array if shape is None else array.reshape(shape)
