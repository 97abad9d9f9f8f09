"""Read the pickles that head models come in, without running anything that is written in them.

A pickle is a small program: it may name any function of any module and call it. FLAME's files need only a dozen names
(NumPy's array constructors, SciPy's sparse matrices, chumpy's array class), so the reader works in two passes:

1. Python's own unpickler runs with every allowed name replaced by an inert stand-in, which notes down what it was called
   with and does nothing. A name that is not on the list ends the reading. Nothing of NumPy, SciPy or chumpy runs here.
2. The notes are decoded into plain arrays by the code below, with types, sizes and index ranges checked.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
from typing import Any

import numpy as np

from flame_assets.asset import AssetError
from flame_assets.safe_npz import read_header

MAX_ELEMENTS = 200_000_000
"""Largest array that is decoded; a head model's largest has six million numbers."""

_MAX_DEPTH = 64
_PLAIN = (type(None), bool, int, float, str, bytes)
_PICKLE_ERRORS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError, OverflowError,
)  # fmt: skip


_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class UnsafePickleError(AssetError):
    """The pickle names something that a head model has no use for; nothing of it was run."""


class Opaque:
    """A value that was kept from being evaluated: harmless to hold, of no use otherwise."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __repr__(self) -> str:
        return f"<{self.what}, not evaluated>"


class _Inert:
    """Stand-in for whatever a pickle names: keeps its arguments, its state and its items."""

    kind = ""

    def __new__(cls, *args: Any, **_: Any) -> _Inert:
        self = object.__new__(cls)
        self.args, self.state, self.items = args, None, []
        return self

    def __init__(self, *args: Any, **_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: list) -> None:
        self.items.extend(values)


def _stand_ins() -> dict[tuple[str, str], type[_Inert]]:
    """The allow-list: (module, name) -> a stand-in class that remembers how to decode it."""
    names: list[tuple[str, str, str]] = []
    for core in ("numpy.core", "numpy._core"):
        names += [(f"{core}.multiarray", "_reconstruct", "array"), (f"{core}.multiarray", "scalar", "scalar")]
        names += [(f"{core}.numeric", "_frombuffer", "buffer")]
    names += [("numpy", "ndarray", "class"), ("numpy", "dtype", "dtype")]
    for layout in ("csc", "csr"):
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}", "scipy.sparse"):
            names += [(module, f"{layout}_matrix", layout), (module, f"{layout}_array", layout)]
    names += [(module, "Ch", "chumpy") for module in ("chumpy.ch", "chumpy")]
    names += [("collections", "OrderedDict", "dict")]
    names += [("_codecs", "encode", "encode")]
    names += [(module, "_reconstructor", "reconstructor") for module in ("copy_reg", "copyreg")]
    for module in ("__builtin__", "builtins"):
        names += [(module, name, name) for name in ("set", "frozenset", "list", "tuple", "dict", "bytes", "bytearray", "object")]
    # landmark_embedding.npy of some distributions keeps tensors beside the arrays that are of use; never evaluated
    names += [("torch._utils", name, "opaque") for name in ("_rebuild_tensor", "_rebuild_tensor_v2")]
    names += [("torch.storage", "_load_from_bytes", "opaque")]
    return {(module, name): type(name, (_Inert,), {"kind": kind}) for module, name, kind in names}


_ALLOWED = _stand_ins()


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, source: str) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._source = source

    def find_class(self, module: str, name: str) -> type[_Inert]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"{self._source}: refused: the pickle asks for '{module}.{name}', which no head model needs; "
                "nothing in it was run. Get the file again from its publisher"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError(f"{self._source}: refused: the pickle refers to objects outside itself")


def load_pickle(data: bytes, source: str) -> Any:
    """Decode a pickle of plain containers, NumPy arrays, SciPy sparse matrices and chumpy arrays.

    Args:
        data: the pickle, any protocol; strings of Python 2 are read as Latin-1.
        source: named in messages, usually the path.

    Returns:
        Dicts, lists, tuples, sets, strings, numbers and arrays. Sparse matrices come back dense; a chumpy array as the
        array it holds; tensors as :class:`Opaque`.

    Raises:
        UnsafePickleError: it names anything outside the allow-list. Nothing of it was run.
        AssetError: it is damaged, not a pickle, or holds values of an unknown make.
    """
    try:
        _check_memo(data)
        tree = _Unpickler(data, source).load()
        return _Decoder().decode(tree)
    except AssetError:
        raise
    except EOFError:
        raise AssetError(f"{source}: the file ends in the middle; download it again") from None
    except (*_PICKLE_ERRORS, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise AssetError(f"{source}: not a readable pickle ({reason}); is it the right file, and complete?") from error


def _check_memo(data: bytes) -> None:
    """Refuse numbers of the memo that nothing calls for: the unpickler makes a table as long as the largest, 32 GB for one opcode.

    Raises:
        ValueError: such a number, or opcodes that do not exist.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in its strings
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name in _PUTS and not 0 <= argument <= count + 1:
                raise ValueError("it numbers objects that it does not have")


