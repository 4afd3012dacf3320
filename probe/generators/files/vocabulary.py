"""Names that a checkpoint's pickle may refer to, and what calling each of them means here.

A name is never looked up. Names in `CALLS` turn a call's arguments into data (see `values`); every
other allowed name becomes an inert record of its name, arguments and state.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from probe.errors import kind_of
from probe.generators.files import values
from probe.generators.files.records import Array, Global, Record, damaged
from probe.generators.files.values import Arguments, Dtype, refused

Call = Callable[[Arguments], Any]

# Alternative spellings of a name, and the one used in the tables below: from Python 2, NumPy 2 and
# packages that copy the family's modules.
SPELLINGS = (
    (re.compile(r"__builtin__"), "builtins"),
    (re.compile(r"copy_reg"), "copyreg"),
    (re.compile(r"numpy\._core\.(\w+)"), r"numpy.core.\1"),
    (re.compile(r"pathlib\._local"), "pathlib"),
    (re.compile(r"dill\.dill"), "dill._dill"),
    (re.compile(r"(?:\w+\.)*dnnlib(?:\.util)?"), "dnnlib.util"),
    (re.compile(r"(?:\w+\.)*torch_utils\.persistence"), "torch_utils.persistence"),
)
DICTS = {
    "builtins.dict",
    "collections.Counter",
    "collections.OrderedDict",
    "dnnlib.util.EasyDict",
    "easydict.EasyDict",
}
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}
# Records whose call would have run nothing harmful.
HARMLESS = re.compile(
    r"functools\.partial|torch\.device|torch\.serialization\._get_layout|argparse\.Namespace"
    r"|types\.(SimpleNamespace|MethodType)|logging\.getLogger|pathlib\.(Pure)?(Posix|Windows)?Path"
    r"|datetime\.(date|time|datetime|timedelta|timezone)|builtins\.(object|range|xrange)"
    r"|decimal\.Decimal|fractions\.Fraction|uuid\.(UUID|SafeUUID)"
    r"|numpy\.random\._pickle\.__(randomstate|bit_generator)_ctor"
)
# Types and functions that an attribute may refer to.
PLAIN = re.compile(
    r"torch\.(Tensor|q?u?int\d+|float\w+|bfloat16|complex\d+|bool)"
    r"|torch\._C\.(_VariableFunctionsClass(\.\w+)?|_(nn|fft|linalg|special)\.[a-z]\w*)"
    r"|numpy\.(bool_?|u?int\d+|float\d+)"
    r"|numpy\.random\._mt19937\.MT19937"
    r"|builtins\.(bool|int|long|float|str|unicode|list|tuple|Ellipsis|NotImplemented)"
    r"|typing\.[A-Z]\w*",
    re.ASCII,
)
# Modules of the known families, of torch.nn (whose hooks hold spectral norms), and of the libraries
# whose backbones are saved with a vision-aided GAN.
LIBRARIES = re.compile(
    r"(torch\.(nn\.(modules|utils|parameter|parallel|functional|init)|optim)\.|torch_utils\."
    r"|training\.|dnnlib\.tflib\.|pg_modules\.|R3GAN\.|networks\.|vision_aided_loss\.|timm\."
    r"|torchvision\.|open_clip\.|clip\.|lpips\.|antialiased_cnns\.)[\w.]*\w",
    re.ASCII,
)
# Packages from which nothing else is allowed: Python's own, by their 2 and 3 names, and tools.
CLOSED = sys.stdlib_module_names | set(
    "__builtin__ copy_reg cPickle commands exceptions imp popen2 Queue StringIO urllib2 "
    "numpy scipy dill cloudpickle joblib pip setuptools pkg_resources".split()
)
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
CLASS = re.compile(r"_*[A-Z]\w*", re.ASCII)
FUNCTION = re.compile(r"[A-Za-z_]\w*", re.ASCII)

GETATTR = "builtins.getattr"
PARTIAL = "functools.partial"
LOAD_TYPE = "dill._dill._load_type"
CREATE_ARRAY = "dill._dill._create_array"
RECONSTRUCT = "numpy.core.multiarray._reconstruct"
FROM_TYPE = ("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")
LOAD_STORAGE = "torch.storage._load_from_bytes"  # handled by the reader itself


def canonical(found: Global) -> Global:
    """Return a global in the spelling used by the tables here."""
    for spelling, ours in SPELLINGS:
        if match := spelling.fullmatch(found.module):
            return Global(match.expand(ours), found.name)
    return found


def attribute(owner: Global, name: Any) -> Global:
    """Return the stand-in for an attribute of a global."""
    return Global(owner.module, f"{owner.name}.{name}" if isinstance(name, str) else name)


def is_harmless(found: Global) -> bool:
    """Return whether calling a global only makes a container, a tensor or the like."""
    name = str(canonical(found))
    known = name in CALLS or name in DICTS or name == LOAD_STORAGE
    return (known or bool(HARMLESS.fullmatch(name))) and name != GETATTR


def is_allowed(found: Global, *, called: bool = False) -> bool:
    """Return whether this reader accepts a global.

    Functions of the known libraries may be named but not called, because some write files, download
    or call other functions by name. Their classes may be called, as enumerations are. Nothing from
    other packages is called: their objects are made without a call and given their state.

    Args:
        found: the global.
        called: by REDUCE, which would have run the function or the class's constructor.
    """
    found = canonical(found)
    name = str(found)
    if is_harmless(found) or name == GETATTR:
        return True
    if name in STORAGES or PLAIN.fullmatch(name):
        return not called
    # Dots in the name reach through attributes. They may lead from a class to its method, but not
    # from a module to everything it imports.
    *classes, last = found.name.split(".")
    within_classes = all(map(CLASS.fullmatch, classes))
    is_class = within_classes and bool(CLASS.fullmatch(last))
    is_function = within_classes and bool(FUNCTION.fullmatch(last))
    if LIBRARIES.fullmatch(name):
        return is_class or (is_function and not called)
    package = found.module.partition(".")[0]
    if called or package in CLOSED or not MODULE.fullmatch(found.module):
        return False
    return is_class or (is_function and package != "torch")


def handle_call(function: Any, args: Any, *, reduce: bool, further: Mapping[str, Call]) -> Any:
    """Handle a REDUCE or NEWOBJ.

    Args:
        function: the callee.
        args: its arguments.
        reduce: by REDUCE, which would have run a function or a class's constructor.
        further: calls accepted in addition to `CALLS`.

    Raises:
        UnsafeCheckpoint: if the call is not accepted.
        CheckpointError: if the arguments make no sense.
    """
    if not isinstance(function, Global):
        raise refused(f"a call of a {kind_of(function)}")
    if not isinstance(args, tuple):
        raise damaged("a call without arguments")
    name = str(function)
    if name in DICTS:
        return values.make_dict(args)
    if make := CALLS.get(name) or further.get(name):
        return make(args)
    if not is_allowed(function, called=reduce):
        raise refused(f"a call of {name}")
    return Record(function, args)


def handle_build(target: Any, state: Any) -> None:
    """Handle a BUILD: set the state of a record, an array or a dtype, nothing else.

    Raises:
        UnsafeCheckpoint: if the state or target is of another kind.
        CheckpointError: if the state makes no sense.
    """
    if isinstance(target, Record):
        if str(target.type) == PARTIAL and isinstance(state, tuple):
            state = dict(zip(("func", "args", "keywords"), state, strict=False))
        # A pair that ends in a dict sets attributes one by one, under arbitrary names.
        in_slots = isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict)
        if in_slots or not isinstance(state, dict | tuple):
            raise refused(f"a state of {target.type} that is not a dict")
        target.state = state
    elif isinstance(target, Array):
        values.fill_array(target, state)
    elif isinstance(target, Dtype):
        byte_order = state[1]
        if byte_order in ("<", ">"):
            target.text = byte_order + target.text.lstrip("<>|=")
    elif not isinstance(target, dict) or not isinstance(state, dict):
        # An OrderedDict's attributes (a state dict's `_metadata`) are dropped.
        raise refused(f"a state for a {kind_of(target)}")


def _reconstructor(args: Arguments) -> Any:
    """`copyreg._reconstructor(class, base, content)`, which protocols 0 and 1 use for objects."""
    found, base, content = args
    if not isinstance(found, Global) or not isinstance(base, Global):
        raise damaged("an object without a class")
    if str(base) == "builtins.dict":
        made = handle_call(found, (), reduce=False, further={})
        entries = made if isinstance(made, dict) else values.entries_of(made)
        entries.update(values.pairs(content))
        return made
    if str(base) != "builtins.object":
        raise refused(f"a {found} that is a {base}")
    return handle_call(found, (), reduce=False, further={})


def _load_type(args: Arguments) -> Global:
    """`dill._dill._load_type(name)`: a built-in type."""
    (name,) = args
    if name == "PartialType":
        return Global("functools", "partial")
    found = Global("builtins", name)
    return found if is_allowed(found) else Global("types", name)


def _getattr(args: Arguments) -> Global | Record:
    """`getattr(owner, name)`, used for methods and for functions such as `torch.sigmoid`."""
    owner, name = args
    if isinstance(owner, Record) and FUNCTION.fullmatch(name) and not name.startswith("__"):
        return Record(Global("builtins", "getattr"), args)
    if isinstance(owner, Global):
        found = attribute(owner, name)
        if is_allowed(found):
            return found
    raise refused(f"a call of {GETATTR}")


def _rebuild_from_type(args: Arguments) -> Any:
    """`_rebuild_from_type_v2(function, type, arguments, attributes)`: a tensor with attributes."""
    function, _, arguments, _ = args
    if not isinstance(function, Global) or str(function) not in TENSORS:
        raise refused("a tensor that another function makes")
    return values.rebuild_tensor(arguments)


def _create_array(args: Arguments) -> Array:
    """`dill._dill._create_array(function, arguments, state, attributes)`: a numpy array."""
    function, _, state, _ = args
    if str(function) != RECONSTRUCT:
        raise refused("an array that another function makes")
    if not isinstance(state, tuple) or not isinstance(state[-1], bytes | bytearray):
        raise damaged("a numpy array without content")  # copying text would escape the budget
    array = Array()
    values.fill_array(array, state)
    return array


TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
CALLS: Mapping[str, Call] = {
    "_codecs.encode": values.encode,
    "builtins.bytearray": values.make_bytes,
    "builtins.bytes": values.make_bytes,
    "builtins.complex": values.make_complex,
    "builtins.frozenset": values.make_frozenset,
    "builtins.set": values.make_set,
    GETATTR: _getattr,
    "collections.defaultdict": lambda args: {},
    "collections.deque": values.make_list,
    "copyreg._reconstructor": _reconstructor,
    CREATE_ARRAY: _create_array,
    LOAD_TYPE: _load_type,
    RECONSTRUCT: lambda args: Array(),
    "numpy.core.multiarray.scalar": values.numpy_scalar,
    "numpy.core.numeric._frombuffer": values.numpy_buffer,
    "numpy.dtype": values.numpy_dtype,
    "numpy.ndarray": lambda args: Array(),
    "torch.Size": values.make_size,
    **dict.fromkeys(TENSORS, values.rebuild_tensor),
    **dict.fromkeys(FROM_TYPE, _rebuild_from_type),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": values.rebuild_parameter,
    "torch._utils._rebuild_parameter": values.rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": values.rebuild_parameter,
    "torch_utils.persistence._reconstruct_persistent_obj": values.persistent_object,
}
