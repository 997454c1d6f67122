from .calibrate import run_calibrate as run_calibrate, run_calibration as run_calibration
from .config import (
    CalibrateOptions as CalibrateOptions,
    CalibrateSearchOptions as CalibrateSearchOptions,
    CalibrationOptions as CalibrationOptions,
    DatacompOptions as DatacompOptions,
    DecisionsOptions as DecisionsOptions,
    HierarcapsOptions as HierarcapsOptions,
    HierarimgsOptions as HierarimgsOptions,
    NoiseOptions as NoiseOptions,
    RetrievalOptions as RetrievalOptions,
    SuiteOptions as SuiteOptions,
    UncertaintyOptions as UncertaintyOptions,
    ZeroShotOptions as ZeroShotOptions,
)
from .datacomp import Task as Task, read_tasks as read_tasks, run_datacomp as run_datacomp
from .decisions import run_decisions as run_decisions
from .evaluate import run_suite as run_suite
from .hierarchies import (
    Hierarchies as Hierarchies,
    run_hierarcaps as run_hierarcaps,
    run_hierarimgs as run_hierarimgs,
    walk_rows as walk_rows,
)
from .noise import run_noise as run_noise
from .result_files import write_results as write_results
from .results import (
    Chart as Chart,
    Row as Row,
    RowId as RowId,
    SuiteResult as SuiteResult,
    TaskCache as TaskCache,
    TaskResult as TaskResult,
)
from .retrieval import load_truth as load_truth, recall_rows as recall_rows, run_retrieval as run_retrieval
from .uncertainty import run_uncertainty as run_uncertainty
from .zero_shot import run_zero_shot as run_zero_shot
