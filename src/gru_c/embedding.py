"""For other packages and languages: where gru_c.h is, and its functions for ctypes and cffi.

docs/embedding.md tells which way fits which program. `model.handle()` is a model for them.
"""

from __future__ import annotations

import ctypes
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from gru_c._types import Handle
else:
    from gru_c._core import Handle

__all__ = ["CTypesAPI", "Handle", "ctypes_api", "get_cmake_dir", "get_include", "get_pkgconfig_dir"]

FOLDER = Path(__file__).resolve().parent
TYPES = {"int": ctypes.c_int, "double": ctypes.c_double, "size_t": ctypes.c_size_t,
         "ptrdiff_t": ctypes.c_ssize_t}


def get_include() -> str:
    """The folder of ``gru_c.h``, for ``include_dirs`` of an extension module.

    Examples
    --------
    >>> import os, gru_c
    >>> os.listdir(gru_c.get_include())
    ['gru_c.h']
    """
    return str(FOLDER / "include")


def get_cmake_dir() -> str:
    """The folder of ``gru_cConfig.cmake``, for ``gru_c_DIR`` or ``CMAKE_PREFIX_PATH``."""
    return str(FOLDER / "share" / "cmake" / "gru_c")


def get_pkgconfig_dir() -> str:
    """The folder of ``gru_c.pc``, for ``PKG_CONFIG_PATH``."""
    return str(FOLDER / "share" / "pkgconfig")


@functools.cache
def ctypes_api() -> CTypesAPI:
    """The functions of gru_c.h for ctypes, and for cffi.

    Returns
    -------
    CTypesAPI
        Its attributes are the functions and the constants of gru_c.h. See there.

    Examples
    --------
    >>> import ctypes, numpy as np, gru_c
    >>> api, gru = gru_c.ctypes_api(), gru_c.GRU(3, 4, rng=0).eval()
    >>> handle, size = gru.handle(), ctypes.c_size_t()
    >>> x, output = np.ones((5, 2, 3), np.float32), np.empty((5, 2, 4), np.float32)
    >>> status = api.gru_workspace_size_f32(handle, api.GRU_INFERENCE, 5, 2, 1, None,
    ...                                     ctypes.byref(size))
    >>> workspace = np.empty(size.value, np.uint8)
    >>> status = api.gru_forward_f32(handle, 5, 2, x.ctypes.data, None, output.ctypes.data, None,
    ...                              workspace.ctypes.data, workspace.size, 1, None)
    >>> status == api.GRU_OK, np.array_equal(output, gru(x)[0])
    (True, True)
    >>> api.gru_status_text(api.GRU_NULL_POINTER)
    b'a pointer is NULL that must not be'
    """
    return CTypesAPI()


class CTypesAPI:
    """What `ctypes_api` returns: the functions and constants of gru_c.h as attributes.

    A function takes numbers for sizes. For a pointer it takes an address (``array.ctypes.data``),
    None for NULL, ``ctypes.byref(...)`` or any other pointer of ctypes, a `Handle` for a
    ``const gru_model *``, and an `Options` for a ``const gru_options *``. It returns the status.
    Python's other threads run meanwhile. Nothing checks that an address is one of the right memory.

    Attributes
    ----------
    Options : type
        ``gru_options`` as a ctypes.Structure: ``Options(num_layers=2)``; `struct_size` is set.
    table : int
        The address of a ``const gru_api``, which has all functions.
    cdef : str
        The declarations of gru_c.h for cffi::

            ffi.cdef(api.cdef)
            functions = ffi.cast("const gru_api *", api.table)
            functions.gru_model_free(ffi.NULL)
    """

    Options: type[ctypes.Structure]
    table: int
    cdef: str

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        from gru_c import cython_gru

        header = re.sub(r"/\*.*?\*/", "", (FOLDER / "include" / "gru_c.h").read_text(), flags=re.S)
        self._entries: dict[str, tuple[int, str]] = cython_gru.entries()
        self.Options = _structure(header)
        self.table = _pointer(cython_gru._C_API)
        self.cdef = _declarations(header, self._entries)
        for name, value in _constants(header).items():
            setattr(self, name, value)
        for name, (address, signature) in self._entries.items():
            setattr(self, name, _function(address, signature, self.Options))

    if not TYPE_CHECKING:
        def __getattr__(self, name):
            raise AttributeError(f"gru_c.h of this version of gru_c has no {name!r}")

    def address(self, name: str) -> int:
        """The address of a function.

        Parameters
        ----------
        name : str

        Raises
        ------
        AttributeError
            There is no such function.

        Examples
        --------
        >>> import gru_c
        >>> gru_c.ctypes_api().address("gru_step_f32") != 0
        True
        """
        if name not in self._entries:
            raise AttributeError(f"gru_c.h of this version of gru_c has no function {name!r}")
        return self._entries[name][0]


