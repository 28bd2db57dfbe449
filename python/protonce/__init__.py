"""Fast two-view loading, exact k-means, and pretraining of image encoders without labels.

Nothing but the standard library is imported until it is needed; NumPy is the only requirement.

========================  =====================================================================
``Loader``                batches of random views for your own training loop
``views``                 the views of one image
``Dataset``               names, labels and bytes of images, wherever they are
``cache_objects``         where images of object stores are kept, and how many
``KMeans``                exact k-means under scikit-learn's names
``cluster_metrics``       how well clusters agree with labels
``pretrain``, ``Run``     trains an encoder without labels; what that leaves
``load``                  the encoder as a torchvision ResNet
``embed``                 features of images
``evaluate``              kNN, linear, SVM, semi-supervised and clustering evaluations
``report``                the page that shows what a run discovered
``setup``                 fetches what training needs, once
========================  =====================================================================
"""

import importlib

_HOME = {
    "Dataset": "dataset",
    "Embeddings": "embeddings",
    "KMeans": "kmeans",
    "Loader": "loader",
    "ProgramError": "program",
    "Report": "run",
    "Run": "run",
    "UnreadableImageWarning": "loader",
    "UsageError": "program",
    "cache_objects": "dataset",
    "cluster_metrics": "kmeans",
    "embed": "embeddings",
    "load": "weights",
    "pretrain": "run",
    "report": "run",
    "setup": "program",
    "views": "loader",
}

__all__ = [*sorted(_HOME), "evaluate", "__version__"]


def __getattr__(name):
    if name == "evaluate":
        return importlib.import_module("protonce.evaluate")
    if name == "__version__":
        return importlib.import_module("protonce._core").__version__
    if name not in _HOME:
        raise AttributeError(f"module 'protonce' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"protonce.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
