//! `protonce._core`, the compiled half of the Python package.
//!
//! *Enters*: arguments that `python/protonce` has already put into shape: a data argument, settings as
//! JSON, C-contiguous arrays. *Leaves*: batches of views and clusterings as `Array`s, which NumPy and
//! PyTorch take without a copy; or an exception with the library's sentence. *Why it exists*: the
//! fast parts of protonce, for programs in Python. It knows no libtorch, so that it works beside any
//! version of PyTorch and without one.
//!
//! Each file wraps one thing: `dataset`, `loader`, `views`, `kmeans`. What is common to them
//! is how arrays cross the border (`array`), how errors do (`failure`), and how long work is done
//! while Python looks out for Ctrl-C (`patience`).

mod array;
mod dataset;
mod failure;
mod kmeans;
mod loader;
mod patience;
mod settings;
mod views;

use pyo3::prelude::*;

/// The compiled half of protonce.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<array::Array>()?;
    module.add_class::<dataset::Dataset>()?;
    module.add_function(wrap_pyfunction!(dataset::cache_objects, module)?)?;
    module.add_class::<loader::Pipeline>()?;
    module.add_class::<loader::Batches>()?;
    module.add_function(wrap_pyfunction!(settings::view_settings, module)?)?;
    module.add_function(wrap_pyfunction!(settings::run_settings, module)?)?;
    module.add_function(wrap_pyfunction!(views::views, module)?)?;
    module.add_function(wrap_pyfunction!(kmeans::kmeans_fit, module)?)?;
    module.add_function(wrap_pyfunction!(kmeans::kmeans_predict, module)?)?;
    module.add_function(wrap_pyfunction!(kmeans::kmeans_distances, module)?)?;
    module.add_function(wrap_pyfunction!(kmeans::agreement, module)?)
}