# ---- from the header -----------------------------------------------------------------------------

def _members(header: str) -> list[tuple[str, Any]]:
    """(name, type) of each member of gru_options."""
    body = header.partition("typedef struct gru_options {")[2].partition("}")[0]
    members: list[tuple[str, Any]] = []
    for declaration in body.split(";")[:-1]:
        kind, names = declaration.split(maxsplit=1)
        kind = "*" if "*" in names else kind
        members += [(name.split("*")[-1].strip(), _type(kind)) for name in names.split(",")]
    return members


def _type(declared: str) -> Any:
    return ctypes.c_void_p if "*" in declared else TYPES[declared]


def _structure(header: str) -> type[ctypes.Structure]:
    """gru_options for ctypes."""
    class Options(ctypes.Structure):
        __slots__ = ()                                     # a misspelt option is an error
        _fields_ = _members(header)

        def __init__(self, **options: Any) -> None:
            super().__init__(**{"struct_size": ctypes.sizeof(self), **options})

    return Options


def _constants(header: str) -> dict[str, int]:
    """GRU_ABI_VERSION and the values of all enums."""
    found = {"GRU_ABI_VERSION": int(re.findall(r"#define GRU_ABI_VERSION (\d+)", header)[0])}
    for body in re.findall(r"\benum \w+ \{(.*?)\}", header, re.S):
        next_value = 0
        for item in filter(None, map(str.strip, body.split(","))):
            name, _, value = item.partition(" = ")
            found[name] = int(value) if value else next_value
            next_value = found[name] + 1
    return found


def _declarations(header: str, entries: dict[str, tuple[int, str]]) -> str:
    """Types, enums and the table, without what only a C preprocessor understands."""
    types = header[header.index("typedef struct gru_model"):header.index("} gru_options;")]
    functions = [signature.replace("(", f"(*{name})(", 1) + ";"
                 for name, (_, signature) in entries.items()]
    return "\n".join([f"{types}}} gru_options;", "typedef struct {", "size_t struct_size;",
                      "int abi_version;", "const char *version;", *functions, "} gru_api;", ""])


# ---- functions -----------------------------------------------------------------------------------

def _pointer(capsule: object) -> int:
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi))
    address: int = get(capsule, b"gru_c._C_API")
    return address


def _function(address: int, signature: str, options: type[ctypes.Structure]) -> Callable[..., Any]:
    """From a signature as Cython writes it, such as ``int (gru_model *, size_t)``."""
    class OptionsPointer:
        @staticmethod
        def from_param(value: Any) -> Any:
            if isinstance(value, options):
                return ctypes.byref(value)
            return ctypes.c_void_p.from_param(value)

    result, _, arguments = signature.rstrip(")").partition("(")
    kinds = [OptionsPointer if argument.startswith("gru_options") else _type(argument)
             for argument in arguments.split(", ")]
    # The one pointer that is returned is a text.
    kind = ctypes.c_char_p if "*" in result else TYPES[result.strip()]
    return ctypes.CFUNCTYPE(kind, *kinds)(address)
