from . import evaluate as evaluate
from .dataset import Dataset as Dataset
from .dataset import cache_objects as cache_objects
from .embeddings import Embeddings as Embeddings
from .embeddings import embed as embed
from .kmeans import KMeans as KMeans
from .kmeans import cluster_metrics as cluster_metrics
from .loader import Loader as Loader
from .loader import UnreadableImageWarning as UnreadableImageWarning
from .loader import views as views
from .program import ProgramError as ProgramError
from .program import UsageError as UsageError
from .program import setup as setup
from .run import Report as Report
from .run import Run as Run
from .run import pretrain as pretrain
from .run import report as report
from .weights import load as load

__version__: str