def load_npy(data: bytes, source: str) -> Any:
    """Decode a ``.npy`` file, whose content may be a pickled Python object (read as by :func:`load_pickle`).

    Raises:
        UnsafePickleError, AssetError: as :func:`load_pickle`.
    """
    stream = io.BytesIO(data)
    try:
        shape, dtype = read_header(stream)
        if not dtype.hasobject:
            if math.prod(shape) * dtype.itemsize > len(data):  # nothing is to be reserved for what is not there
                raise ValueError("the file ends in the middle")
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, OverflowError) as error:
        raise AssetError(f"{source}: not a readable .npy file ({' '.join(str(error).split())[:120]})") from error
    value = load_pickle(data[stream.tell() :], source)
    return value.item() if isinstance(value, np.ndarray) and shape == () else value


class _Decoder:
    """Second pass: inert notes to plain values. Each note is decoded once, so shared parts stay shared."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, Any]] = {}  # the note stays alive, so that its id stays its own
        self._open: set[int] = set()

    def decode(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return value
        key = id(value)
        if key in self._done:
            return self._done[key][1]
        if key in self._open or len(self._open) > _MAX_DEPTH:
            raise ValueError("an object that contains itself")
        self._open.add(key)
        try:
            result = self._container(value)
        finally:
            self._open.discard(key)
        self._done[key] = (value, result)
        return result

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._key(k): self.decode(v) for k, v in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return type(value)(self.decode(v) for v in value)
        if isinstance(value, (complex, bytearray)):
            return value
        if isinstance(value, _Inert):
            return self._inert(value)
        raise ValueError(f"unexpected {type(value).__name__}")

    def _key(self, key: Any) -> Any:
        key = self.decode(key)
        return key.decode("latin1") if isinstance(key, bytes) else key

    def _inert(self, note: _Inert) -> Any:
        kind, args = note.kind, note.args
        if kind == "reconstructor":  # protocols 0 and 1: the class comes as the first argument, the state afterwards
            if not (args and isinstance(args[0], type) and issubclass(args[0], _Inert)):
                raise ValueError("object of an unknown class")
            kind, args = args[0].kind, ()
        if kind == "opaque":
            return Opaque("tensor")
        if kind == "array":
            return self._array_from_state(note.state)
        if kind == "buffer":
            data, dtype, shape, order = self._arguments(args, 4)
            return _array(self.decode(data), self._dtype(dtype), shape, order == "F")
        if kind == "scalar":
            dtype, data = self._arguments(args, 2)
            return _array(self.decode(data), self._dtype(dtype), (), False)[()]
        if kind == "dtype":
            return self._dtype(note)
        if kind in ("csc", "csr"):
            return self._sparse(kind, note.state)
        if kind == "chumpy":
            state = note.state
            if not isinstance(state, dict) or "x" not in state:
                raise ValueError("a chumpy object that is not a plain array")
            return np.asarray(self.decode(state["x"]))
        if kind == "encode":  # how Python 3 writes bytes for Python 2
            text, *codec = (self.decode(a) for a in args)
            if not isinstance(text, str) or codec not in ([], ["latin1"], ["latin-1"]):
                raise ValueError("bytes in an unknown encoding")
            return text.encode("latin1")
        return self._builtin(kind, note, args)

    def _builtin(self, kind: str, note: _Inert, args: tuple) -> Any:
        first = self.decode(args[0]) if args else ()
        if kind == "dict":
            pairs = first.items() if isinstance(first, dict) else first
            return dict(pairs) | {self._key(k): self.decode(v) for k, v in note.items}
        makers = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple}
        if kind in makers:
            return makers[kind]([*first, *(self.decode(v) for v in note.items)])
        if kind in ("bytes", "bytearray"):
            return first.encode("latin1") if isinstance(first, str) else bytes(first) if isinstance(first, bytes) else b""
        raise ValueError(f"unexpected {kind}")

    @staticmethod
    def _arguments(args: tuple, count: int) -> tuple:
        if len(args) != count:
            raise ValueError("an array whose description is incomplete")
        return args

    def _dtype(self, note: Any) -> np.dtype:
        if not (isinstance(note, _Inert) and note.kind == "dtype" and note.args and isinstance(note.args[0], str)):
            raise ValueError("an array of unknown type")
        name = note.args[0].lstrip("<>=|")
        if name[:1] not in ("b", "i", "u", "f", "S", "U", "O") or not name[1:].isdigit():
            raise ValueError(f"an array of type {note.args[0]!r}")
        order = note.args[0][0] if note.args[0][0] in "<>" else "<"
        if isinstance(note.state, tuple) and len(note.state) > 1 and note.state[1] in ("<", ">"):
            order = note.state[1]
        return np.dtype("O" if name[0] == "O" else order + name)

    def _array_from_state(self, state: Any) -> np.ndarray:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array without content")
        shape, dtype, fortran, data = state[-4:]
        if isinstance(data, _Inert):
            data = self.decode(data)
        dtype = self._dtype(dtype)
        if dtype.hasobject:
            if not isinstance(data, list) or len(data) != _size(shape):
                raise ValueError("an array of objects that does not fit its shape")
            out = np.empty(len(data), object)
            for i, item in enumerate(data):
                out[i] = self.decode(item)
            return out.reshape(shape, order="F" if fortran else "C")
        return _array(data, dtype, shape, bool(fortran))

    def _sparse(self, layout: str, state: Any) -> np.ndarray:
        """Compressed columns or rows, to a dense float64 matrix."""
        fields = self.decode(state)
        if not isinstance(fields, dict) or not {"data", "indices", "indptr"} <= fields.keys():
            raise ValueError("a sparse matrix without content")
        rows, columns = (int(n) for n in fields.get("_shape", fields.get("shape")))
        data, index, start = (np.asarray(fields[k]) for k in ("data", "indices", "indptr"))
        major, minor = (columns, rows) if layout == "csc" else (rows, columns)
        _size((rows, columns))
        counts = np.diff(start)
        fits = data.ndim == index.ndim == 1 and len(start) == major + 1 and start[0] == 0 and (counts >= 0).all()
        if not (fits and start[-1] <= min(len(data), len(index))):
            raise ValueError("a sparse matrix whose index is inconsistent")
        data, index = data[: start[-1]], index[: start[-1]]
        if len(index) and not (0 <= index.min() and index.max() < minor):
            raise ValueError("a sparse matrix whose index is inconsistent")
        out = np.zeros((major, minor))
        np.add.at(out, (np.repeat(np.arange(major), counts), index), data)
        return out.T if layout == "csc" else out


def _size(shape: Any) -> int:
    """Number of elements; refuses shapes that are not small tuples of non-negative integers."""
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array of impossible shape")
    count = 1
    for n in shape:
        count *= n
    if count > MAX_ELEMENTS:
        raise ValueError("an array larger than any head model's")
    return count


def _array(data: Any, dtype: np.dtype, shape: Any, fortran: bool) -> np.ndarray:
    if isinstance(data, str):  # Python 2's str holds bytes, read as Latin-1
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or dtype.hasobject or len(data) != _size(shape) * dtype.itemsize:
        raise ValueError("an array whose content does not fit its shape")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order="F" if fortran else "C")
