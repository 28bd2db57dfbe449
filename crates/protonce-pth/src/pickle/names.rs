//! The Python classes and functions that a pickle may name. Everything else is refused by its name.

use crate::Dtype;

/// A known name. None of them is ever called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum KnownName {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
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
}

/// Module, name and meaning of everything that may be asked for, besides the storage classes.
const KNOWN: [(&str, &str, KnownName); 25] = {
    use PlainClass::*;
    [
        ("collections", "OrderedDict", KnownName::OrderedDict),
        ("torch._utils", "_rebuild_tensor", KnownName::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v2", KnownName::RebuildTensorV2),
        ("torch._utils", "_rebuild_parameter", KnownName::RebuildParameter),
        ("torch", "Size", KnownName::Size),
        ("argparse", "Namespace", KnownName::Plain(Namespace)),
        ("numpy", "dtype", KnownName::Plain(NumpyDtype)),
        ("numpy", "ndarray", KnownName::Plain(NumpyArray)),
        ("numpy.core.multiarray", "scalar", KnownName::Plain(NumpyScalar)),
        ("numpy._core.multiarray", "scalar", KnownName::Plain(NumpyScalar)),
        ("numpy.core.multiarray", "_reconstruct", KnownName::Plain(NumpyReconstruct)),
        ("numpy._core.multiarray", "_reconstruct", KnownName::Plain(NumpyReconstruct)),
        ("_codecs", "encode", KnownName::Plain(Encode)),
        ("builtins", "set", KnownName::Plain(Other)),
        ("__builtin__", "set", KnownName::Plain(Other)),
        ("builtins", "frozenset", KnownName::Plain(Other)),
        ("builtins", "dict", KnownName::Plain(Other)),
        ("builtins", "list", KnownName::Plain(Other)),
        ("builtins", "int", KnownName::Plain(Other)),
        ("builtins", "float", KnownName::Plain(Other)),
        ("collections", "defaultdict", KnownName::Plain(Other)),
        ("collections", "Counter", KnownName::Plain(Other)),
        ("pathlib", "PosixPath", KnownName::Plain(Other)),
        ("pathlib", "PurePosixPath", KnownName::Plain(Other)),
        ("torch", "device", KnownName::Plain(Other)),
    ]
};

/// `torch.float32` and its kin are names too.
const TORCH_DTYPES: [&str; 10] = [
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
];

/// What `module.name` means, if it is known.
pub(super) fn find(module: &str, name: &str) -> Option<KnownName> {
    let known = KNOWN.iter().find(|(m, n, _)| (*m, *n) == (module, name));
    let storage = || Dtype::ALL.into_iter().find(|dtype| dtype.storage() == name);
    match known {
        Some(&(_, _, known)) => Some(known),
        None if module == "torch" && TORCH_DTYPES.contains(&name) => {
            Some(KnownName::Plain(PlainClass::Other))
        }
        None if module == "torch" => storage().map(KnownName::Storage),
        None => None,
    }
}
