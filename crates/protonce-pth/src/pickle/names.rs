//! The Python classes and functions that a pickle may name: those with a meaning here, those that are
//! passed over, and those that start programs or run code, with which a file is refused.

use crate::Dtype;

/// A known name. None of them is ever called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum KnownName {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    RebuildFromType,
    Size,
    Storage(Dtype),
    Plain(PlainClass),
}

/// What is kept as it is written, and not interpreted further unless a [`Value`](super::Value) is asked to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PlainClass {
    /// Its state is a dict.
    Namespace,
    NumpyDtype,
    NumpyScalar,
    NumpyReconstruct,
    NumpyArray,
    /// `_codecs.encode`: bytes, as protocol 2 writes them.
    Encode,
    Other,
    /// A class or function without a meaning here: whatever the pickle does with it is passed over, and
    /// nothing looks into it.
    Opaque,
}

/// Module, name and meaning of everything that may be asked for, besides the storage classes.
const KNOWN: [(&str, &str, KnownName); 23] = {
    use PlainClass::*;
    [
        ("collections", "OrderedDict", KnownName::OrderedDict),
        ("torch._utils", "_rebuild_tensor", KnownName::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v2", KnownName::RebuildTensorV2),
        ("torch._utils", "_rebuild_parameter", KnownName::RebuildParameter),
        ("torch._utils", "_rebuild_parameter_with_state", KnownName::RebuildParameter),
        ("torch._tensor", "_rebuild_from_type_v2", KnownName::RebuildFromType),
        ("torch", "Size", KnownName::Size),
        ("argparse", "Namespace", KnownName::Plain(Namespace)),
        ("numpy", "dtype", KnownName::Plain(NumpyDtype)),
        ("numpy", "ndarray", KnownName::Plain(NumpyArray)),
        ("numpy.core.multiarray", "scalar", KnownName::Plain(NumpyScalar)),
        ("numpy._core.multiarray", "scalar", KnownName::Plain(NumpyScalar)),
        ("numpy.core.multiarray", "_reconstruct", KnownName::Plain(NumpyReconstruct)),
        ("numpy._core.multiarray", "_reconstruct", KnownName::Plain(NumpyReconstruct)),
        ("_codecs", "encode", KnownName::Plain(Encode)),
        ("collections", "defaultdict", KnownName::Plain(Other)),
        ("collections", "Counter", KnownName::Plain(Other)),
        ("pathlib", "PosixPath", KnownName::Plain(Other)),
        ("pathlib", "PurePosixPath", KnownName::Plain(Other)),
        ("torch", "Tensor", KnownName::Plain(Other)),
        ("torch.torch_version", "TorchVersion", KnownName::Plain(Other)),
        ("torch.nn.parameter", "Parameter", KnownName::Plain(Other)),
        ("torch", "device", KnownName::Plain(Other)),
    ]
};

/// `torch.float32` and its kin are names too.
const TORCH_DTYPES: [&str; 10] = [
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
];

/// What is in Python itself and no function: types of objects, which checkpoints of trainers name.
const BUILTIN_TYPES: [&str; 24] = [
    "Exception",
    "KeyboardInterrupt",
    "NoneType",
    "NotImplementedType",
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "ellipsis",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "type",
    "unicode",
    "xrange",
];

/// Modules, with all below them, that start programs, run code, or reach files and networks. Nothing
/// here calls them, but a file that asks for them was made to do harm.
const HARMFUL: [&str; 44] = [
    "__builtin__",
    "_pickle",
    "_posixsubprocess",
    "aiohttp",
    "asyncio",
    "bdb",
    "builtins",
    "cProfile",
    "code",
    "codeop",
    "commands",
    "ctypes",
    "distutils",
    "dill",
    "ensurepip",
    "ftplib",
    "http",
    "httplib",
    "imaplib",
    "importlib",
    "marshal",
    "multiprocessing",
    "nt",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "posix",
    "profile",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "shutil",
    "smtplib",
    "socket",
    "subprocess",
    "sys",
    "telnetlib",
    "tempfile",
    "timeit",
    "urllib",
    "webbrowser",
];

/// What `module.name` means; none where a file that asks for it is refused.
pub(super) fn find(module: &str, name: &str) -> Option<KnownName> {
    let known = KNOWN.iter().find(|(m, n, _)| (*m, *n) == (module, name));
    let storage = || Dtype::ALL.into_iter().find(|dtype| dtype.storage() == name);
    let builtin_type =
        || matches!(module, "builtins" | "__builtin__") && BUILTIN_TYPES.contains(&name);
    let harmful = || HARMFUL.contains(&module.split('.').next().unwrap_or_default());
    match known {
        Some(&(_, _, known)) => Some(known),
        None if module == "torch" && TORCH_DTYPES.contains(&name) || builtin_type() => {
            Some(KnownName::Plain(PlainClass::Other))
        }
        None if module == "torch" && storage().is_some() => storage().map(KnownName::Storage),
        None if harmful() => None,
        None => Some(KnownName::Plain(PlainClass::Opaque)),
    }
}
